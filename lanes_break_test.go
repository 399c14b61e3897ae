package wherry_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// A record that names one group is passed by in all others, with or without
// order, batches and policies.
func TestLanes_ARecordForOneGroupIsPassedByInOthers(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	var records []*kgo.Record
	for i := range 10 {
		r, err := orderPlaced.Record(ids(i%3), order{ID: ids(i)})
		require.NoError(t, err)
		if i%2 == 0 {
			r.Headers = []kgo.RecordHeader{{Key: "wherry-only-group", Value: []byte("mine")}}
		}
		records = append(records, r)
	}
	require.NoError(t, k.Client(t).ProduceSync(t.Context(), records...).FirstErr())
	for _, kind := range []wherry.Order{wherry.ByPartition, wherry.ByKey} {
		for group, want := range map[string]int{"mine": 10, "other": 5} {
			for _, size := range []int{0, 3} {
				var n atomic.Int32
				name := fmt.Sprint(group, kind, size)
				if group == "mine" && (kind != 0 || size != 0) {
					continue // the group's name counts
				} else if group == "mine" {
					name = group
				}
				route := orderPlaced.Handler(func(context.Context, order) error { n.Add(1); return nil })
				if size > 0 {
					route = orderPlaced.Batch(func(_ context.Context, batch []wherry.Message[order]) []error { n.Add(int32(len(batch))); return nil }).Sized(size, 0)
				}
				stop := kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: name, Order: kind, Handlers: []wherry.Route{route}, Policies: []wherry.Policy{
					wherry.Middleware(func(next wherry.Handler) wherry.Handler { return next }),
				}})
				eventually(t, "all is committed", func() bool { return committed(t, k, name, "order.placed")[0] == 10 })
				require.NoError(t, stop())
				require.EqualValues(t, want, n.Load(), name)
			}
		}
	}
}

// At MaxHeld, and at MaxSpan beyond the oldest, one partition pauses and the
// others go on; it goes on when there is room, here or with another member.
func TestLanes_APartitionPausesAloneAndGoesOn(t *testing.T) {
	for name, c := range map[string]*wherry.Consumer{
		"MaxHeld": {MaxHeld: 20, Order: wherry.ByKey},
		"MaxSpan": {MaxSpan: 100, Order: wherry.ByKey},
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, []string{"order.placed:2"}, func(t *testing.T, k *kafkatest.Cluster) {
				place(t, k, 0, many("slow", 0, 300)...)
				place(t, k, 1, many("quick", 0, 300)...)
				if name == "MaxSpan" {
					place(t, k, 0, many("other", 300, 600)...)
				}
				var mu sync.Mutex
				got := map[string]int{}
				hold := make(chan struct{})
				member := func() *wherry.Consumer {
					return &wherry.Consumer{Client: k.Client(t), Group: "g", MaxHeld: c.MaxHeld, MaxSpan: c.MaxSpan, Order: c.Order, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
						if strings.HasPrefix(o.ID, "slow") {
							if err := wherry.Await(ctx, hold); err != nil {
								return err
							}
						}
						mu.Lock()
						defer mu.Unlock()
						got[o.ID]++
						return nil
					})}}
				}
				first := member()
				kafkatest.Run(t, first)
				k.Sleep(t, time.Minute)
				s := first.Status().Partitions
				require.True(t, s[0].Paused)
				require.False(t, s[1].Paused)
				require.EqualValues(t, 300, s[1].Committed)
				if name == "MaxHeld" {
					require.LessOrEqual(t, s[0].Held, 20)
				} else {
					require.LessOrEqual(t, s[0].Held, 100)
				}
				second := member()
				kafkatest.Run(t, second)
				k.Sleep(t, time.Minute)
				both := slices.Concat(first.Status().Partitions, second.Status().Partitions)
				require.Len(t, both, 2)
				for _, p := range both {
					require.Equal(t, p.Partition == 0, p.Paused, "a pause belongs to the partition, wherever it goes")
				}
				close(hold)
				k.Sleep(t, time.Minute)
				want := map[string]int64{"MaxHeld": 600, "MaxSpan": 900}[name]
				require.Equal(t, want, sum(committed(t, k, "g", "order.placed")))
				require.Len(t, got, int(want))
				for _, p := range append(first.Status().Partitions, second.Status().Partitions...) {
					require.False(t, p.Paused)
				}
			})
		})
	}
}

// Members with ByKey, waits in hand, batches and finished sets come, go and are
// thrown out, under every balancer: nothing is lost, and no offset goes back.
func TestLanes_MembersComeGoAndAreThrownOutWithWaitsInHand(t *testing.T) {
	t.Parallel()
	for name, balancer := range balancers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newLively(t, map[string]int32{"order.placed": 3, "payment.made": 2})
			backwards := c.watchCommits(t, "g")
			const total = 1000
			var feeding sync.WaitGroup
			cl := c.client(t)
			feeding.Go(func() {
				for i := range total {
					r, _ := orderPlaced.Record(fmt.Sprint("key", i%41), order{ID: strconv.Itoa(i), Total: i})
					if err := cl.ProduceSync(context.Background(), r).FirstErr(); err != nil {
						t.Error(err)
						return
					}
					time.Sleep(time.Millisecond)
				}
			})
			handle := func(ctx context.Context, o order) error {
				if rand.IntN(5) == 0 {
					if err := wherry.Wait(ctx, time.Now().Add(time.Duration(rand.IntN(50))*time.Millisecond)); err != nil {
						return err
					}
				}
				return paymentMade.Publish(ctx, o.ID, payment{OrderID: o.ID})
			}
			member := func(i int) *wherry.Consumer {
				return &wherry.Consumer{
					Client: c.client(t, kgo.ClientID(fmt.Sprint("m", i))), Group: "g", Drain: 200 * time.Millisecond, MaxHeld: 50, Order: wherry.ByKey, Concurrency: 5,
					Opts:     []kgo.Opt{balancer, kgo.HeartbeatInterval(50 * time.Millisecond)},
					Handlers: []wherry.Route{orderPlaced.Handler(handle)},
				}
			}
			type running struct {
				end  <-chan error
				stop func()
			}
			var members []running
			for i := range 10 {
				switch {
				case len(members) < 2 || len(members) < 4 && rand.IntN(2) == 0:
					end, stop := background(t, member(i))
					members = append(members, running{end, stop})
				case rand.IntN(2) == 0:
					m := members[0]
					members = members[1:]
					m.stop()
					require.NoError(t, receive(t, m.end, "the end"))
				default:
					if info := c.GroupInfo("g"); info != nil && len(info.Members) > 0 {
						c.forget("g", info.Members[rand.IntN(len(info.Members))].MemberID)
					}
				}
				for _, m := range members {
					select {
					case err := <-m.end:
						require.FailNow(t, "a member stopped", err)
					default:
					}
				}
				time.Sleep(time.Duration(50+rand.IntN(150)) * time.Millisecond)
			}
			feeding.Wait()
			eventually(t, "all is committed", func() bool {
				var all int64
				for p := range int32(3) {
					all += max(0, c.committed("g", "order.placed", p))
				}
				return all == total
			})
			for _, m := range members {
				m.stop()
				require.NoError(t, receive(t, m.end, "the end"))
			}
			require.Len(t, c.outcomes(t), total)
			require.Empty(t, backwards(), "the group's offset went back")
		})
	}
}

// Members that come and go in peace: with every balancer each record is handled
// once, in the order of its key, though some waited when the partition moved.
func TestLanes_KeysKeepTheirOrderAcrossRebalances(t *testing.T) {
	t.Parallel()
	for name, balancer := range balancers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newLively(t, map[string]int32{"order.placed": 2})
			cl := c.client(t)
			const keys, each = 30, 40
			for n := range each {
				var batch []*kgo.Record
				for key := range keys {
					r, err := orderPlaced.Record(fmt.Sprint("key", key), order{ID: strconv.Itoa(key), Total: n})
					require.NoError(t, err)
					batch = append(batch, r)
				}
				require.NoError(t, cl.ProduceSync(t.Context(), batch...).FirstErr())
			}
			var mu sync.Mutex
			at := map[string]int{}
			var faults []string
			var all atomic.Int32
			handle := func(ctx context.Context, o order) error {
				mu.Lock()
				if at[o.ID] != o.Total {
					faults = append(faults, fmt.Sprintf("key %s: %d, and %d was to come", o.ID, o.Total, at[o.ID]))
				}
				mu.Unlock()
				if rand.IntN(4) == 0 {
					if err := wherry.Wait(ctx, time.Now().Add(time.Duration(rand.IntN(100))*time.Millisecond)); err != nil {
						return err // it comes again
					}
				}
				mu.Lock()
				at[o.ID] = o.Total + 1
				mu.Unlock()
				all.Add(1)
				return nil
			}
			member := func() func() {
				end, stop := background(t, &wherry.Consumer{
					Client: c.client(t), Group: "g", Drain: patience, Order: wherry.ByKey, MaxHeld: 200,
					Opts: []kgo.Opt{balancer, kgo.HeartbeatInterval(50 * time.Millisecond)}, Handlers: []wherry.Route{orderPlaced.Handler(handle)},
				})
				return func() { stop(); require.NoError(t, receive(t, end, "the end")) }
			}
			first := member()
			for all.Load() < keys*each/4 {
				runtime.Gosched()
				time.Sleep(time.Millisecond)
			}
			second := member()
			require.Eventually(t, func() bool { info := c.GroupInfo("g"); return assigned(info) == 2 }, patience, time.Millisecond)
			first()
			eventually(t, "all is committed", func() bool {
				return max(0, c.committed("g", "order.placed", 0))+max(0, c.committed("g", "order.placed", 1)) == keys*each
			})
			second()
			require.Empty(t, faults)
			require.EqualValues(t, keys*each, all.Load(), "some were handled twice")
		})
	}
}

// assigned is how many members of a group have partitions.
func assigned(info *kfake.GroupInfo) (n int) {
	if info == nil {
		return 0
	}
	for _, m := range info.Members {
		if m.NumAssigned() > 0 {
			n++
		}
	}
	return n
}

// A Consumer with records in every state leaves no goroutine and no timer's
// callback behind.
func TestLanes_NoGoroutineIsLeft(t *testing.T) {
	k := kafkatest.NewCluster(t, "order.placed:2", "delay:1")
	cl := k.Client(t)
	place(t, k, 0, many("wait", 0, 50)...)
	place(t, k, 1, many("run", 0, 50)...)
	delay{}.send(t, k, 0, "d-0", time.Now().Add(time.Hour))
	for _, kind := range []wherry.Order{wherry.ByPartition, wherry.ByKey, wherry.Unordered} {
		for _, size := range []int{1, 7} {
			began := make(chan struct{}, 1000)
			route := orderPlaced.Batch(func(ctx context.Context, batch []wherry.Message[order]) []error {
				began <- struct{}{}
				if strings.HasPrefix(batch[0].Value.ID, "wait") {
					go func() { _ = wherry.Wait(ctx, time.Now().Add(time.Minute)) }()
					_ = wherry.Wait(batch[0].Context, time.Now().Add(time.Minute))
				} else {
					<-ctx.Done()
				}
				return nil
			}).Sized(size, 10*time.Millisecond)
			stop := kafkatest.Run(t, &wherry.Consumer{
				Client: cl, Group: fmt.Sprint(kind, size), Order: kind, Timeout: time.Minute, Drain: 20 * time.Millisecond,
				Handlers: []wherry.Route{route}, Policies: []wherry.Policy{delay{}, wherry.Telemetry{}},
			})
			receive(t, began, "a batch")
			require.NoError(t, stop())
		}
	}
	require.Eventually(t, func() bool {
		return !strings.Contains(stacks(), "wherry.(*run)") && !strings.Contains(stacks(), "internal/lane.") && !strings.Contains(stacks(), "wherry.park")
	}, patience, 10*time.Millisecond)
}

// A log that was cut off behind a record that waits: the Consumer goes on where
// OnReset says, and the record that waits is none the worse.
func TestLanes_AResetWhileARecordWaits(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]wherry.Order{"ByPartition": wherry.ByPartition, "ByKey": wherry.ByKey} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "order.placed:1")
			place(t, k, 0, many("a", 0, 100)...)
			h := newHands()
			c := &wherry.Consumer{Client: k.Client(t), Group: "g", Order: kind, MaxHeld: 5, Handlers: h.route(), Drain: 10 * time.Millisecond, OnReset: func(e *wherry.OffsetRangeError) (int64, error) { return e.Start, nil }, Opts: []kgo.Opt{kgo.FetchMaxPartitionBytes(200), kgo.FetchMaxBytes(200)}}
			kafkatest.Run(t, c)
			x := h.next(t)
			require.Equal(t, "a-0", x.id)
			eventually(t, "it pauses", func() bool { s := c.Status().Partitions; return len(s) == 1 && s[0].Paused })
			var to kadm.Offsets
			to.Add(kadm.Offset{Topic: "order.placed", At: 90})
			_, err := kadm.NewClient(k.Client(t)).DeleteRecords(t.Context(), to)
			require.NoError(t, err)
			x.done()
			last := -1
			for last < 99 {
				x := h.next(t)
				var n int
				_, err := fmt.Sscanf(x.id, "a-%d", &n)
				require.NoError(t, err)
				require.Greater(t, n, last, "out of order")
				last = n
				x.done()
			}
			eventually(t, "all is committed", func() bool { return committed(t, k, "g", "order.placed")[0] == 100 })
		})
	}
}
