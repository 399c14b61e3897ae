package wherry_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
)

// Guarantee "drain": once ctx is done no further record begins, also when the
// handler itself asked for the end and more records are in memory.
func TestBreak_NoRecordBeginsAfterTheEndWasAskedFor(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 1})
	c.fill(t, 1, 200)
	var stop func()
	stopped := make(chan struct{})
	seen := newRecorder()
	ready := make(chan struct{})
	end, stop := background(t, &wherry.Consumer{
		Client: c.client(t), Group: "g",
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
			<-ready
			select {
			case <-stopped:
				t.Errorf("record %s began after the end was asked for", o.ID)
			default:
			}
			_ = seen.handle(ctx, o)
			if o.ID == "0-10" {
				stop()
				close(stopped)
			}
			return nil
		})},
	})
	close(ready)
	require.NoError(t, receive(t, end, "the end"))
	require.EqualValues(t, len(seen.all()), c.committed("g", "order.placed", 0))
}

// deadMember joins group as its first member and never speaks again: until its
// session times out, who joins waits for it.
func deadMember(t *testing.T, c faulty, group string, session time.Duration) {
	t.Helper()
	join := kmsg.NewPtrJoinGroupRequest()
	join.Group = group
	join.SessionTimeoutMillis = int32(session.Milliseconds())
	join.RebalanceTimeoutMillis = int32(session.Milliseconds())
	join.ProtocolType = "consumer"
	proto := kmsg.NewJoinGroupRequestProtocol()
	proto.Name = "cooperative-sticky"
	meta := kmsg.NewConsumerMemberMetadata()
	meta.Version = 1
	meta.Topics = []string{"order.placed"}
	proto.Metadata = meta.AppendTo(nil)
	join.Protocols = append(join.Protocols, proto)
	cl := c.client(t)
	resp, err := join.RequestWith(t.Context(), cl)
	require.NoError(t, err)
	if resp.MemberID != "" && resp.ErrorCode != 0 {
		join.MemberID = resp.MemberID
		resp, err = join.RequestWith(t.Context(), cl)
		require.NoError(t, err)
	}
	require.Zero(t, resp.ErrorCode)
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.Generation, sync.MemberID = group, resp.Generation, resp.MemberID
	if resp.LeaderID == resp.MemberID {
		a := kmsg.NewSyncGroupRequestGroupAssignment()
		a.MemberID = resp.MemberID
		asn := kmsg.NewConsumerMemberAssignment()
		a.MemberAssignment = asn.AppendTo(nil)
		sync.GroupAssignment = append(sync.GroupAssignment, a)
	}
	_, err = sync.RequestWith(t.Context(), cl)
	require.NoError(t, err)
}

// A Consumer that is stopped while its group waits for another member to come
// back (or to be given up) ends in bounded time, and leaves the group.
func TestBreak_StopWhileTheGroupRebalances(t *testing.T) {
	t.Parallel()
	t.Run("joining", func(t *testing.T) {
		t.Parallel()
		c := newFaulty(t, map[string]int32{"order.placed": 1})
		deadMember(t, c, "g", 20*time.Second)
		end, stop := background(t, &wherry.Consumer{Client: c.client(t), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(newRecorder().handle)}})
		time.Sleep(500 * time.Millisecond)
		begun := time.Now()
		stop()
		require.NoError(t, receive(t, end, "the end"))
		require.Less(t, time.Since(begun), patience/2, "1 s of drain and 5 s for the last commit have long passed")
	})
	t.Run("working", func(t *testing.T) {
		t.Parallel()
		c := newFaulty(t, map[string]int32{"order.placed": 1})
		c.fill(t, 1, 3)
		began, goOn := make(chan string, 10), make(chan struct{}, 10)
		end, stop := background(t, &wherry.Consumer{
			Client: c.client(t, kgo.ClientID("stopped")), Group: "g", Opts: []kgo.Opt{kgo.HeartbeatInterval(50 * time.Millisecond)},
			Handlers: []wherry.Route{orderPlaced.Handler(func(_ context.Context, o order) error { began <- o.ID; <-goOn; return nil })},
		})
		receive(t, began, "a record")
		// A second member comes, and dies before the group is balanced.
		go func() {
			join := kmsg.NewPtrJoinGroupRequest()
			join.Group, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis, join.ProtocolType = "g", 15000, 15000, "consumer"
			proto := kmsg.NewJoinGroupRequestProtocol()
			proto.Name = "cooperative-sticky"
			meta := kmsg.NewConsumerMemberMetadata()
			meta.Version, meta.Topics = 1, []string{"order.placed"}
			proto.Metadata = meta.AppendTo(nil)
			join.Protocols = append(join.Protocols, proto)
			cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DisableClientMetrics())
			if err != nil {
				return
			}
			defer cl.Close()
			if resp, err := join.RequestWith(context.Background(), cl); err == nil && resp.ErrorCode != 0 {
				join.MemberID = resp.MemberID
				_, _ = join.RequestWith(context.Background(), cl)
			}
		}()
		require.Eventually(t, func() bool { return len(c.GroupInfo("g").Members) == 2 }, patience, 10*time.Millisecond)
		time.Sleep(300 * time.Millisecond)
		// A third one makes all join again, and the second does not.
		end3, stop3 := background(t, &wherry.Consumer{Client: c.client(t), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(newRecorder().handle)}})
		require.Eventually(t, func() bool { return c.GroupInfo("g").State == "PreparingRebalance" }, patience, time.Millisecond)
		time.Sleep(300 * time.Millisecond)
		goOn <- struct{}{}
		receive(t, began, "the second record")
		goOn <- struct{}{}
		begun := time.Now()
		stop()
		goOn <- struct{}{}
		goOn <- struct{}{}
		require.NoError(t, receive(t, end, "the end"))
		took := time.Since(begun)
		for _, m := range c.GroupInfo("g").Members {
			require.NotEqual(t, "stopped", m.ClientID, "the group was not left")
		}
		require.Less(t, took, patience/2)
		stop3()
		require.NoError(t, receive(t, end3, "the end of the third"))
	})
}

// A handler that ends its goroutine (as t.FailNow does) has neither returned
// nil nor an error: its record must not hang for ever, unnoticed.
func TestBreak_AHandlerThatCallsGoexit(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 1})
	c.fill(t, 1, 2)
	end, _ := background(t, &wherry.Consumer{
		Client: c.client(t), Group: "g",
		Handlers: []wherry.Route{orderPlaced.Handler(func(context.Context, order) error { runtime.Goexit(); return nil })},
	})
	select {
	case err := <-end:
		var e *wherry.RecordError
		require.ErrorAs(t, err, &e)
		require.Zero(t, e.Offset)
	case <-time.After(3 * time.Second):
		require.FailNow(t, "the partition hangs, and the Consumer goes on as if nothing were")
	}
	require.LessOrEqual(t, c.committed("g", "order.placed", 0), int64(0))
}

// "If a handler still runs after twice Drain, Run returns an error that names
// its record."
func TestBreak_TheErrorOfAStuckHandlerNamesItsRecord(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 1})
	c.fill(t, 1, 4)
	began, goOn := make(chan string, 10), make(chan struct{})
	t.Cleanup(func() { close(goOn) })
	end, stop := background(t, &wherry.Consumer{
		Client: c.client(t), Group: "g", Drain: 50 * time.Millisecond,
		Handlers: []wherry.Route{orderPlaced.Handler(func(_ context.Context, o order) error {
			if o.ID == "0-2" {
				began <- o.ID
				<-goOn
			}
			return nil
		})},
	})
	receive(t, began, "the third record")
	stop()
	require.ErrorContains(t, receive(t, end, "the end"), "order.placed/0@2")
}

// A commit of the loop that is still on its way when the Consumer stops must
// not overtake the last one: what a clean end committed stays.
func TestBreak_TheLastCommitIsNotOvertaken(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 1})
	c.fill(t, 1, 3)
	backwards := c.watchCommits(t, "g")
	held, release := make(chan struct{}, 1), make(chan struct{})
	n := 0
	c.each(kmsg.OffsetCommit, func(req kmsg.Request) (kmsg.Response, error, bool) {
		if n++; n == 2 { // the first is where the group begins
			held <- struct{}{}
			c.SleepControl(func() { <-release })
		}
		return nil, nil, false
	})
	goOn := make(chan struct{}, 3)
	end, stop := background(t, &wherry.Consumer{
		Client: c.client(t), Group: "g",
		Handlers: []wherry.Route{orderPlaced.Handler(func(context.Context, order) error { <-goOn; return nil })},
	})
	goOn <- struct{}{}
	receive(t, held, "the loop's commit")
	goOn <- struct{}{}
	goOn <- struct{}{}
	time.Sleep(200 * time.Millisecond)
	time.AfterFunc(500*time.Millisecond, func() { close(release) })
	stop()
	require.NoError(t, receive(t, end, "the end"))
	time.Sleep(time.Second)
	require.Empty(t, backwards())
	require.EqualValues(t, 3, c.committed("g", "order.placed", 0), "a clean end commits all that is done")
}

// A stop at any moment of the start is a clean one, and leaves nobody behind
// in the group.
func TestBreak_StopAtAnyMomentOfTheStart(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 2})
	c.fill(t, 2, 20)
	for i := range 40 {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Duration(i)*500*time.Microsecond, cancel)
		if i == 0 {
			cancel()
		}
		consumer := &wherry.Consumer{Client: c.client(t), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(func(context.Context, order) error { return nil })}}
		ended := make(chan error, 1)
		go func() { ended <- consumer.Run(ctx) }()
		require.NoError(t, receive(t, ended, "the end"))
		require.Empty(t, consumer.Status())
		require.Eventually(t, func() bool { g := c.GroupInfo("g"); return g == nil || len(g.Members) == 0 }, 3*time.Second, 5*time.Millisecond, "a member was left behind")
		cancel()
	}
}
