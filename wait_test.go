package wherry_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// judge is a policy that counts what a retrying or dead-lettering one would:
// errors that are no interruption. It swallows them.
type judge struct {
	failed, interrupted atomic.Int32
	wait                time.Duration // before the handler, in the policy
}

func (j *judge) Wrap(next wherry.Handler) wherry.Handler {
	return func(ctx context.Context, r *kgo.Record) error {
		if j.wait > 0 {
			if err := wherry.Wait(ctx, time.Now().Add(j.wait)); err != nil {
				if !wherry.Interrupted(ctx) {
					j.failed.Add(1)
				}
				j.interrupted.Add(1)
				return nil // and it does not count all the same
			}
		}
		switch err := next(ctx, r); {
		case wherry.Interrupted(ctx):
			j.interrupted.Add(1)
		case err != nil:
			j.failed.Add(1)
		}
		return nil
	}
}

func TestWait_IsOverWhenDueAndNeverBefore(t *testing.T) {
	virtually(t, []string{"order.placed:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		place(t, k, 0, "a-0")
		took := make(chan time.Duration, 10)
		kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error {
			for _, d := range []time.Duration{-time.Hour, 0, 1, time.Millisecond, 5 * time.Minute} {
				begin := time.Now()
				for _, until := range []time.Time{begin.Add(d), begin.Add(d).Round(0)} { // with and without a monotonic clock
					if err := wherry.Wait(ctx, until); err != nil {
						return err
					}
					if time.Now().Before(until) {
						t.Error("early")
					}
				}
				took <- time.Since(begin)
			}
			return nil
		})}})
		for _, want := range []time.Duration{0, 0, 1, time.Millisecond, 5 * time.Minute} {
			k.Sleep(t, 10*time.Minute)
			require.Equal(t, want, receive(t, took, "the wait"))
		}
	})
}

func TestWait_LongerThanMaxWaitIsAnErrorThatNamesTheWayOut(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	place(t, k, 0, "a-0", "a-1")
	errs := make(chan error, 2)
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", MaxWait: time.Minute, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error {
		errs <- wherry.Wait(ctx, time.Now().Add(time.Hour))
		return nil
	})}})
	err := receive(t, errs, "the error")
	var e *wherry.WaitError
	require.ErrorAs(t, err, &e)
	require.Equal(t, time.Minute, e.MaxWait)
	require.InDelta(t, time.Hour, e.Wait, float64(time.Second))
	require.ErrorContains(t, err, "retry.Topics")
	receive(t, errs, "it is an error like any: the record is handled")
}

func TestWait_OutsideOfAHandlerSleeps(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	require.NoError(t, wherry.Wait(t.Context(), begin.Add(10*time.Millisecond)))
	require.GreaterOrEqual(t, time.Since(begin), 10*time.Millisecond)
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(time.Millisecond, func() { cancel(why) })
	require.Equal(t, why, wherry.Wait(ctx, begin.Add(time.Hour)))
	require.Equal(t, why, wherry.Wait(ctx, begin), "also when it is due")
	require.Equal(t, why, wherry.Await(ctx, nil))
	require.False(t, wherry.Interrupted(ctx))
	ch := make(chan struct{}, 1)
	ch <- struct{}{}
	require.NoError(t, wherry.Await(t.Context(), ch))
}

// Work that is cut short in a wait is neither failed nor done: not committed,
// not reported, nothing of it sent, and it comes again.
func TestWait_ADrainEndsItAtOnce(t *testing.T) {
	for name, inPolicy := range map[string]bool{"in the handler": false, "in a policy": true} {
		t.Run(name, func(t *testing.T) {
			virtually(t, []string{"order.placed:1", "payment.made:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				place(t, k, 0, "a-0", "b-1")
				errs, waits := make(chan error, 2), make(chan error, 2)
				j := &judge{}
				if inPolicy {
					j.wait = time.Hour
				}
				stop := kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Order: wherry.ByKey, MaxWait: time.Hour, Drain: time.Minute, Policies: []wherry.Policy{j}, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
					_ = paymentMade.Publish(ctx, "", payment{OrderID: o.ID})
					waits <- nil
					err := wherry.Wait(ctx, time.Now().Add(time.Hour))
					if ctx.Err() != nil {
						t.Error("the context has ended, and the drain is not over")
					}
					errs <- err
					return err
				})}})
				if !inPolicy {
					receive(t, waits, "the first")
				}
				k.Sleep(t, time.Minute)
				begin := time.Now()
				require.NoError(t, stop())
				require.Less(t, time.Since(begin), time.Second)
				if !inPolicy {
					require.ErrorContains(t, receive(t, errs, "the cause"), "the Consumer stops")
				}
				require.EqualValues(t, 2, j.interrupted.Load())
				require.Zero(t, j.failed.Load())
				require.Zero(t, committed(t, k, "g", "order.placed")[0])
				kafkatest.None(t, k, paymentMade, time.Minute)
				seen := newRecorder()
				kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)}})
				require.Equal(t, "a-0", receive(t, seen.ch, "it comes again"))
				require.Equal(t, "b-1", receive(t, seen.ch, "it comes again"))
			})
		})
	}
}

// The same when the partition is taken away: another member begins anew, with
// every balancer and protocol.
func TestWait_ARevocationEndsItAtOnce(t *testing.T) {
	t.Parallel()
	for name, balancer := range balancers() {
		for _, kind := range []wherry.Order{wherry.ByPartition, wherry.ByKey} {
			t.Run(fmt.Sprint(name, " ", kind), func(t *testing.T) {
				t.Parallel()
				c := newLively(t, map[string]int32{"order.placed": 2})
				c.fill(t, 2, 3)
				backwards := c.watchCommits(t, "g")
				j := &judge{}
				parked := make(chan string, 100)
				opts := []kgo.Opt{balancer, kgo.HeartbeatInterval(50 * time.Millisecond)}
				consumer := func(does func(ctx context.Context, o order) error) *wherry.Consumer {
					return &wherry.Consumer{Client: c.client(t), Group: "g", Opts: opts, Order: kind, Drain: patience, Policies: []wherry.Policy{j}, Handlers: []wherry.Route{orderPlaced.Handler(does)}}
				}
				background(t, consumer(func(ctx context.Context, o order) error {
					parked <- o.ID
					return wherry.Wait(ctx, time.Now().Add(time.Minute))
				}))
				for range map[wherry.Order]int{wherry.ByPartition: 2, wherry.ByKey: 6}[kind] {
					receive(t, parked, "the first member's")
				}
				seen := newRecorder()
				background(t, consumer(seen.handle))
				for range 3 {
					receive(t, seen.ch, "the second member")
				}
				require.Zero(t, j.failed.Load())
				require.Positive(t, j.interrupted.Load())
				require.Empty(t, backwards())
			})
		}
	}
}

// newLively is newFaulty with a broker that has members under KIP-848 ask
// often: that is its setting, not theirs nor, in kfake, their group's.
func newLively(t *testing.T, topics map[string]int32) faulty {
	t.Helper()
	c, err := kfake.NewCluster(
		kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(100*time.Millisecond), kfake.SleepOutOfOrder(),
		kfake.BrokerConfigs(map[string]string{"group.consumer.heartbeat.interval.ms": "50"}),
	)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	for topic, partitions := range topics {
		require.NoError(t, c.CreateTopic(topic, partitions, nil))
	}
	return faulty{c}
}

func balancers() map[string]kgo.GroupOpt {
	return map[string]kgo.GroupOpt{
		"cooperative": kgo.Balancers(kgo.CooperativeStickyBalancer()), "eager": kgo.Balancers(kgo.RangeBalancer()), "server": kgo.ServerSideBalancer(),
	}
}

// Several goroutines of a handler may wait at once; the place comes back when
// the last of them is through.
func TestWait_SeveralGoroutinesOfOneHandler(t *testing.T) {
	virtually(t, []string{"order.placed:2"}, func(t *testing.T, k *kafkatest.Cluster) {
		place(t, k, 0, "a-0")
		place(t, k, 1, "a-1")
		var m meter
		done := make(chan string, 2)
		kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Concurrency: 1, Timeout: time.Second, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
			var all sync.WaitGroup
			for i := range 10 {
				all.Go(func() {
					for range 3 {
						if err := wherry.Wait(ctx, time.Now().Add(time.Duration(i)*time.Second)); err != nil {
							t.Error(err)
						}
					}
				})
			}
			all.Wait()
			m.begin()
			defer m.end()
			time.Sleep(900 * time.Millisecond)
			done <- o.ID
			return ctx.Err()
		})}})
		k.Sleep(t, 5*time.Minute)
		require.Len(t, done, 2)
		require.EqualValues(t, 1, m.most.Load())
		require.EqualValues(t, 2, sum(committed(t, k, "g", "order.placed")))
	})
}

// What a handler leaves behind in a wait does not cost the Consumer a place,
// nor give it one too many.
func TestWait_LeftBehindByAHandler(t *testing.T) {
	virtually(t, []string{"order.placed:4"}, func(t *testing.T, k *kafkatest.Cluster) {
		for p := range int32(4) {
			place(t, k, p, many("a", 0, 10)...)
		}
		var m meter
		kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Concurrency: 2, Order: wherry.ByKey, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
			go func() {
				time.Sleep(20 * time.Millisecond)
				_ = wherry.Wait(ctx, time.Now().Add(time.Second)) // the handler has returned
				_ = wherry.Wait(ctx, time.Now().Add(time.Second))
			}()
			if o.ID == "a-0" {
				go func() { _ = wherry.Wait(ctx, time.Now().Add(time.Second)) }() // it returns meanwhile
				time.Sleep(time.Millisecond)
				return nil
			}
			m.begin()
			defer m.end()
			time.Sleep(10 * time.Millisecond)
			return nil
		})}})
		k.Sleep(t, time.Minute)
		require.EqualValues(t, 40, sum(committed(t, k, "g", "order.placed")))
		require.EqualValues(t, 2, m.most.Load())
	})
}

// While a record waits, what it shares with its outputs stays what it was.
func TestWait_OfManyRecordsWithOutputsThatShareTheirBytes(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:2", "payment.made:1")
	place(t, k, 0, many("a", 0, 200)...)
	place(t, k, 1, many("b", 0, 200)...)
	again := wherry.Middleware(func(next wherry.Handler) wherry.Handler {
		return func(ctx context.Context, r *kgo.Record) error {
			for i := range 3 {
				if err := wherry.Publish(ctx, &kgo.Record{Topic: "payment.made", Key: r.Key, Value: r.Value}); err != nil {
					return err
				}
				if err := next(ctx, r); err == nil {
					return nil
				}
				if err := wherry.Wait(ctx, time.Now().Add(time.Duration(i)*time.Millisecond)); err != nil {
					return err
				}
			}
			return nil
		}
	})
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Order: wherry.Unordered, Policies: []wherry.Policy{again}, Handlers: []wherry.Route{{Topic: "order.placed", Handler: func(ctx context.Context, r *kgo.Record) error {
		if err := wherry.Publish(ctx, r, &kgo.Record{Topic: "payment.made", Key: r.Key, Value: r.Value}); err == nil {
			return errors.New("again")
		}
		return nil
	}}}})
	eventually(t, "all is committed", func() bool { return sum(committed(t, k, "g", "order.placed")) >= 400 })
}

func TestAwait_IsOverWhenTheChannelIs(t *testing.T) {
	virtually(t, []string{"order.placed:2"}, func(t *testing.T, k *kafkatest.Cluster) {
		place(t, k, 0, "a-0")
		place(t, k, 1, "a-1")
		h := newHands()
		kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Concurrency: 1, Handlers: h.route(), Drain: 10 * time.Millisecond})
		ch := make(chan struct{})
		h.next(t).does <- func(ctx context.Context) error { return wherry.Await(ctx, ch) }
		h.next(t).done()
		k.Sleep(t, 2*time.Hour)
		require.EqualValues(t, 1, sum(committed(t, k, "g", "order.placed")), "it has no limit, and gives its place away")
		close(ch)
		k.Sleep(t, time.Second)
		require.EqualValues(t, 2, sum(committed(t, k, "g", "order.placed")))
	})
}
