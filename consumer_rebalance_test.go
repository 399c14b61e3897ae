package wherry_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// Members come and go while records flow: each record is handled, in order
// within its key, and a clean change of hands repeats nothing.
func TestRebalance_NothingIsLostOrRepeated(t *testing.T) {
	t.Parallel()
	for name, balancer := range map[string]kgo.GroupBalancer{"cooperative": kgo.CooperativeStickyBalancer(), "eager": kgo.RangeBalancer()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "order.placed:8", "payment.made:1")
			var produced atomic.Int64
			feed := make(chan struct{})
			var feeding sync.WaitGroup
			cl := k.Client(t)
			feeding.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-feed:
						return
					default:
					}
					r, _ := orderPlaced.Record(ids(i%31), order{ID: ids(i), Total: i})
					if err := cl.ProduceSync(context.Background(), r).FirstErr(); err != nil {
						t.Error(err)
						return
					}
					produced.Add(1)
				}
			})
			var mu sync.Mutex
			handled := map[string]int{}
			member := func() *wherry.Consumer {
				return &wherry.Consumer{
					Client: k.Client(t), Group: "g", Drain: patience, Opts: []kgo.Opt{kgo.Balancers(balancer), kgo.HeartbeatInterval(50 * time.Millisecond)},
					Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
						mu.Lock()
						handled[o.ID]++
						mu.Unlock()
						return paymentMade.Publish(ctx, o.ID, payment{OrderID: o.ID})
					})},
				}
			}
			kafkatest.Run(t, member())
			for range 5 {
				stop := kafkatest.Run(t, member())
				before := produced.Load()
				require.Eventually(t, func() bool { return produced.Load() > before+100 }, patience, time.Millisecond)
				require.NoError(t, stop())
			}
			close(feed)
			feeding.Wait()
			n := produced.Load()
			require.Eventually(t, func() bool { return sum(committed(t, k, "g", "order.placed")) == n }, patience, 20*time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			require.Len(t, handled, int(n))
			for id, times := range handled {
				require.Equal(t, 1, times, id)
			}
		})
	}
}

// Guarantee "rebalance": a revoked partition's outputs are refused, and its
// record is the successor's.
func TestRebalance_ARevokedPartitionsOutputsAreRefused(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:2", "payment.made:1")
	for p := range int32(2) {
		r, err := orderPlaced.Record("", order{ID: "p" + string('0'+p)})
		require.NoError(t, err)
		wherry.ToPartition(r, p)
		require.NoError(t, k.Client(t, kgo.RecordPartitioner(wherry.Partitioner(kgo.StickyKeyPartitioner(nil)))).ProduceSync(t.Context(), r).FirstErr())
	}
	began := make(chan string, 4)
	goOn := make(chan struct{})
	publishErr := make(chan error, 4)
	opts := []kgo.Opt{kgo.HeartbeatInterval(50 * time.Millisecond)}
	first := &wherry.Consumer{
		Client: k.Client(t), Group: "g", Drain: 50 * time.Millisecond, Opts: opts,
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
			began <- o.ID
			<-ctx.Done()
			<-goOn // it overstays
			err := paymentMade.Publish(ctx, "", payment{OrderID: "zombie"})
			publishErr <- err
			return nil
		})},
	}
	kafkatest.Run(t, first)
	receive(t, began, "one partition")
	receive(t, began, "the other partition")
	seen := newRecorder()
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Opts: opts, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
		_ = seen.handle(ctx, o)
		return paymentMade.Publish(ctx, "", payment{OrderID: o.ID})
	})}})
	moved := receive(t, seen.ch, "the successor of one partition")
	require.Equal(t, moved, kafkatest.Next(t, k, paymentMade).OrderID)
	close(goOn)
	require.ErrorContains(t, receive(t, publishErr, "the zombie to publish"), "the partition was taken away")
	kafkatest.None(t, k, paymentMade, 200*time.Millisecond)
}

// Two processes with one instance id: the second takes over, the first stops
// with an error that says why.
func TestRebalance_TwoInstancesWithOneID(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	make1 := func(seen *recorder) *wherry.Consumer {
		return &wherry.Consumer{
			Client: k.Client(t), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)},
			Opts: []kgo.Opt{kgo.InstanceID("one"), kgo.HeartbeatInterval(50 * time.Millisecond)},
		}
	}
	first := make1(newRecorder())
	end, _ := background(t, first)
	receive(t, first.Ready(), "the first to be ready")
	seen := newRecorder()
	kafkatest.Run(t, make1(seen))
	require.ErrorContains(t, receive(t, end, "the first to stop"), "InstanceID")
	kafkatest.Send(t, k, orderPlaced, "a", order{ID: "a"})
	receive(t, seen.ch, "the second to work")
}

// Guarantee "alive": one slow partition pauses alone, and what is held of it
// is bounded.
func TestBackpressure_ASlowPartitionPausesAlone(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:2")
	cl := k.Client(t, kgo.RecordPartitioner(wherry.Partitioner(kgo.StickyKeyPartitioner(nil))))
	const n = 5000
	for p := range int32(2) {
		var batch []*kgo.Record
		for i := range n {
			r, err := orderPlaced.Record("", order{ID: ids(i), Total: int(p)})
			require.NoError(t, err)
			wherry.ToPartition(r, p)
			batch = append(batch, r)
		}
		require.NoError(t, cl.ProduceSync(t.Context(), batch...).FirstErr())
	}
	goOn := make(chan struct{})
	var fast, slow atomic.Int64
	c := &wherry.Consumer{
		Client: k.Client(t), Group: "g", MaxHeld: 100,
		Handlers: []wherry.Route{orderPlaced.Handler(func(_ context.Context, o order) error {
			if o.Total == 0 {
				fast.Add(1)
				return nil
			}
			<-goOn
			slow.Add(1)
			return nil
		})},
	}
	kafkatest.Run(t, c)
	require.Eventually(t, func() bool { return fast.Load() == n }, patience, time.Millisecond, "the fast partition waits for the slow one")
	require.Eventually(t, func() bool { s := c.Status(); return len(s.Partitions) == 2 && s.Partitions[1].Paused }, patience, time.Millisecond)
	s := c.Status()
	require.True(t, s.Ready)
	require.LessOrEqual(t, s.Partitions[1].Held, 100+2000, "MaxHeld and one poll")
	require.EqualValues(t, n, s.Partitions[1].Lag)
	close(goOn)
	require.Eventually(t, func() bool { return slow.Load() == n }, patience, time.Millisecond, "the slow partition is not resumed")
	require.Eventually(t, func() bool { s := c.Status(); return s.Partitions[0].Lag+s.Partitions[1].Lag == 0 }, patience, time.Millisecond)
}
