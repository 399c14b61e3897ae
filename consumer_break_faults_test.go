package wherry_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
)

// A commit that falls into a rebalance is made up for afterwards, also when
// nothing else happens.
func TestBreak_ACommitThatFellIntoARebalanceIsMadeUpFor(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 1})
	consumer := &wherry.Consumer{Client: c.client(t), Group: "g", Opts: []kgo.Opt{kgo.HeartbeatInterval(50 * time.Millisecond)}, Handlers: []wherry.Route{orderPlaced.Handler(newRecorder().handle)}}
	background(t, consumer)
	receive(t, consumer.Ready(), "ready")
	hit := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.RebalanceInProgress})
	c.fill(t, 1, 1)
	require.Eventually(t, func() bool { return hit.Hits() == 1 }, patience, time.Millisecond)
	require.Eventually(t, func() bool { return c.committed("g", "order.placed", 0) == 1 }, 3*time.Second, 10*time.Millisecond)
	require.Eventually(t, func() bool { return consumer.Status().Partitions[0].Lag == 0 }, patience, time.Millisecond)
}

// A broker may answer once that an offset is out of range which is not (a new
// leader that has not caught up yet): the partition is read all the same.
func TestBreak_AnOffsetThatIsOutOfRangeForAMoment(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]int{"at first": 0, "later": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newFaulty(t, map[string]int32{"order.placed": 1})
			seen := newRecorder()
			if before == 0 {
				c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "order.placed", Err: kerr.OffsetOutOfRange})
			}
			end, _ := background(t, &wherry.Consumer{Client: c.client(t), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)}})
			for range before {
				c.fill(t, 1, 1)
				receive(t, seen.ch, "the first record")
				c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "order.placed", Err: kerr.OffsetOutOfRange})
			}
			time.Sleep(500 * time.Millisecond)
			c.fill(t, 1, 1)
			select {
			case <-seen.ch:
			case err := <-end:
				require.FailNow(t, "the Consumer stopped", err)
			case <-time.After(5 * time.Second):
				require.FailNow(t, "the partition is not read any more")
			}
		})
	}
}

// "Run consumes until ctx is done or a record cannot be handled": one answer of
// a broker that something unexpected went wrong is neither.
func TestBreak_OneUnexpectedErrorOfABrokerDoesNotStop(t *testing.T) {
	t.Parallel()
	for _, key := range []kmsg.Key{kmsg.Fetch, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat, kmsg.OffsetFetch, kmsg.OffsetCommit, kmsg.ListOffsets} {
		t.Run(key.Name(), func(t *testing.T) {
			t.Parallel()
			c := newFaulty(t, map[string]int32{"order.placed": 1})
			c.fill(t, 1, 3)
			f := kfake.Fault{Keys: []kmsg.Key{key}, Err: kerr.UnknownServerError}
			if key == kmsg.JoinGroup || key == kmsg.SyncGroup || key == kmsg.Heartbeat {
				f.TopLevel = true
			}
			hit := c.Fault(f)
			seen := newRecorder()
			end, _ := background(t, &wherry.Consumer{Client: c.client(t), Group: "g", Opts: []kgo.Opt{kgo.HeartbeatInterval(50 * time.Millisecond)}, Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)}})
			require.Eventually(t, func() bool { return hit.Hits() == 1 }, patience, time.Millisecond)
			for c.committed("g", "order.placed", 0) != 3 {
				select {
				case err := <-end:
					require.FailNow(t, "the Consumer stopped", err)
				case <-time.After(5 * time.Millisecond):
				}
			}
			select {
			case err := <-end:
				require.FailNow(t, "the Consumer stopped", err)
			case <-time.After(300 * time.Millisecond):
			}
		})
	}
}

// Guarantee "alive": a partition that cannot be read for now (it has no leader)
// does not keep the others from being read.
func TestBreak_APartitionWithoutALeaderHoldsUpItselfAlone(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 2})
	c.fill(t, 2, 3)
	f := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets, kmsg.Fetch}, Topic: "order.placed", Partitions: []int32{1}, Err: kerr.LeaderNotAvailable, Count: -1})
	seen := newRecorder()
	background(t, &wherry.Consumer{Client: c.client(t, kgo.RetryTimeout(200*time.Millisecond)), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)}})
	require.Eventually(t, func() bool { return len(seen.all()) >= 3 }, patience, 10*time.Millisecond, "partition 0 is not read")
	f.Remove()
	require.Eventually(t, func() bool { return len(unique(seen.all())) == 6 }, patience, 10*time.Millisecond)
}

// A topic that is deleted and made anew under the Consumer: it goes on, or it
// stops with an error that says so. It does not stall.
func TestBreak_ATopicThatIsMadeAnew(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 1})
	c.fill(t, 1, 3)
	seen := newRecorder()
	end, _ := background(t, &wherry.Consumer{Client: c.client(t, kgo.MetadataMaxAge(200*time.Millisecond)), Group: "g", Opts: []kgo.Opt{kgo.HeartbeatInterval(50 * time.Millisecond)}, Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)}})
	for range 3 {
		receive(t, seen.ch, "the old topic's records")
	}
	require.NoError(t, c.DeleteTopic("order.placed"))
	time.Sleep(300 * time.Millisecond)
	require.NoError(t, c.CreateTopic("order.placed", 1, nil))
	c.fill(t, 1, 1)
	select {
	case <-seen.ch:
	case err := <-end:
		require.Error(t, err)
	case <-time.After(10 * time.Second):
		require.FailNow(t, "the Consumer stalls: the new topic's record is not handled, and Run goes on")
	}
}

// A topic whose offsets cannot be committed (it was deleted) does not keep
// those of the others from counting.
func TestBreak_OneTopicWhoseOffsetsAreRefused(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 1, "payment.made": 1})
	var commits int
	var mu sync.Mutex
	c.each(kmsg.OffsetCommit, func(kmsg.Request) (kmsg.Response, error, bool) {
		mu.Lock()
		commits++
		mu.Unlock()
		return nil, nil, false
	})
	consumer := &wherry.Consumer{Client: c.client(t), Group: "g", Handlers: []wherry.Route{
		orderPlaced.Handler(newRecorder().handle),
		paymentMade.Handler(func(context.Context, payment) error { return nil }),
	}}
	background(t, consumer)
	receive(t, consumer.Ready(), "ready")
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Topic: "payment.made", Err: kerr.UnknownTopicOrPartition, Count: -1})
	require.NoError(t, c.client(t).ProduceSync(t.Context(), &kgo.Record{Topic: "payment.made", Value: []byte(`{}`)}).FirstErr())
	c.fill(t, 1, 3)
	require.Eventually(t, func() bool { return c.committed("g", "order.placed", 0) == 3 }, patience, 5*time.Millisecond)
	mu.Lock()
	before := commits
	mu.Unlock()
	time.Sleep(2 * time.Second)
	mu.Lock()
	defer mu.Unlock()
	require.EqualValues(t, 3, consumer.Status().Partitions[0].Committed, "Status does not know what is committed")
	require.Less(t, commits-before, 10, "commits are tried again without a growing pause")
}

// For every n, the n-th request of each kind fails in each way. Nothing is
// lost, no commit ever covers a record that is not done, and none goes back.
func TestBreak_TheNthRequestFails(t *testing.T) {
	t.Parallel()
	type way struct {
		name string
		do   func(c faulty, key kmsg.Key, n int)
	}
	ways := []way{
		{"hung up on", func(c faulty, key kmsg.Key, n int) {
			at := 0
			c.each(key, func(kmsg.Request) (kmsg.Response, error, bool) {
				if at++; at == n {
					return nil, errors.New("hang up"), true
				}
				return nil, nil, false
			})
		}},
		{"late", func(c faulty, key kmsg.Key, n int) {
			at := 0
			c.each(key, func(kmsg.Request) (kmsg.Response, error, bool) {
				if at++; at == n {
					c.SleepControl(func() { time.Sleep(400 * time.Millisecond) })
				}
				return nil, nil, false
			})
		}},
		{"refused", func(c faulty, key kmsg.Key, n int) {
			err := kerr.NotCoordinator
			switch key { //nolint:exhaustive // the requests of a Consumer
			case kmsg.Produce, kmsg.Fetch, kmsg.ListOffsets, kmsg.Metadata:
				err = kerr.NotLeaderForPartition
			}
			at := 0
			c.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: err, Count: 1, When: func(kmsg.Request) bool { at++; return at == n }},
				kfake.Fault{Keys: []kmsg.Key{key}, Err: err, Count: 1, TopLevel: true, When: func(kmsg.Request) bool { return at == n }})
		}},
		{"forgotten", func(c faulty, key kmsg.Key, n int) { // the group forgets its members
			at := 0
			c.each(key, func(kmsg.Request) (kmsg.Response, error, bool) {
				if at++; at == n {
					go func() {
						if info := c.GroupInfo("g"); info != nil {
							for _, m := range info.Members {
								c.forget("g", m.MemberID)
							}
						}
					}()
				}
				return nil, nil, false
			})
		}},
		{"timed out", func(c faulty, key kmsg.Key, n int) { // done, but the answer says otherwise
			at := 0
			c.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: kerr.RequestTimedOut, Count: 1, When: func(kmsg.Request) bool { at++; return at == n }})
		}},
	}
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.Fetch, kmsg.ListOffsets, kmsg.Metadata, kmsg.OffsetCommit, kmsg.OffsetFetch, kmsg.FindCoordinator, kmsg.JoinGroup, kmsg.Heartbeat, kmsg.SyncGroup, kmsg.LeaveGroup, kmsg.InitProducerID} {
		for _, way := range ways {
			if key == kmsg.LeaveGroup && way.name == "timed out" {
				continue // the member stays until its session ends, and its successors wait as long
			}
			for n := 1; n <= 3; n++ {
				t.Run(fmt.Sprintf("%s %d %s", key.Name(), n, way.name), func(t *testing.T) {
					t.Parallel()
					nthFails(t, func(c faulty) { way.do(c, key, n) })
				})
			}
		}
	}
}

func nthFails(t *testing.T, fault func(faulty)) {
	const n = 8
	c := newFaulty(t, map[string]int32{"order.placed": 2, "payment.made": 1})
	c.fill(t, 2, n)
	backwards := c.watchCommits(t, "g")
	var (
		mu       sync.Mutex
		produced = map[string]bool{}
		early    []string
	)
	fault(c)
	// What the broker has of outputs when it is asked to commit.
	c.each(kmsg.OffsetCommit, func(req kmsg.Request) (kmsg.Response, error, bool) {
		mu.Lock()
		defer mu.Unlock()
		for _, topic := range req.(*kmsg.OffsetCommitRequest).Topics {
			for _, p := range topic.Partitions {
				for i := range p.Offset {
					if id := fmt.Sprintf("%d-%d", p.Partition, i); !produced[id] {
						early = append(early, id)
					}
				}
			}
		}
		return nil, nil, false
	})
	c.each(kmsg.Produce, func(req kmsg.Request) (kmsg.Response, error, bool) {
		mu.Lock()
		defer mu.Unlock()
		for _, topic := range req.(*kmsg.ProduceRequest).Topics {
			for _, p := range topic.Partitions {
				var b kmsg.RecordBatch
				if b.ReadFrom(p.Records) != nil {
					continue
				}
				rs, _ := kfake.BatchRecords(b)
				for _, r := range rs {
					if r.Key != nil {
						produced[string(r.Key)] = true
					}
				}
			}
		}
		return nil, nil, false
	})
	consumer := func() *wherry.Consumer {
		return &wherry.Consumer{
			// A member whose leaving failed is in the group until its session ends.
			Client: c.client(t), Group: "g", Opts: []kgo.Opt{kgo.HeartbeatInterval(50 * time.Millisecond), kgo.SessionTimeout(3 * time.Second)},
			Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
				time.Sleep(10 * time.Millisecond)
				return paymentMade.Publish(ctx, o.ID, payment{OrderID: o.ID})
			})},
		}
	}
	done := func() bool {
		return c.committed("g", "order.placed", 0) == n && c.committed("g", "order.placed", 1) == n
	}
	for i := range 3 {
		end, stop := background(t, consumer())
		for begun := time.Now(); !done() && (i > 0 || c.committed("g", "order.placed", 0) <= 2); { // the first is stopped in the middle
			select {
			case err := <-end:
				require.FailNow(t, "the Consumer stopped", err)
			case <-time.After(5 * time.Millisecond):
			}
			require.Less(t, time.Since(begun), patience, "it hangs: %v", c.GroupInfo("g"))
		}
		stop()
		require.NoError(t, receive(t, end, "the end"))
	}
	mu.Lock()
	defer mu.Unlock()
	require.Empty(t, early, "committed before their outputs were there")
	require.Empty(t, backwards())
	got := c.outcomes(t)
	require.Len(t, got, 2*n, "%v", slices.Sorted(maps.Keys(got)))
}

// A partition whose committed offset a broker could not tell at once is read
// all the same, when it can.
func TestBreak_APartitionWhoseOffsetCouldNotBeTold(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 2})
	c.fill(t, 2, 3)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Topic: "order.placed", Partitions: []int32{1}, Err: kerr.RequestTimedOut})
	seen := newRecorder()
	consumer := &wherry.Consumer{Client: c.client(t), Group: "g", Opts: []kgo.Opt{kgo.HeartbeatInterval(50 * time.Millisecond)}, Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)}}
	end, _ := background(t, consumer)
	for begun := time.Now(); len(unique(seen.all())) < 6; {
		select {
		case err := <-end:
			require.FailNow(t, "the Consumer stopped", err)
		case <-time.After(5 * time.Millisecond):
		}
		require.Less(t, time.Since(begun), patience, "it is assigned and never read: %+v", consumer.Status())
	}
}
