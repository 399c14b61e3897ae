package kafkatest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/kafkatest"
)

// worker is a Runner that says when it is ready.
type worker struct {
	ready chan struct{}
	run   func(ctx context.Context, ready func()) error
}

func newWorker(run func(ctx context.Context, ready func()) error) *worker {
	return &worker{make(chan struct{}), run}
}

func (w *worker) Ready() <-chan struct{}        { return w.ready }
func (w *worker) Run(ctx context.Context) error { return w.run(ctx, func() { close(w.ready) }) }

func TestRunWaitsUntilReadyAndEndsWithTheTest(t *testing.T) {
	t.Parallel()
	var begun, ended bool
	rec := record(t, func(t testing.TB) {
		kafkatest.Run(t, newWorker(func(ctx context.Context, ready func()) error {
			begun = true
			ready()
			<-ctx.Done()
			ended = true
			return nil
		}))
		require.True(t, begun)
		require.False(t, ended)
	})
	require.False(t, rec.failed, rec.text)
	require.True(t, ended)
}

func TestRunnersEndBeforeWhatWasThereBeforeThem(t *testing.T) {
	t.Parallel()
	var order []string
	rec := record(t, func(t testing.TB) {
		for _, name := range []string{"first", "second"} {
			kafkatest.Run(t, kafkatest.RunFunc(func(ctx context.Context) error {
				<-ctx.Done()
				order = append(order, name)
				return nil
			}))
		}
	})
	require.False(t, rec.failed, rec.text)
	require.Equal(t, []string{"second", "first"}, order)
}

func TestRunReportsAnErrorOfTheEnd(t *testing.T) {
	t.Parallel()
	drain := errors.New("two records are lost")
	rec := record(t, func(t testing.TB) {
		kafkatest.Run(t, kafkatest.RunFunc(func(ctx context.Context) error { <-ctx.Done(); return drain }))
	})
	require.True(t, rec.failed)
	require.Contains(t, rec.text, "kafkatest.RunFunc, stopped: two records are lost")

	rec = record(t, func(t testing.TB) {
		kafkatest.Run(t, kafkatest.RunFunc(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }))
	})
	require.False(t, rec.failed, "the context's own error is an ordinary end: %s", rec.text)
}

func TestStopReturnsTheErrorAndLeavesItToTheCaller(t *testing.T) {
	t.Parallel()
	drain := errors.New("two records are lost")
	rec := record(t, func(t testing.TB) {
		stop := kafkatest.Run(t, kafkatest.RunFunc(func(ctx context.Context) error { <-ctx.Done(); return drain }))
		require.ErrorIs(t, stop(), drain)
		require.ErrorIs(t, stop(), drain)
	})
	require.False(t, rec.failed, rec.text)
}

func TestARunnerThatFailsEndsANextThatWaits(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed")
	k.Timeout = time.Minute
	fail := make(chan struct{})
	begin := time.Now()
	rec := record(t, func(t testing.TB) {
		kafkatest.Run(t, kafkatest.RunFunc(func(context.Context) error { <-fail; return errors.New("no such table") }))
		time.AfterFunc(20*time.Millisecond, func() { close(fail) })
		kafkatest.Next(t, k, orderPlaced)
	})
	require.True(t, rec.failed)
	require.Contains(t, rec.text, "kafkatest: kafkatest.RunFunc ended with an error: no such table")
	require.Contains(t, rec.text, `no record on topic "order.placed" within 1m0s: kafkatest.RunFunc ended with an error`)
	require.Less(t, time.Since(begin), 30*time.Second)

	kafkatest.Send(t, k, orderPlaced, "o-1", order{})
	kafkatest.Next(t, k, orderPlaced) // the failure concerned the recorded test alone
}

func TestARunnerThatEndsBeforeItIsReadyFailsTheTest(t *testing.T) {
	t.Parallel()
	rec := record(t, func(t testing.TB) {
		kafkatest.Run(t, newWorker(func(context.Context, func()) error { return errors.New("no such topic") }))
		t.Logf("unreachable")
	})
	require.True(t, rec.failed)
	require.Contains(t, rec.text, "*kafkatest_test.worker ended before it was ready: no such topic")
	require.NotContains(t, rec.text, "unreachable")
}

func TestARunnerMayEndEarlyWithNil(t *testing.T) {
	t.Parallel()
	rec := record(t, func(t testing.TB) {
		stop := kafkatest.Run(t, kafkatest.RunFunc(func(context.Context) error { return nil }))
		require.NoError(t, stop())
	})
	require.False(t, rec.failed, rec.text)
}
