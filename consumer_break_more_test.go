package wherry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// Guarantee "bounded": when outputs are not acknowledged, what waits to be sent
// does not grow with the number of records that could be handled meanwhile.
func TestBreak_OutputsThatWaitAreBounded(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 1, "payment.made": 1})
	const n = 4000
	c.fill(t, 1, n)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "payment.made", Err: kerr.NotLeaderForPartition, Count: -1})
	value := bytes.Repeat([]byte("v"), 500_000) // shared, so that the test itself is small
	var handled atomic.Int64
	background(t, &wherry.Consumer{Client: c.client(t), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error {
		handled.Add(1)
		return wherry.Publish(ctx, &kgo.Record{Topic: "payment.made", Value: value}, &kgo.Record{Topic: "payment.made", Value: value})
	})}})
	require.Eventually(t, func() bool { return handled.Load() > 0 }, patience, time.Millisecond)
	time.Sleep(2 * time.Second)
	require.Less(t, handled.Load()*2*int64(len(value)), int64(1<<30), "bytes of outputs that wait, of one partition")
}

// A commit that is refused for good stops the Consumer with an error that names
// the partition.
func TestBreak_ARefusedCommitNamesItsPartition(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]int{"the first": 0, "a later one": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newFaulty(t, map[string]int32{"order.placed": 1})
			seen := 0
			c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.TopicAuthorizationFailed, Count: -1, When: func(kmsg.Request) bool { seen++; return seen > after }})
			consumer := &wherry.Consumer{Client: c.client(t), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(newRecorder().handle)}}
			end, _ := background(t, consumer)
			c.fill(t, 1, 1)
			err := receive(t, end, "the Consumer to stop")
			require.ErrorIs(t, err, kerr.TopicAuthorizationFailed)
			require.ErrorContains(t, err, "order.placed/0")
		})
	}
}

// Members of every protocol come and go in good order: each record is handled
// once.
func TestBreak_AChangeOfHandsRepeatsNothing(t *testing.T) {
	t.Parallel()
	for name, balancer := range map[string]kgo.GroupOpt{
		"cooperative": kgo.Balancers(kgo.CooperativeStickyBalancer()), "eager": kgo.Balancers(kgo.RangeBalancer()), "server": kgo.ServerSideBalancer(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "order.placed:5", "payment.made:1")
			const n = 3000
			cl := k.Client(t)
			var feeding sync.WaitGroup
			feeding.Go(func() {
				for i := range n {
					r, _ := orderPlaced.Record(ids(i%97), order{ID: ids(i), Total: i})
					if err := cl.ProduceSync(context.Background(), r).FirstErr(); err != nil {
						t.Error(err)
						return
					}
				}
			})
			t.Cleanup(feeding.Wait)
			seen := newRecorder()
			member := func() *wherry.Consumer {
				return &wherry.Consumer{
					Client: k.Client(t), Group: "g-" + name, MaxHeld: 50,
					Opts: []kgo.Opt{balancer, kgo.HeartbeatInterval(100 * time.Millisecond)},
					Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
						_ = seen.handle(ctx, o)
						return paymentMade.Publish(ctx, o.ID, payment{OrderID: o.ID})
					})},
				}
			}
			stops := []func() error{kafkatest.Run(t, member())}
			for i := range 16 {
				time.Sleep(50 * time.Millisecond)
				if i%4 < 2 {
					stops = append(stops, kafkatest.Run(t, member()))
				} else if len(stops) > 1 {
					require.NoError(t, stops[0]())
					stops = stops[1:]
				}
			}
			require.Eventually(t, func() bool { return len(unique(seen.all())) == n }, 2*patience, 10*time.Millisecond)
			for _, stop := range stops {
				require.NoError(t, stop())
			}
			for id, times := range unique(seen.all()) {
				require.Equal(t, 1, times, id)
			}
			require.EqualValues(t, n, sum(committed(t, k, "g-"+name, "order.placed")))
		})
	}
}

// A static member comes back within its session: no rebalance, nothing lost,
// nothing twice.
func TestBreak_AStaticMemberComesBack(t *testing.T) {
	t.Parallel()
	for name, balancer := range map[string]kgo.GroupOpt{
		"cooperative": kgo.Balancers(kgo.CooperativeStickyBalancer()), "eager": kgo.Balancers(kgo.RangeBalancer()), "server": kgo.ServerSideBalancer(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newFaulty(t, map[string]int32{"order.placed": 2})
			c.SetGroupConfigs("g", map[string]string{"consumer.heartbeat.interval.ms": "50"})
			seen := newRecorder()
			member := func(id string) *wherry.Consumer {
				return &wherry.Consumer{
					Client: c.client(t), Group: "g", Opts: []kgo.Opt{balancer, kgo.InstanceID(id), kgo.HeartbeatInterval(50 * time.Millisecond)},
					Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)},
				}
			}
			other := member("other")
			background(t, other)
			receive(t, other.Ready(), "ready")
			for i := range 4 {
				one := member("one")
				end, stop := background(t, one)
				receive(t, one.Ready(), "ready")
				require.Eventually(t, func() bool { return len(one.Status().Partitions) == 1 && len(other.Status().Partitions) == 1 }, patience, time.Millisecond)
				cl := c.client(t)
				for j := range 20 {
					id := fmt.Sprint(i, "-", j)
					r, err := orderPlaced.Record(id, order{ID: id})
					require.NoError(t, err)
					require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())
				}
				require.Eventually(t, func() bool { return len(seen.all()) == 20*(i+1) }, patience, time.Millisecond)
				stop()
				require.NoError(t, receive(t, end, "the end"))
			}
			require.Len(t, unique(seen.all()), 80)
		})
	}
}

// Records of transactions: only what is committed is handled, and the offset
// passes what is not.
func TestBreak_OnlyWhatIsCommittedIsHandled(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 1})
	txn := c.client(t, kgo.TransactionalID("txn"), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	for i := range 20 {
		require.NoError(t, txn.BeginTransaction())
		for j := range 5 {
			id := fmt.Sprintf("committed-%d-%d", i, j)
			if i%2 == 1 {
				id = "aborted"
			}
			r, err := orderPlaced.Record("", order{ID: id})
			require.NoError(t, err)
			require.NoError(t, txn.ProduceSync(t.Context(), r).FirstErr())
		}
		require.NoError(t, txn.EndTransaction(t.Context(), kgo.TransactionEndTry(i%2 == 0)))
	}
	seen := newRecorder()
	consumer := &wherry.Consumer{Client: c.client(t), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)}}
	end, stop := background(t, consumer)
	for range 50 {
		receive(t, seen.ch, "what is committed")
	}
	c.fill(t, 1, 1)
	receive(t, seen.ch, "one without a transaction")
	require.Eventually(t, func() bool { return consumer.Status().Partitions[0].Lag == 0 }, patience, time.Millisecond)
	stop()
	require.NoError(t, receive(t, end, "the end"))
	require.Len(t, unique(seen.all()), 51)
	require.NotContains(t, seen.all(), "aborted")
}

// A thousand partitions of one topic.
func TestBreak_AThousandPartitions(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 1000})
	cl := c.client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	var batch []*kgo.Record
	for i := range 3000 {
		r, err := orderPlaced.Record("", order{ID: ids(i)})
		require.NoError(t, err)
		r.Partition = int32(i % 1000)
		batch = append(batch, r)
	}
	require.NoError(t, cl.ProduceSync(t.Context(), batch...).FirstErr())
	seen := newRecorder()
	consumer := func() *wherry.Consumer {
		return &wherry.Consumer{Client: c.client(t), Group: "g", MaxHeld: 1, Opts: []kgo.Opt{kgo.HeartbeatInterval(50 * time.Millisecond)}, Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)}}
	}
	end, stop := background(t, consumer())
	background(t, consumer())
	for range 3000 {
		receive(t, seen.ch, "all")
	}
	stop()
	require.NoError(t, receive(t, end, "the end"))
	require.Eventually(t, func() bool {
		for p := range int32(1000) {
			if c.committed("g", "order.placed", p) != 3 {
				return false
			}
		}
		return true
	}, patience, 20*time.Millisecond)
	require.Len(t, unique(seen.all()), 3000)
}

// A partition that is paused, taken away and given back is fetched again.
func TestBreak_APausedPartitionThatComesBackIsRead(t *testing.T) {
	t.Parallel()
	for name, balancer := range map[string]kgo.GroupOpt{
		"cooperative": kgo.Balancers(kgo.CooperativeStickyBalancer()), "eager": kgo.Balancers(kgo.RangeBalancer()), "server": kgo.ServerSideBalancer(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newFaulty(t, map[string]int32{"order.placed": 2})
			c.SetGroupConfigs("g", map[string]string{"consumer.heartbeat.interval.ms": "50"})
			c.fill(t, 2, 300)
			opts := []kgo.Opt{balancer, kgo.HeartbeatInterval(50 * time.Millisecond), kgo.FetchMaxBytes(500), kgo.FetchMaxPartitionBytes(500)}
			var free atomic.Bool
			seen := newRecorder()
			one := &wherry.Consumer{
				Client: c.client(t), Group: "g", MaxHeld: 1, Drain: 20 * time.Millisecond, Opts: opts,
				Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
					if !free.Load() {
						<-ctx.Done()
						return ctx.Err()
					}
					return seen.handle(ctx, o)
				})},
			}
			end, _ := background(t, one)
			paused := func() bool {
				s := one.Status()
				return len(s.Partitions) == 2 && s.Partitions[0].Paused && s.Partitions[1].Paused
			}
			for range 2 {
				require.Eventually(t, paused, patience, time.Millisecond)
				end2, stop2 := background(t, &wherry.Consumer{Client: c.client(t), Group: "g", Drain: 20 * time.Millisecond, Opts: opts, Handlers: []wherry.Route{
					orderPlaced.Handler(func(ctx context.Context, _ order) error { <-ctx.Done(); return ctx.Err() }),
				}})
				require.Eventually(t, func() bool { return len(one.Status().Partitions) == 1 }, patience, time.Millisecond)
				stop2()
				require.NoError(t, receive(t, end2, "the end of the other"))
			}
			require.Eventually(t, paused, patience, time.Millisecond)
			free.Store(true)
			throwOut(t, c, "g")
			require.Eventually(t, func() bool {
				return c.committed("g", "order.placed", 0) == 300 && c.committed("g", "order.placed", 1) == 300
			}, patience, 5*time.Millisecond, "one of them is not read any more: %v", one.Status())
			select {
			case err := <-end:
				require.FailNow(t, "the Consumer stopped", err)
			default:
			}
		})
	}
}

// The log is cut off again and again under a Consumer with OnReset: it goes on
// at the start of the log, and what was committed never goes back.
func TestBreak_TheLogIsCutOffAgainAndAgain(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 1})
	backwards := c.watchCommits(t, "g")
	seen := newRecorder()
	consumer := &wherry.Consumer{
		Client: c.client(t), Group: "g", MaxHeld: 5, OnReset: func(e *wherry.OffsetRangeError) (int64, error) { return e.Start, nil },
		Opts:     []kgo.Opt{kgo.FetchMaxBytes(200), kgo.FetchMaxPartitionBytes(200)},
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error { time.Sleep(time.Millisecond); return seen.handle(ctx, o) })},
	}
	end, stop := background(t, consumer)
	for range 15 {
		c.fill(t, 1, 40)
		time.Sleep(10 * time.Millisecond)
		require.NoError(t, c.DeleteRecords("order.placed", 0, c.PartitionInfo("order.placed", 0).HighWatermark-2))
	}
	high := c.PartitionInfo("order.placed", 0).HighWatermark
	require.Eventually(t, func() bool {
		select {
		case err := <-end:
			t.Error("the Consumer stopped", err)
			return true
		default:
		}
		return c.committed("g", "order.placed", 0) == high
	}, patience, 5*time.Millisecond)
	stop()
	require.Empty(t, backwards())
}

// The group belongs to members of another kind.
func TestBreak_TheGroupIsOfAnotherKind(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 1})
	other := c.client(t, kgo.ConsumerGroup("g"), kgo.ConsumeTopics("order.placed"), kgo.GroupProtocol("connect"))
	_ = other
	require.Eventually(t, func() bool { g := c.GroupInfo("g"); return g != nil && len(g.Members) == 1 }, patience, time.Millisecond)
	end, _ := background(t, &wherry.Consumer{Client: c.client(t), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(newRecorder().handle)}})
	require.ErrorIs(t, receive(t, end, "the Consumer to stop"), kerr.InconsistentGroupProtocol)
}

// Status tells where a successor would begin.
func TestBreak_StatusTellsWhatIsCommitted(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 1})
	c.fill(t, 1, 4)
	at := kadm.Offsets{}
	at.AddOffset("order.placed", 0, 1, -1)
	require.NoError(t, kadm.NewClient(c.client(t)).CommitAllOffsets(t.Context(), "g", at))
	require.NoError(t, c.DeleteRecords("order.placed", 0, 3))
	began := make(chan string, 10)
	consumer := &wherry.Consumer{
		Client: c.client(t), Group: "g", OnReset: func(e *wherry.OffsetRangeError) (int64, error) { return e.Start, nil },
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error { began <- o.ID; <-ctx.Done(); return ctx.Err() })},
	}
	background(t, consumer)
	receive(t, began, "the record")
	require.Equal(t, c.committed("g", "order.placed", 0), consumer.Status().Partitions[0].Committed)
}

// Nothing is left of a Consumer after Run returned: no goroutine, also none of
// its client's.
func TestBreak_NothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	apart(t, func(t *testing.T) {
		c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "order.placed", "payment.made"))
		require.NoError(t, err)
		lent, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DisableClientMetrics(), kgo.MetadataMinAge(10*time.Millisecond))
		require.NoError(t, err)
		f := faulty{c}
		f.fill(t, 4, 50)
		for i := range 6 {
			ctx, cancel := context.WithCancel(t.Context())
			var n atomic.Int64
			consumer := &wherry.Consumer{Client: lent, Group: "g", MaxHeld: 3, Drain: 50 * time.Millisecond, Opts: []kgo.Opt{kgo.HeartbeatInterval(50 * time.Millisecond)}, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
				if n.Add(1) > 10 && i%2 == 0 {
					return errors.New("enough")
				} else if n.Load() > 10 {
					cancel()
					<-ctx.Done()
				}
				return paymentMade.Publish(ctx, o.ID, payment{OrderID: o.ID})
			})}}
			second := &wherry.Consumer{Client: lent, Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error { return nil })}}
			ended := make(chan error, 2)
			go func() { ended <- consumer.Run(ctx) }()
			go func() { ended <- second.Run(ctx) }()
			time.Sleep(300 * time.Millisecond)
			cancel()
			<-ended
			<-ended
			f.fill(t, 4, 30)
		}
		lent.Close()
		c.Close()
		var left string
		for range 100 {
			if left = stacks(); !bytes.Contains([]byte(left), []byte("franz-go/pkg/kgo")) && !bytes.Contains([]byte(left), []byte("wherry/internal")) {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		for _, g := range strings.Split(left, "\n\n") {
			if strings.Contains(g, "franz-go/pkg/kgo") || strings.Contains(g, "wherry/internal") {
				t.Error(g)
			}
		}
	})
}
