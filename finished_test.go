package wherry_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/lane"
	"github.com/wherry-go/wherry/kafkatest"
)

// offset is what a group has committed of a partition: its offset and what it
// says has finished beyond it.
type offset struct {
	kadm.OffsetResponse
	runs []lane.Run
}

// is reports whether it is that: the low watermark, and what has finished.
func (o offset) is(low int64, runs ...lane.Run) bool {
	return o.At == low && slices.Equal(o.runs, runs)
}

func offsetOf(t *testing.T, k *kafkatest.Cluster, partition int32) (o offset) {
	t.Helper()
	cl := k.Client(t)
	defer cl.Close()
	return offsetBy(t, cl, partition)
}

func offsetBy(t *testing.T, cl *kgo.Client, partition int32) (o offset) {
	t.Helper()
	adm := kadm.NewClient(cl)
	all, err := adm.FetchOffsets(t.Context(), "g")
	require.NoError(t, err)
	o.OffsetResponse, _ = all.Lookup("order.placed", partition)
	topics, err := adm.ListTopics(kadm.WithAuthorizedOps(t.Context()), "order.placed")
	require.NoError(t, err)
	o.runs, _ = lane.Decode(o.Metadata, topics["order.placed"].ID, o.At)
	return o
}

// finish handles all but some records, and waits until that is committed.
func finishAllBut(t *testing.T, k *kafkatest.Cluster, h hands, n int, held ...string) map[string]*hand {
	t.Helper()
	kept := map[string]*hand{}
	for range n {
		x := h.next(t)
		if slices.Contains(held, x.id) {
			kept[x.id] = x
		} else {
			x.done()
		}
	}
	require.Len(t, kept, len(held))
	return kept
}

// Guarantee "finished set": what has finished beyond a record that waits is
// committed with the offset, and is not handled again, whatever ended the
// Consumer: a stop, or its process (here: its connections).
func TestFinishedSet_ASuccessorGoesOnWhereItEnded(t *testing.T) {
	t.Parallel()
	for _, crash := range []bool{false, true} {
		for name, balancer := range balancers() {
			if crash && name == "server" {
				continue // it takes the brokers' session timeout, 45 s
			}
			t.Run(fmt.Sprint(name, " crash ", crash), func(t *testing.T) {
				t.Parallel()
				k := kafkatest.NewCluster(t, "order.placed:1")
				place(t, k, 0, many("a", 0, 2)...)
				place(t, k, 0, many("b", 2, 40)...)
				place(t, k, 0, "c-40", "-41", "d-42")
				h := newHands()
				c := &wherry.Consumer{Client: k.Client(t, kgo.ClientID("first")), Group: "g", Order: wherry.ByKey, Handlers: h.route(), Drain: time.Millisecond, Opts: []kgo.Opt{
					balancer, kgo.SessionTimeout(shortSession(k)), kgo.HeartbeatInterval(200 * time.Millisecond),
				}}
				end, stop := background(t, c)
				finishAllBut(t, k, h, 42, "a-0", "c-40") // a-1 does not begin
				eventually(t, "the set is committed", func() bool { return offsetOf(t, k, 0).is(0, lane.Run{Begin: 2, End: 40}, lane.Run{Begin: 41, End: 43}) })
				if crash {
					k.Crash(t, kafkatest.Requests{Client: "first"})
				}
				stop()
				if err := receive(t, end, "the end"); !crash {
					require.NoError(t, err)
				}
				place(t, k, 0, "b-43")
				h = newHands()
				kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Order: wherry.ByKey, Handlers: h.route(), Drain: 10 * time.Millisecond, Opts: []kgo.Opt{balancer}})
				got := h.take(t, 3)
				require.Equal(t, []string{"a-0", "b-43", "c-40"}, idsOf(got))
				for _, x := range got {
					x.done()
				}
				x := h.next(t)
				require.Equal(t, "a-1", x.id)
				h.none(t)
				x.done()
				eventually(t, "all is committed", func() bool { o := offsetOf(t, k, 0); return o.At == 44 && o.Metadata == "" })
			})
		}
	}
}

// The same where the process is killed.
func TestFinishedSet_AfterKill9(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	place(t, k, 0, slices.Concat([]string{"a-0"}, many("b", 1, 100), []string{"a-100"})...)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFinishedSet_Child$", "-test.v")
	cmd.Env = append(os.Environ(), "WHERRY_TEST_CHILD="+strings.Join(k.Brokers(), ","), "WHERRY_TEST_SESSION="+shortSession(k).String())
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "waits") {
	}
	eventually(t, "the set is committed", func() bool { return slices.Equal(offsetOf(t, k, 0).runs, []lane.Run{{Begin: 1, End: 100}}) })
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	h := newHands()
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Order: wherry.ByKey, Handlers: h.route(), Drain: 10 * time.Millisecond})
	for _, id := range []string{"a-0", "a-100"} {
		x := h.next(t)
		require.Equal(t, id, x.id)
		x.done()
	}
	eventually(t, "all is committed", func() bool { return offsetOf(t, k, 0).At == 101 })
	require.Empty(t, h.ch)
}

// shortSession is a session timeout that the brokers take.
func shortSession(k *kafkatest.Cluster) time.Duration {
	if k.Embedded() {
		return time.Second
	}
	return 6 * time.Second
}

// TestFinishedSet_Child is the process that is killed.
func TestFinishedSet_Child(t *testing.T) {
	brokers := os.Getenv("WHERRY_TEST_CHILD")
	if brokers == "" {
		t.Skip("it is part of another test")
	}
	session, err := time.ParseDuration(os.Getenv("WHERRY_TEST_SESSION"))
	require.NoError(t, err)
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...), kgo.DisableClientMetrics())
	require.NoError(t, err)
	c := &wherry.Consumer{Client: cl, Group: "g", Order: wherry.ByKey, Opts: []kgo.Opt{kgo.SessionTimeout(session), kgo.HeartbeatInterval(200 * time.Millisecond)}, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
		if o.ID != "a-0" {
			return nil
		}
		fmt.Println("waits")
		return wherry.Wait(ctx, time.Now().Add(time.Minute))
	})}}
	require.NoError(t, c.Run(t.Context()))
}

// A set of another topic or offset, and what other tools write there, says
// nothing.
func TestFinishedSet_ThatIsNotOursIsIgnored(t *testing.T) {
	t.Parallel()
	other := [16]byte{9}
	for name, metadata := range map[string]func(id [16]byte) string{
		"another tool": func([16]byte) string { return "reset by ops" },
		"another topic": func([16]byte) string {
			s, _ := lane.Encode(other, 1, []lane.Run{{Begin: 2, End: 4}}, lane.MaxText)
			return s
		},
		"another base": func(id [16]byte) string {
			s, _ := lane.Encode(id, 0, []lane.Run{{Begin: 2, End: 4}}, lane.MaxText)
			return s
		},
		"garbled": func(id [16]byte) string {
			s, _ := lane.Encode(id, 1, []lane.Run{{Begin: 2, End: 4}}, lane.MaxText)
			return s[:len(s)-4] + "AAAA"
		},
		"bytes": func(id [16]byte) string { return string(id[:]) + "\x00\xff" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "order.placed:1")
			place(t, k, 0, many("a", 0, 4)...)
			adm := kadm.NewClient(k.Client(t))
			topics, err := adm.ListTopics(t.Context(), "order.placed")
			require.NoError(t, err)
			var o kadm.Offsets
			o.Add(kadm.Offset{Topic: "order.placed", At: 1, LeaderEpoch: -1, Metadata: metadata(topics["order.placed"].ID)})
			require.NoError(t, adm.CommitAllOffsets(t.Context(), "g", o))
			h := newHands()
			kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Order: wherry.Unordered, Handlers: h.route(), Drain: 10 * time.Millisecond})
			require.Equal(t, []string{"a-1", "a-2", "a-3"}, idsOf(h.take(t, 3)))
		})
	}
}

// The topic was deleted and made anew, and its group is still there: what had
// finished of the old one says nothing of the new one.
func TestFinishedSet_OfATopicThatWasMadeAnewIsIgnored(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	place(t, k, 0, "a-0", "b-1", "b-2")
	h := newHands()
	c := &wherry.Consumer{Client: k.Client(t), Group: "g", Order: wherry.ByKey, Handlers: h.route(), Drain: time.Millisecond}
	_, stop := background(t, c)
	finishAllBut(t, k, h, 3, "a-0")
	eventually(t, "the set is committed", func() bool { return len(offsetOf(t, k, 0).runs) == 1 })
	o := offsetOf(t, k, 0)
	stop()
	adm := kadm.NewClient(k.Client(t))
	eventually(t, "the group is empty", func() bool {
		groups, err := adm.DescribeGroups(t.Context(), "g")
		return err == nil && len(groups["g"].Members) == 0
	})
	_, err := adm.DeleteTopics(t.Context(), "order.placed")
	require.NoError(t, err)
	eventually(t, "the topic is gone", func() bool {
		topics, err := adm.ListTopics(kadm.WithAuthorizedOps(t.Context()), "order.placed")
		return err == nil && topics["order.placed"].Err != nil
	})
	k.Create(t, kafkatest.Topic{Name: "order.placed", Partitions: 1})
	place(t, k, 0, "a-0", "b-1", "b-2")
	var old kadm.Offsets // brokers may drop the offsets of a topic with it, or not
	old.Add(kadm.Offset{Topic: "order.placed", At: o.At, LeaderEpoch: -1, Metadata: o.Metadata})
	require.NoError(t, kadm.NewClient(k.Client(t)).CommitAllOffsets(t.Context(), "g", old))
	h = newHands()
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Order: wherry.Unordered, Handlers: h.route(), Drain: 10 * time.Millisecond})
	require.Equal(t, []string{"a-0", "b-1", "b-2"}, idsOf(h.take(t, 3)))
}

// Metadata is never longer than 3,000 characters of base64url, and comes back
// as it was; where it would be, the oldest record alone begins.
func TestFinishedSet_NeverOutgrowsTheMetadataOfAnOffset(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	// Every other key waits, far apart, and the rest is done.
	const records = 40_000
	cl := k.Client(t)
	for i := range records {
		r, err := orderPlaced.Record(strconv.Itoa(i), order{ID: strconv.Itoa(i), Total: i})
		require.NoError(t, err)
		cl.Produce(t.Context(), r, nil)
	}
	require.NoError(t, cl.Flush(t.Context()))
	release := make(chan struct{})
	seen := newRecorder()
	c := &wherry.Consumer{Client: k.Client(t), Group: "g", Order: wherry.ByKey, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
		_ = seen.handle(ctx, o)
		if o.Total%17 < 2 {
			return wherry.Await(ctx, release)
		}
		return nil
	})}}
	stop := kafkatest.Run(t, c)
	longest := 0
	eventually(t, "the set is as long as it may be", func() bool {
		o := offsetOf(t, k, 0)
		longest = max(longest, len(o.Metadata))
		return len(o.Metadata) > lane.MaxText-50
	})
	o := offsetOf(t, k, 0)
	_, err := base64.RawURLEncoding.DecodeString(o.Metadata)
	require.NoError(t, err)
	require.NotEmpty(t, o.runs)
	close(release)
	eventually(t, "all is committed", func() bool {
		o := offsetOf(t, k, 0)
		longest = max(longest, len(o.Metadata))
		return o.At == records
	})
	require.LessOrEqual(t, longest, lane.MaxText)
	require.NoError(t, stop())
	all := seen.all()
	slices.Sort(all)
	require.Len(t, slices.Compact(all), records, "some were handled twice, or not at all")
	require.Len(t, seen.all(), records)
}

// Brokers that are set to take less metadata get less.
func TestFinishedSet_OfBrokersThatTakeLess(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{400, 0} {
		t.Run(strconv.Itoa(limit), func(t *testing.T) {
			t.Parallel()
			c := newFaulty(t, map[string]int32{"order.placed": 1})
			c.fill(t, 1, 2000)
			c.each(kmsg.OffsetCommit, func(req kmsg.Request) (kmsg.Response, error, bool) {
				r := req.(*kmsg.OffsetCommitRequest)
				resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
				tooLarge := false
				for _, topic := range r.Topics {
					rt := kmsg.NewOffsetCommitResponseTopic()
					rt.Topic, rt.TopicID = topic.Topic, topic.TopicID
					for _, p := range topic.Partitions {
						rp := kmsg.NewOffsetCommitResponseTopicPartition()
						rp.Partition = p.Partition
						if p.Metadata != nil && len(*p.Metadata) > limit {
							rp.ErrorCode, tooLarge = kerr.OffsetMetadataTooLarge.Code, true
						}
						rt.Partitions = append(rt.Partitions, rp)
					}
					resp.Topics = append(resp.Topics, rt)
				}
				return resp, nil, tooLarge
			})
			release := make(chan struct{})
			end, stop := background(t, &wherry.Consumer{Client: c.client(t), Group: "g", Order: wherry.Unordered, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
				if strings.HasSuffix(o.ID, "0") && o.ID != "0-0" {
					return wherry.Await(ctx, release)
				}
				return nil
			})}})
			eventually(t, "it commits in spite of it", func() bool { return c.committed("g", "order.placed", 0) == 10 })
			close(release)
			eventually(t, "all is committed", func() bool { return c.committed("g", "order.placed", 0) == 2000 })
			stop()
			require.NoError(t, receive(t, end, "the end"))
		})
	}
}

// Offsets without a record (aborted and compacted ones, transactions' marks)
// are no holes to stumble over.
func TestFinishedSet_AcrossGapsInTheLog(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	producer := k.Client(t, kgo.TransactionalID("tx"))
	var want []string
	for i := range 12 {
		id := fmt.Sprintf("%c-%d", 'a'+i%3, i)
		r, err := orderPlaced.Record(id[:1], order{ID: id})
		require.NoError(t, err)
		require.NoError(t, producer.BeginTransaction())
		require.NoError(t, producer.ProduceSync(t.Context(), r).FirstErr())
		commit := i%4 != 3
		if commit {
			want = append(want, id)
		}
		require.NoError(t, producer.EndTransaction(t.Context(), kgo.TransactionEndTry(commit)))
	}
	h := newHands()
	c := &wherry.Consumer{Client: k.Client(t), Group: "g", Order: wherry.Unordered, Handlers: h.route(), Drain: time.Millisecond}
	end, stop := background(t, c)
	got := h.take(t, len(want))
	for id, x := range got {
		if id != "b-4" && id != "c-5" {
			x.done()
		}
	}
	eventually(t, "the set is committed", func() bool { return offsetOf(t, k, 0).is(8, lane.Run{Begin: 9, End: 10}, lane.Run{Begin: 11, End: 24}) })
	stop()
	require.NoError(t, receive(t, end, "the end"))
	h = newHands()
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Order: wherry.Unordered, Handlers: h.route(), Drain: 10 * time.Millisecond})
	got = h.take(t, 2)
	require.Equal(t, []string{"b-4", "c-5"}, idsOf(got))
	got["b-4"].done()
	got["c-5"].done()
	eventually(t, "all is committed", func() bool { return offsetOf(t, k, 0).At == 24 })
	require.Empty(t, h.ch)
}

// A member that was thrown out of its group and is back goes by what the group
// has committed, and that has a finished set, too.
func TestFinishedSet_OfAMemberThatWasThrownOut(t *testing.T) {
	t.Parallel()
	for name, balancer := range map[string]kgo.GroupBalancer{"cooperative": kgo.CooperativeStickyBalancer(), "eager": kgo.RangeBalancer()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newFaulty(t, map[string]int32{"order.placed": 1})
			c.fill(t, 1, 20)
			backwards := c.watchCommits(t, "g")
			h := newHands()
			background(t, &wherry.Consumer{Client: c.client(t), Group: "g", Order: wherry.Unordered, Handlers: h.route(), Drain: 10 * time.Millisecond, Opts: []kgo.Opt{
				kgo.Balancers(balancer), kgo.HeartbeatInterval(100 * time.Millisecond),
			}})
			for range 20 {
				if x := h.next(t); x.id == "0-3" || x.id == "0-5" {
					x.waits(time.Minute)
				} else {
					x.done()
				}
			}
			cl := c.client(t)
			eventually(t, "the set is committed", func() bool {
				return offsetBy(t, cl, 0).is(3, lane.Run{Begin: 4, End: 5}, lane.Run{Begin: 6, End: 20})
			})
			throwOut(t, c, "g")
			got := h.take(t, 2)
			require.Equal(t, []string{"0-3", "0-5"}, idsOf(got))
			got["0-3"].done()
			got["0-5"].done()
			eventually(t, "all is committed", func() bool { return c.committed("g", "order.placed", 0) == 20 })
			require.Empty(t, h.ch)
			require.Empty(t, backwards())
		})
	}
}

// The log no longer holds the offset: where OnReset goes on, the set of the
// old offset says nothing.
func TestFinishedSet_IsDroppedByAReset(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	place(t, k, 0, many("a", 0, 10)...)
	h := newHands()
	end, stop := background(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Order: wherry.Unordered, Handlers: h.route(), Drain: time.Millisecond})
	finishAllBut(t, k, h, 10, "a-1", "a-4")
	eventually(t, "the set is committed", func() bool { return len(offsetOf(t, k, 0).runs) == 2 })
	stop()
	require.NoError(t, receive(t, end, "the end"))
	var to kadm.Offsets
	to.Add(kadm.Offset{Topic: "order.placed", At: 3})
	_, err := kadm.NewClient(k.Client(t)).DeleteRecords(t.Context(), to)
	require.NoError(t, err)
	h = newHands()
	end, _ = background(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Order: wherry.Unordered, Handlers: h.route(), Drain: 10 * time.Millisecond})
	var e *wherry.OffsetRangeError
	require.ErrorAs(t, receive(t, end, "the end"), &e)
	require.EqualValues(t, 1, e.Offset)
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Order: wherry.Unordered, Handlers: h.route(), Drain: 10 * time.Millisecond, OnReset: func(e *wherry.OffsetRangeError) (int64, error) { return e.Start, nil }})
	require.Len(t, h.take(t, 7), 7)
}

// Follow: ready before the first record, in sync at each assignment; its error,
// its panic and its early end are the Consumer's.
func TestFollow(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		run  func(ctx context.Context, ready func()) error
		want string
	}{
		"an error":         {func(_ context.Context, ready func()) error { ready(); return errors.New("oh") }, "oh"},
		"an early error":   {func(context.Context, func()) error { return errors.New("oh") }, "oh"},
		"a panic":          {func(context.Context, func()) error { panic("oh") }, "oh"},
		"never ready":      {func(context.Context, func()) error { return nil }, "ended before it was ready"},
		"all in due order": {func(ctx context.Context, ready func()) error { ready(); <-ctx.Done(); return ctx.Err() }, ""},
		"done when ready":  {func(_ context.Context, ready func()) error { ready(); return nil }, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "order.placed:1")
			place(t, k, 0, "a-0")
			f := &follower{run: test.run, ready: make(chan struct{})}
			type key struct{}
			seen := make(chan bool, 1)
			end, stop := background(t, &wherry.Consumer{
				Client: k.Client(t), Group: "g", Policies: []wherry.Policy{preparer{func(s *wherry.Setup) { s.Follow(f); s.WithValue(key{}, 7) }}},
				Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error { seen <- f.synced.Load() && ctx.Value(key{}) == 7; return nil })},
			})
			if test.want != "" {
				require.ErrorContains(t, receive(t, end, "the end"), test.want)
				return
			}
			require.True(t, receive(t, seen, "the record"), "handled before it was in sync, or without the value")
			stop()
			require.NoError(t, receive(t, end, "the end"))
		})
	}
}

// A Sync that panics is an error that is tried again, as any.
func TestFollow_SyncThatPanics(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	place(t, k, 0, "a-0")
	f := &follower{ready: make(chan struct{}), run: func(ctx context.Context, ready func()) error { ready(); <-ctx.Done(); return nil }}
	f.panics.Store(2)
	seen := newRecorder()
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "g", Policies: []wherry.Policy{preparer{func(s *wherry.Setup) { s.Follow(f) }}},
		Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)},
	})
	receive(t, seen.ch, "the record")
	require.Negative(t, f.panics.Load())
}

type follower struct {
	run    func(ctx context.Context, ready func()) error
	ready  chan struct{}
	synced atomic.Bool
	panics atomic.Int32
}

func (f *follower) Run(ctx context.Context) error {
	return f.run(ctx, func() { close(f.ready) })
}

func (f *follower) Ready() <-chan struct{} { return f.ready }

func (f *follower) Sync(context.Context) error {
	if f.panics.Add(-1) >= 0 {
		panic("not yet")
	}
	<-f.ready
	f.synced.Store(true)
	return nil
}

type preparer struct{ prepare func(*wherry.Setup) }

func (p preparer) Prepare(s *wherry.Setup) error { p.prepare(s); return nil }

func (preparer) Wrap(next wherry.Handler) wherry.Handler { return next }
