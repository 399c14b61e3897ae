package wherry_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// hands hands each record of a handler to the test, which says what becomes of
// it.
type hands struct{ ch chan *hand }

type hand struct {
	ctx  context.Context
	id   string
	at   time.Time
	does chan func(ctx context.Context) error
}

func newHands() hands { return hands{make(chan *hand, 10_000)} }

func (h hands) handle(ctx context.Context, o order) error {
	x := &hand{ctx: ctx, id: o.ID, at: time.Now(), does: make(chan func(context.Context) error, 1)}
	h.ch <- x
	select {
	case f := <-x.does:
		return f(ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (h hands) route() []wherry.Route { return []wherry.Route{orderPlaced.Handler(h.handle)} }

// next returns the next that begins.
func (h hands) next(t *testing.T) *hand {
	t.Helper()
	return receive(t, h.ch, "a record to begin")
}

// take returns the next n that begin, by id.
func (h hands) take(t *testing.T, n int) map[string]*hand {
	t.Helper()
	got := map[string]*hand{}
	for range n {
		x := h.next(t)
		require.NotContains(t, got, x.id)
		got[x.id] = x
	}
	return got
}

// none waits a moment and sees that nothing has begun.
func (h hands) none(t *testing.T) {
	t.Helper()
	select {
	case x := <-h.ch:
		require.FailNow(t, "it begins too early", x.id)
	case <-time.After(100 * time.Millisecond):
	}
}

func (x *hand) done() { x.does <- func(context.Context) error { return nil } }
func (x *hand) waits(d time.Duration) {
	x.does <- func(ctx context.Context) error { return wherry.Wait(ctx, time.Now().Add(d)) }
}

func idsOf(got map[string]*hand) []string { return slices.Sorted(maps.Keys(got)) }

// place produces orders "<key>-<n>" under their keys, "-<n>" without one, to a
// partition.
func place(t *testing.T, k *kafkatest.Cluster, partition int32, ids ...string) {
	t.Helper()
	cl := k.Client(t, kgo.RecordPartitioner(wherry.Partitioner(kgo.StickyKeyPartitioner(nil))))
	var all []*kgo.Record
	for _, id := range ids {
		key, _, _ := strings.Cut(id, "-")
		r, err := orderPlaced.Record(key, order{ID: id})
		require.NoError(t, err)
		wherry.ToPartition(r, partition)
		all = append(all, r)
	}
	require.NoError(t, cl.ProduceSync(t.Context(), all...).FirstErr())
	cl.Close()
}

// many returns the ids "<key>-<from>" to below "<key>-<to>".
func many(key string, from, to int) (ids []string) {
	for i := from; i < to; i++ {
		ids = append(ids, fmt.Sprintf("%s-%d", key, i))
	}
	return ids
}

// virtually is kafkatest.Test; without the tag, waits are long and are refused.
func virtually(t *testing.T, topics []string, f func(t *testing.T, k *kafkatest.Cluster)) {
	t.Helper()
	t.Parallel()
	kafkatest.Test(t, topics, func(t *testing.T, k *kafkatest.Cluster) {
		if !k.Virtual() {
			t.Skip("its time is virtual: go test -tags synctests")
		}
		f(t, k)
	})
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	require.Eventually(t, is, patience, 5*time.Millisecond, what)
}

func TestOrder_ByPartitionIsThatOfThePartition(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:2")
	place(t, k, 0, "a-0", "b-1", "-2", "a-3")
	place(t, k, 1, "a-4", "a-5")
	h := newHands()
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: h.route(), Drain: 10 * time.Millisecond})
	got := h.take(t, 2)
	require.Equal(t, []string{"a-0", "a-4"}, idsOf(got))
	h.none(t)
	got["a-4"].done()
	require.Equal(t, "a-5", h.next(t).id, "one partition waits for the other")
	h.none(t)
	got["a-0"].done()
	for _, id := range []string{"b-1", "-2", "a-3"} {
		x := h.next(t)
		require.Equal(t, id, x.id)
		h.none(t)
		x.done()
	}
	eventually(t, "it is committed", func() bool { return committed(t, k, "g", "order.placed")[0] == 4 })
}

func TestOrder_ByPartitionAWaitHoldsThePartition(t *testing.T) {
	virtually(t, []string{"order.placed:2"}, func(t *testing.T, k *kafkatest.Cluster) {
		place(t, k, 0, "a-0", "b-1")
		place(t, k, 1, "a-2", "a-3")
		h := newHands()
		kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: h.route(), Drain: 10 * time.Millisecond, MaxWait: time.Hour, Concurrency: 1})
		first := h.next(t)
		held := map[string]string{"a-0": "b-1", "a-2": "a-3"}[first.id]
		begin := time.Now()
		first.waits(time.Hour)
		for range 2 {
			x := h.next(t)
			require.NotEqual(t, held, x.id)
			x.done()
		}
		require.Less(t, time.Since(begin), time.Minute)
		k.Sleep(t, 2*time.Hour)
		x := h.next(t)
		require.Equal(t, held, x.id)
		require.Equal(t, time.Hour, x.at.Sub(begin))
	})
}

func TestOrder_ByKeyIsThatOfEachKey(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	place(t, k, 0, "a-0", "a-1", "b-2", "-3", "-4", "a-5", "b-6")
	h := newHands()
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: h.route(), Drain: 10 * time.Millisecond, Order: wherry.ByKey})
	got := h.take(t, 4)
	require.Equal(t, []string{"-3", "-4", "a-0", "b-2"}, idsOf(got), "keys wait for each other, or records without one do")
	h.none(t)
	got["b-2"].done()
	got["-4"].done()
	require.Equal(t, "b-6", h.next(t).id)
	h.none(t)
	for _, id := range []string{"a-1", "a-5"} {
		got["a-0"].done()
		got["a-0"] = h.next(t)
		require.Equal(t, id, got["a-0"].id)
	}
	require.Less(t, committed(t, k, "g", "order.placed")[0], int64(4), "-3 has not finished")
}

// Guarantee "order": per key, in the order of the partition, whatever takes how
// long; on each key one at a time.
func TestOrder_ByKeyHoldsForManyKeysAtOnce(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:3", "payment.made:1")
	const keys, each = 20, 25
	for p := range int32(3) {
		var ids []string
		for i := range each {
			for key := range keys {
				ids = append(ids, fmt.Sprintf("%d.%d-%d", p, key, i))
			}
		}
		place(t, k, p, ids...)
	}
	var (
		mu     sync.Mutex
		at     = map[string]string{}
		faults []string
		left   atomic.Int32
	)
	left.Store(3 * keys * each)
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Order: wherry.ByKey, Concurrency: 7, MaxHeld: 100, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
		key, n, _ := strings.Cut(o.ID, "-")
		mu.Lock()
		if before := at[key]; before == "" && n != "0" || before != "" && fmt.Sprint("done ", n) != before {
			faults = append(faults, fmt.Sprintf("%s after %s", o.ID, before))
		}
		at[key] = "begun"
		mu.Unlock()
		if rand.IntN(20) == 0 {
			if err := wherry.Wait(ctx, time.Now().Add(time.Duration(rand.IntN(3))*time.Millisecond)); err != nil {
				return err
			}
		}
		var next int
		_, _ = fmt.Sscan(n, &next)
		mu.Lock()
		at[key] = fmt.Sprint("done ", next+1)
		mu.Unlock()
		left.Add(-1)
		return paymentMade.Publish(ctx, key, payment{OrderID: o.ID})
	})}})
	eventually(t, "all is committed", func() bool { return sum(committed(t, k, "g", "order.placed")) == 3*keys*each })
	require.Empty(t, faults)
	require.Zero(t, left.Load())
}

func TestOrder_ByKeyAWaitHoldsItsKeyAlone(t *testing.T) {
	virtually(t, []string{"order.placed:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		place(t, k, 0, "a-0", "a-1", "b-2", "-3", "b-4")
		h := newHands()
		kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: h.route(), Drain: 10 * time.Millisecond, Order: wherry.ByKey, MaxWait: time.Hour, Concurrency: 1})
		x := h.next(t)
		begin := time.Now()
		require.Equal(t, "a-0", x.id)
		x.waits(time.Hour)
		for range 3 {
			x := h.next(t)
			require.NotEqual(t, "a-1", x.id)
			x.done()
		}
		require.Less(t, time.Since(begin), time.Minute)
		k.Sleep(t, 2*time.Hour)
		x = h.next(t)
		require.Equal(t, "a-1", x.id)
		require.Equal(t, time.Hour, x.at.Sub(begin))
	})
}

func TestOrder_UnorderedWaitsForNone(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	place(t, k, 0, "a-0", "a-1", "a-2", "a-3")
	h := newHands()
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: h.route(), Drain: 10 * time.Millisecond, Order: wherry.Unordered, Concurrency: 3})
	got := h.take(t, 3)
	h.none(t)
	got["a-1"].done()
	require.Equal(t, "a-3", h.next(t).id)
}

// A record whose outputs were refused comes again before any of its key that
// has not begun.
func TestOrder_ARefusedOutputKeepsTheOrder(t *testing.T) {
	for name, kind := range map[string]wherry.Order{"ByPartition": wherry.ByPartition, "ByKey": wherry.ByKey} {
		t.Run(name, func(t *testing.T) {
			virtually(t, []string{"order.placed:1", "payment.made:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				place(t, k, 0, "a-0", "a-1", "a-2", "a-3")
				h := newHands()
				refused := make(chan string, 10)
				kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: h.route(), Drain: 10 * time.Millisecond, Order: kind, Policies: []wherry.Policy{
					wherry.Middleware(func(next wherry.Handler) wherry.Handler {
						return func(ctx context.Context, r *kgo.Record) error {
							err := next(ctx, r)
							if err != nil {
								o, _ := orderPlaced.Decode(r)
								refused <- o.ID
							}
							return nil
						}
					}),
				}})
				publish := func(ctx context.Context) error { return paymentMade.Publish(ctx, "a", payment{}) }
				fault := k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "payment.made", Count: -1}, kerr.MessageTooLarge)
				h.next(t).does <- publish
				h.next(t).does <- publish
				third := h.next(t)
				require.Equal(t, "a-2", third.id)
				fault.Wait(t, 1)
				k.Sleep(t, time.Minute)
				require.Empty(t, refused, "it runs beside a-2")
				fault.Remove()
				third.done()
				require.Equal(t, "a-0", receive(t, refused, "a-0"))
				require.Equal(t, "a-1", receive(t, refused, "a-1"))
				fourth := h.next(t)
				require.Equal(t, "a-3", fourth.id)
				fourth.done()
				k.Sleep(t, time.Minute)
				require.EqualValues(t, 4, committed(t, k, "g", "order.placed")[0])
			})
		})
	}
}

// meter counts how many are at work at once.
type meter struct{ now, most atomic.Int32 }

func (m *meter) begin() {
	n := m.now.Add(1)
	for most := m.most.Load(); n > most && !m.most.CompareAndSwap(most, n); most = m.most.Load() {
	}
}

func (m *meter) end() { m.now.Add(-1) }

// No more than Concurrency are at work at once, over all partitions, also when
// waits come back; and no fewer while there is work.
func TestConcurrency_IsExactOverAllPartitions(t *testing.T) {
	for name, kind := range map[string]wherry.Order{"ByPartition": wherry.ByPartition, "ByKey": wherry.ByKey, "Unordered": wherry.Unordered} {
		t.Run(name, func(t *testing.T) {
			virtually(t, []string{"order.placed:8"}, func(t *testing.T, k *kafkatest.Cluster) {
				for p := range int32(8) {
					place(t, k, p, slices.Concat(many("a", 0, 10), many("b", 0, 10), many("c", 0, 10))...)
				}
				var m meter
				var dice sync.Mutex
				random := rand.New(rand.NewPCG(1, 1))
				roll := func(n int) int {
					dice.Lock()
					defer dice.Unlock()
					return random.IntN(n)
				}
				stop := kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Order: kind, Concurrency: 3, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error {
					m.begin()
					defer m.end()
					time.Sleep(time.Duration(1+roll(50)) * time.Millisecond)
					if roll(3) == 0 {
						m.end()
						defer m.begin()
						if err := wherry.Wait(ctx, time.Now().Add(time.Second)); err != nil { // all together
							return err
						}
						m.begin()
						defer m.end()
						time.Sleep(100 * time.Millisecond)
					}
					return nil
				})}})
				for sum(committed(t, k, "g", "order.placed")) < 240 {
					k.Sleep(t, 10*time.Second)
				}
				require.NoError(t, stop())
				require.EqualValues(t, 3, m.most.Load())
			})
		})
	}
}

func TestConcurrency_AWaitGivesItsPlaceAway(t *testing.T) {
	for name, kind := range map[string]wherry.Order{"ByPartition": wherry.ByPartition, "ByKey": wherry.ByKey, "Unordered": wherry.Unordered} {
		t.Run(name, func(t *testing.T) {
			virtually(t, []string{"order.placed:3"}, func(t *testing.T, k *kafkatest.Cluster) {
				for p := range int32(3) {
					place(t, k, p, fmt.Sprintf("a-%d", p))
				}
				h := newHands()
				kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: h.route(), Drain: 10 * time.Millisecond, Order: kind, Concurrency: 1, MaxWait: time.Hour})
				begin := time.Now()
				h.next(t).waits(time.Hour)
				h.next(t).waits(time.Minute)
				busy := h.next(t) // the place is taken from here on
				require.Less(t, time.Since(begin), 10*time.Second)
				k.Sleep(t, 2*time.Hour)
				require.Zero(t, sum(committed(t, k, "g", "order.placed")), "both waits are over, and no place is free")
				busy.done()
				k.Sleep(t, time.Second)
				require.EqualValues(t, 3, sum(committed(t, k, "g", "order.placed")))
			})
		})
	}
}

func TestConcurrency_ByPartitionHasNoLimit(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:100")
	for p := range int32(100) {
		place(t, k, p, fmt.Sprintf("a-%d", p))
	}
	h := newHands()
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: h.route(), Drain: 10 * time.Millisecond})
	h.take(t, 100)
}

// The queue of one partition does not starve another, also where only one
// record is handled at once.
func TestConcurrency_PartitionsTakeTurns(t *testing.T) {
	for name, kind := range map[string]wherry.Order{"ByPartition": wherry.ByPartition, "ByKey": wherry.ByKey, "Unordered": wherry.Unordered} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "order.placed:2")
			place(t, k, 0, many("long", 0, 500)...)
			h := newHands()
			kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: h.route(), Drain: 10 * time.Millisecond, Order: kind, Concurrency: 1})
			x := h.next(t)
			place(t, k, 1, "short-0")
			// The lane of the other partition has asked for its turn by then.
			time.Sleep(700 * time.Millisecond)
			for turns := 1; x.id != "short-0"; turns++ {
				require.Less(t, turns, 5)
				x.done()
				x = h.next(t)
			}
		})
	}
}
