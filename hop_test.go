package wherry_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// delay is a policy with a delay topic: a record of it is due when its header
// says, and stands for one of order.placed.
type delay struct {
	origin func(*kgo.Record) (*kgo.Record, error)
	due    func(*kgo.Record) time.Time
}

func (d delay) Prepare(s *wherry.Setup) error {
	hop := wherry.Hop{Topic: "delay", As: "order.placed", Due: dueHeader, Origin: func(r *kgo.Record) (*kgo.Record, error) {
		o := *r
		o.Topic, o.Headers = "order.placed", nil
		return &o, nil
	}}
	if d.origin != nil {
		hop.Origin = d.origin
	}
	if d.due != nil {
		hop.Due = d.due
	}
	s.Subscribe(hop)
	return nil
}

func (delay) Wrap(next wherry.Handler) wherry.Handler { return next }

func dueHeader(r *kgo.Record) time.Time {
	n, err := strconv.ParseInt(string(r.Headers[0].Value), 10, 64)
	if err != nil {
		panic(err)
	}
	return time.Unix(0, n)
}

// send produces a record to the delay topic.
func (delay) send(t *testing.T, k *kafkatest.Cluster, partition int32, id string, due time.Time) {
	t.Helper()
	cl := k.Client(t, kgo.RecordPartitioner(wherry.Partitioner(kgo.StickyKeyPartitioner(nil))))
	defer cl.Close()
	r, err := orderPlaced.Record(id[:1], order{ID: id})
	require.NoError(t, err)
	r.Topic, r.Headers = "delay", []kgo.RecordHeader{{Key: "due", Value: []byte(strconv.FormatInt(due.UnixNano(), 10))}}
	wherry.ToPartition(r, partition)
	require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())
}

// Guarantee "never early": a record of a hop is not handled before it is due.
// Those of a partition wait for each other; no MaxWait is in the way.
func TestHop_IsHandledWhenDueAndNeverBefore(t *testing.T) {
	for name, kind := range map[string]wherry.Order{"ByPartition": wherry.ByPartition, "ByKey": wherry.ByKey} {
		t.Run(name, func(t *testing.T) {
			virtually(t, []string{"order.placed:1", "delay:2"}, func(t *testing.T, k *kafkatest.Cluster) {
				type event struct {
					id   string
					late time.Duration
					hop  string
				}
				var mu sync.Mutex
				var seen []event
				c := &wherry.Consumer{Client: k.Client(t), Group: "g", Order: kind, MaxWait: time.Second, Policies: []wherry.Policy{delay{}}, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
					e := event{id: o.ID}
					if hop := wherry.HopFrom(ctx); hop != nil {
						e.hop, e.late = hop.Topic, time.Since(dueHeader(hop))
					}
					if r := wherry.RecordFrom(ctx); r.Topic != "order.placed" || len(r.Headers) > 0 {
						t.Error("the handler sees the record of the hop")
					}
					mu.Lock()
					defer mu.Unlock()
					seen = append(seen, e)
					return nil
				})}}
				kafkatest.Run(t, c)
				now := time.Now()
				delay{}.send(t, k, 0, "a-0", now.Add(time.Hour))
				delay{}.send(t, k, 0, "b-1", now.Add(time.Minute)) // behind a-0
				delay{}.send(t, k, 0, "c-2", now.Add(3*time.Hour))
				delay{}.send(t, k, 1, "d-3", now.Add(-time.Minute))
				delay{}.send(t, k, 1, "e-4", now.Add(2*time.Hour))
				place(t, k, 0, "f-5")
				ids := func() (ids []string) {
					mu.Lock()
					defer mu.Unlock()
					for _, e := range seen {
						ids = append(ids, e.id)
						if e.late < 0 {
							t.Errorf("%s is handled %v early", e.id, -e.late)
						}
						if (e.hop == "delay") != (e.id != "f-5") {
							t.Errorf("%s came by %q", e.id, e.hop)
						}
					}
					return ids
				}
				k.Sleep(t, 59*time.Minute)
				require.ElementsMatch(t, []string{"d-3", "f-5"}, ids())
				require.Equal(t, 3, c.Status().Partitions[0].Waiting)
				k.Sleep(t, 2*time.Minute)
				require.ElementsMatch(t, []string{"d-3", "f-5", "a-0", "b-1"}, ids())
				k.Sleep(t, time.Hour)
				require.ElementsMatch(t, []string{"d-3", "f-5", "a-0", "b-1", "e-4"}, ids())
				require.Equal(t, "e-4", seen[4].id)
				require.Zero(t, seen[4].late)
				k.Sleep(t, time.Hour)
				require.Len(t, ids(), 6)
				require.EqualValues(t, 3, committed(t, k, "g", "delay")[0])
				require.EqualValues(t, 2, committed(t, k, "g", "delay")[1])
			})
		})
	}
}

// An Origin that fails or panics, and a Due that panics, is the record's
// failure: policies see it as undecodable, and without one the run ends.
func TestHop_WhatCannotBeReadIsUndecodable(t *testing.T) {
	t.Parallel()
	own := &wherry.RecordError{Cause: wherry.CauseExpired, Err: errors.New("oh")}
	tests := map[string]struct {
		delay delay
		cause wherry.Cause
	}{
		"an error":         {delay{origin: func(*kgo.Record) (*kgo.Record, error) { return nil, errors.New("oh") }}, wherry.CauseUndecodable},
		"a cause":          {delay{origin: func(*kgo.Record) (*kgo.Record, error) { return nil, own }}, wherry.CauseExpired},
		"a panic":          {delay{origin: func(*kgo.Record) (*kgo.Record, error) { panic("oh") }}, wherry.CausePanic},
		"a panic in due":   {delay{due: func(*kgo.Record) time.Time { panic("oh") }}, ""},
		"nil, and no more": {delay{origin: func(*kgo.Record) (*kgo.Record, error) { return nil, nil }}, ""},
	}
	for name, test := range tests {
		for _, swallow := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " swallowed ", swallow), func(t *testing.T) {
				t.Parallel()
				k := kafkatest.NewCluster(t, "order.placed:1", "delay:1")
				test.delay.send(t, k, 0, "a-0", time.Now())
				errs, seen := make(chan error, 10), newRecorder()
				end, _ := background(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)}, Policies: []wherry.Policy{test.delay, wherry.Middleware(func(next wherry.Handler) wherry.Handler {
					return func(ctx context.Context, r *kgo.Record) error {
						err := next(ctx, r)
						errs <- err
						if swallow {
							return nil
						}
						return err
					}
				})}})
				err := receive(t, errs, "the outcome")
				if test.cause == "" && name != "nil, and no more" {
					require.NoError(t, err)
					require.Equal(t, "a-0", receive(t, seen.ch, "the record"))
					return
				}
				if name == "nil, and no more" {
					require.NoError(t, err)
					return
				}
				var e *wherry.RecordError
				require.ErrorAs(t, err, &e)
				require.Equal(t, test.cause, e.Cause)
				require.Empty(t, seen.ch)
				if swallow {
					eventually(t, "it is committed", func() bool { return committed(t, k, "g", "delay")[0] == 1 })
					return
				}
				require.ErrorAs(t, receive(t, end, "the end"), &e)
				require.Equal(t, "delay", e.Topic)
				require.Zero(t, committed(t, k, "g", "delay")[0])
			})
		}
	}
}

// A partition whose records are not due pauses at MaxHeld; the others go on.
func TestHop_APartitionOfManyThatWaitPausesAlone(t *testing.T) {
	virtually(t, []string{"order.placed:1", "delay:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		due := time.Now().Add(time.Hour)
		for i := range 30 {
			delay{}.send(t, k, 0, fmt.Sprintf("a-%d", i), due)
		}
		seen := newRecorder()
		c := &wherry.Consumer{Client: k.Client(t), Group: "g", MaxHeld: 10, Policies: []wherry.Policy{delay{}}, Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)}}
		kafkatest.Run(t, c)
		place(t, k, 0, "b-0")
		k.Sleep(t, time.Minute)
		s := c.Status().Partitions
		require.Equal(t, "delay", s[0].Topic)
		require.True(t, s[0].Paused)
		require.Equal(t, 10, s[0].Waiting)
		require.False(t, s[1].Paused)
		require.Equal(t, []string{"b-0"}, seen.all())
		k.Sleep(t, time.Hour)
		require.Len(t, seen.all(), 31)
		require.False(t, c.Status().Partitions[0].Paused)
		require.EqualValues(t, 30, committed(t, k, "g", "delay")[0])
	})
}

// What is not due is no work in hand: a drain does not wait for it, and neither
// does a rebalance, after which it is due when it was.
func TestHop_ADrainAndARebalanceDoNotWaitForIt(t *testing.T) {
	virtually(t, []string{"order.placed:1", "delay:2"}, func(t *testing.T, k *kafkatest.Cluster) {
		due := time.Now().Add(2 * time.Hour)
		delay{}.send(t, k, 0, "a-0", due)
		delay{}.send(t, k, 1, "b-1", due)
		var mu sync.Mutex
		seen := map[string]time.Time{}
		member := func() *wherry.Consumer {
			return &wherry.Consumer{Client: k.Client(t), Group: "g", Drain: 10 * time.Second, Policies: []wherry.Policy{delay{}}, Handlers: []wherry.Route{orderPlaced.Handler(func(_ context.Context, o order) error {
				mu.Lock()
				defer mu.Unlock()
				if _, twice := seen[o.ID]; twice {
					t.Error("twice", o.ID)
				}
				seen[o.ID] = time.Now()
				return nil
			})}}
		}
		first := member()
		stop := kafkatest.Run(t, first)
		k.Sleep(t, 30*time.Minute)
		second := member()
		kafkatest.Run(t, second)
		k.Sleep(t, 30*time.Minute)
		require.Len(t, first.Status().Partitions, 2)
		waiting := 0
		for _, p := range append(first.Status().Partitions, second.Status().Partitions...) {
			waiting += p.Waiting
		}
		require.Equal(t, 2, waiting)
		begin := time.Now()
		require.NoError(t, stop())
		require.Less(t, time.Since(begin), time.Second)
		k.Sleep(t, 30*time.Minute)
		require.Empty(t, seen)
		k.Sleep(t, time.Hour)
		require.Equal(t, map[string]time.Time{"a-0": due, "b-1": due}, map[string]time.Time{"a-0": seen["a-0"].Round(0), "b-1": seen["b-1"].Round(0)})
	})
}
