package wherry_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// again calls next up to n times, with a wait between two.
func again(n int, wait time.Duration, failed func(error)) wherry.Middleware {
	return func(next wherry.Handler) wherry.Handler {
		return func(ctx context.Context, r *kgo.Record) error {
			for range n {
				err := next(ctx, r)
				if err == nil || wherry.Interrupted(ctx) {
					return err
				}
				failed(err)
				if err := wherry.Wait(ctx, time.Now().Add(wait)); err != nil {
					return err
				}
			}
			return nil
		}
	}
}

func TestTimeout_IsOfEachAttempt(t *testing.T) {
	virtually(t, []string{"order.placed:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		place(t, k, 0, "a-0")
		var took []time.Duration
		var causes, errs []error
		kafkatest.Run(t, &wherry.Consumer{
			Client: k.Client(t), Group: "g", Timeout: 10 * time.Second,
			Policies: []wherry.Policy{again(3, time.Minute, func(err error) { errs = append(errs, err) })},
			Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error {
				begin := time.Now()
				<-ctx.Done()
				took, causes = append(took, time.Since(begin)), append(causes, context.Cause(ctx))
				return ctx.Err()
			})},
		})
		k.Sleep(t, 10*time.Minute)
		require.Equal(t, []time.Duration{10 * time.Second, 10 * time.Second, 10 * time.Second}, took)
		for i := range causes {
			require.ErrorIs(t, causes[i], context.DeadlineExceeded)
			require.ErrorContains(t, causes[i], "Timeout of 10s")
			require.ErrorIs(t, errs[i], context.DeadlineExceeded, "the error does not say why")
		}
		require.EqualValues(t, 1, committed(t, k, "g", "order.placed")[0])
	})
}

// The time that an attempt waits does not count: not in the handler, not in
// several of its goroutines, and not while it waits for its place.
func TestTimeout_DoesNotCountWaits(t *testing.T) {
	virtually(t, []string{"order.placed:2"}, func(t *testing.T, k *kafkatest.Cluster) {
		place(t, k, 0, "a-0")
		place(t, k, 1, "a-1")
		out := make(chan error, 10)
		kafkatest.Run(t, &wherry.Consumer{
			Client: k.Client(t), Group: "g", Timeout: 10 * time.Second, Concurrency: 1,
			Policies: []wherry.Policy{again(1, 0, func(error) {})},
			Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error {
				for range 3 {
					time.Sleep(3 * time.Second)
					if err := wherry.Wait(ctx, time.Now().Add(time.Minute)); err != nil {
						out <- err
						return err
					}
				}
				out <- ctx.Err()
				begin := time.Now()
				<-ctx.Done()
				if took := time.Since(begin); took != time.Second {
					t.Errorf("of 10 s there were %v left", took)
				}
				return nil
			})},
		})
		k.Sleep(t, time.Hour)
		require.NoError(t, receive(t, out, "the first"))
		require.NoError(t, receive(t, out, "the second"))
	})
}

// The context of an attempt ends with it, also in time: what it was the parent
// of is let go.
func TestTimeout_TheContextEndsWithTheAttempt(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	place(t, k, 0, many("a", 0, 100)...)
	ctxs := make(chan context.Context, 100)
	stop := kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Timeout: time.Hour, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error {
		ctxs <- ctx
		return nil
	})}})
	for range 99 {
		ctx := receive(t, ctxs, "a record")
		<-ctx.Done()
	}
	require.NoError(t, stop())
}

// A handler that never returns holds up its own lane, and Status shows it.
func TestTimeout_AHandlerThatIgnoresItHoldsUpItsLaneAlone(t *testing.T) {
	for name, kind := range map[string]wherry.Order{"ByPartition": wherry.ByPartition, "ByKey": wherry.ByKey} {
		t.Run(name, func(t *testing.T) {
			virtually(t, []string{"order.placed:2"}, func(t *testing.T, k *kafkatest.Cluster) {
				place(t, k, 0, "a-0", "a-1", "b-2")
				place(t, k, 1, "a-0", "b-1")
				release := make(chan struct{})
				var handled atomic.Int32
				c := &wherry.Consumer{Client: k.Client(t), Group: "g", Order: kind, Timeout: time.Second, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error {
					r := wherry.RecordFrom(ctx)
					if r.Partition == 0 && r.Offset == 0 {
						<-release
					}
					handled.Add(1)
					return nil
				})}}
				kafkatest.Run(t, c)
				k.Sleep(t, time.Minute)
				first := c.Status().Partitions[0]
				require.Zero(t, first.Oldest)
				k.Sleep(t, time.Hour)
				want := map[string]int32{"ByPartition": 2, "ByKey": 3}[name]
				require.Equal(t, want, handled.Load())
				later := c.Status().Partitions
				require.Zero(t, later[0].Oldest)
				require.Equal(t, first.OldestSince, later[0].OldestSince)
				require.GreaterOrEqual(t, time.Since(later[0].OldestSince), time.Hour)
				require.Equal(t, 1, later[0].Running)
				require.EqualValues(t, -1, later[1].Oldest)
				require.True(t, later[1].OldestSince.IsZero())
				close(release)
				k.Sleep(t, time.Minute)
				require.EqualValues(t, 5, handled.Load())
			})
		})
	}
}

// A panic is an error with its stack; so is the end of the handler's goroutine,
// which keeps no place for itself.
func TestHandler_PanicsAndGoexitEndTheRunInTime(t *testing.T) {
	t.Parallel()
	batch := func(f func()) wherry.Route {
		return orderPlaced.Batch(func(context.Context, []wherry.Message[order]) []error { f(); return nil })
	}
	single := func(f func()) wherry.Route {
		return orderPlaced.Handler(func(context.Context, order) error { f(); return nil })
	}
	for name, route := range map[string]func(func()) wherry.Route{"handler": single, "batch": batch} {
		for how, f := range map[string]func(){"panic": func() { panic(errors.New("oh")) }, "Goexit": runtime.Goexit} {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				k := kafkatest.NewCluster(t, "order.placed:1")
				place(t, k, 0, "a-0", "a-1")
				end, _ := background(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Concurrency: 1, Handlers: []wherry.Route{route(f)}})
				err := receive(t, end, "the end")
				var e *wherry.RecordError
				require.ErrorAs(t, err, &e)
				require.Equal(t, wherry.CausePanic, e.Cause)
				require.NotContains(t, err.Error(), "still run", "a lane was not let go")
				if how == "panic" {
					require.Contains(t, e.Stack, "timeout_test.go")
					require.ErrorContains(t, err, "oh")
				}
				require.Zero(t, committed(t, k, "g", "order.placed")[0])
			})
		}
	}
}
