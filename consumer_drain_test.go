package wherry_test

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// Guarantee "drain": after ctx is done no new record begins; those in hand get
// the drain time, and what finishes in it is committed with its outputs.
func TestDrain_WorkInHandIsFinishedAndCommitted(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1", "payment.made:1")
	for _, id := range []string{"a", "b", "c"} {
		kafkatest.Send(t, k, orderPlaced, id, order{ID: id})
	}
	began, goOn := make(chan string, 3), make(chan struct{})
	end, stop := background(t, &wherry.Consumer{
		Client: k.Client(t), Group: "g", Drain: patience,
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
			began <- o.ID
			<-goOn
			if ctx.Err() != nil {
				t.Error("the handler's context did not outlive Run's")
			}
			return paymentMade.Publish(ctx, o.ID, payment{OrderID: o.ID})
		})},
	})
	require.Equal(t, "a", receive(t, began, "a"))
	stop()
	select {
	case err := <-end:
		require.FailNow(t, "Run did not wait for the work in hand", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(goOn)
	require.NoError(t, receive(t, end, "the end"))
	require.Empty(t, began, "a record began after the end")
	require.EqualValues(t, 1, committed(t, k, "g", "order.placed")[0])
	require.Equal(t, "a", kafkatest.Next(t, k, paymentMade).OrderID)
}

// Guarantee "drain": what takes longer than the drain time is cut short, and a
// successor need not wait for the session timeout.
func TestDrain_ASuccessorStartsAtOnce(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	kafkatest.Send(t, k, orderPlaced, "a", order{ID: "a"})
	began := make(chan string, 1)
	end, stop := background(t, &wherry.Consumer{
		Client: k.Client(t), Group: "g", Drain: 100 * time.Millisecond,
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
			began <- o.ID
			<-ctx.Done()
			return context.Cause(ctx)
		})},
	})
	receive(t, began, "the first")
	seen := newRecorder()
	successor := &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)}}
	background(t, successor)
	stopped := time.Now()
	stop()
	require.NoError(t, receive(t, end, "the end"), "work that was cut short is not a failure")
	receive(t, seen.ch, "the successor to handle the record")
	took := time.Since(stopped)
	t.Logf("from the stop to the successor's handler: %v", took)
	require.Less(t, took, 20*time.Second, "the successor waited for the session timeout")
}

func TestDrain_AHandlerThatIgnoresItsContextIsNamed(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	kafkatest.Send(t, k, orderPlaced, "a", order{ID: "a"})
	began, goOn := make(chan string, 1), make(chan struct{})
	end, stop := background(t, &wherry.Consumer{
		Client: k.Client(t), Group: "g", Drain: 50 * time.Millisecond,
		Handlers: []wherry.Route{orderPlaced.Handler(func(_ context.Context, o order) error { began <- o.ID; <-goOn; return nil })},
	})
	receive(t, began, "the handler")
	stop()
	require.ErrorContains(t, receive(t, end, "the end"), "order.placed/0")
	close(goOn)
	require.Zero(t, committed(t, k, "g", "order.placed")[0])
}

// No goroutine is left after Run returned.
func TestDrain_LeavesNoGoroutine(t *testing.T) {
	k := kafkatest.NewCluster(t, "order.placed", "payment.made")
	cl := k.Client(t)
	for range 3 {
		for i := range 20 {
			kafkatest.Send(t, k, orderPlaced, ids(i), order{ID: ids(i)})
		}
		seen := newRecorder()
		stop := kafkatest.Run(t, &wherry.Consumer{Client: cl, Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
			if err := paymentMade.Publish(ctx, o.ID, payment{OrderID: o.ID}); err != nil {
				return err
			}
			_ = seen.handle(ctx, o)
			if o.ID == ids(0) {
				panic("this too")
			}
			return nil
		})}, Policies: []wherry.Policy{wherry.Middleware(func(next wherry.Handler) wherry.Handler {
			return func(ctx context.Context, r *kgo.Record) error { _ = next(ctx, r); return nil } // swallows the panic
		})}})
		receive(t, seen.ch, "a record")
		require.NoError(t, stop())
	}
	require.Eventually(t, func() bool {
		return !strings.Contains(stacks(), "wherry.(*run)") && !strings.Contains(stacks(), "internal/lane")
	}, patience, 10*time.Millisecond)
}

func stacks() string {
	buf := make([]byte, 4<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// A second Run is refused rather than shared.
func TestRun_OnlyOnce(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed")
	c := &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(newRecorder().handle)}}
	require.NoError(t, kafkatest.Run(t, c)())
	require.ErrorContains(t, c.Run(t.Context()), "make another one")
}
