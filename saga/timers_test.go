package saga_test

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
	"github.com/wherry-go/wherry/saga"
)

// measured collects what an Engine measures.
func measured(t testing.TB, r *metric.ManualReader) map[string]metricdata.Metrics {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, r.Collect(context.Background(), &all))
	found := map[string]metricdata.Metrics{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			found[m.Name] = m
		}
	}
	return found
}

func TestS18_TimersAreNeverEarlyAndTheirLatenessIsMeasured(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(3 * time.Minute)
		var l diary
		e := engine(t, k, trip(saga.Step[order]{
			Name: "a", Do: l.fail("a", errFailed, errFailed, nil), NoUndo: true,
			Retry: retry.Policy{Attempts: 5, Initial: time.Hour},
		}))
		e.Gate.After = -1 // all of them fail
		reader := metric.NewManualReader()
		e.MeterProvider = metric.NewMeterProvider(metric.WithReader(reader))
		kafkatest.Run(t, e)
		const n = 50
		for i := range n {
			require.NoError(t, e.Start(t.Context(), strconv.Itoa(i), order{}))
			k.Sleep(t, 700*time.Microsecond)
		}
		k.Sleep(t, 3*time.Hour+30*time.Minute)
		require.Equal(t, n, e.Status().Ended)
		for i := range n {
			at := l.timesOf(strconv.Itoa(i))
			require.Equal(t, []string{"a 1", "a 2", "a 3"}, l.of(strconv.Itoa(i)), "once each")
			for try, wait := range []time.Duration{time.Hour, 2 * time.Hour} {
				took := at[try+1].Sub(at[try])
				require.GreaterOrEqual(t, took, wait, "early")
				require.Less(t, took, wait+10*time.Second, "it is virtual time: only polls take some")
			}
		}
		late := measured(t, reader)["wherry.saga.timer.lateness"].Data.(metricdata.Histogram[float64]).DataPoints[0]
		require.EqualValues(t, 2*n, late.Count)
		least, ok := late.Min.Value()
		require.True(t, ok)
		require.GreaterOrEqual(t, least, 0.0)
	})
}

// Timers live in the state: they are due when they are due, whoever is there.
func TestS18_TimersOutliveTheirOwner(t *testing.T) {
	t.Parallel()
	for name, pause := range map[string]time.Duration{"before they are due": 30 * time.Minute, "after": 3 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
				k.WallLimit(3 * time.Minute)
				var l diary
				def := trip(saga.Step[order]{Name: "a", Do: l.fail("a", errFailed, nil), NoUndo: true, Retry: retry.Policy{Initial: time.Hour}})
				first := engine(t, k, def)
				stop := kafkatest.Run(t, first)
				require.NoError(t, first.Start(t.Context(), "o-1", order{}))
				k.Sleep(t, time.Minute)
				require.Equal(t, 1, first.Status().Timers)
				require.NoError(t, stop())
				k.Sleep(t, pause)
				kafkatest.Run(t, engine(t, k, def))
				k.Sleep(t, time.Hour)
				require.Equal(t, []string{"a 1", "a 2"}, l.of("o-1"))
				at := l.timesOf("o-1")
				require.GreaterOrEqual(t, at[1].Sub(at[0]), max(time.Hour, pause))
				require.Less(t, at[1].Sub(at[0]), max(time.Hour, pause+time.Minute)+20*time.Second)
			})
		})
	}
}

// A tick that is lost is sent again.
func TestS18_ATickThatIsLostComesAgain(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(3 * time.Minute)
		var l diary
		e := &saga.Engine[order]{
			Client:      k.Client(t, kgo.ClientID("engine"), kgo.RecordDeliveryTimeout(2*time.Second)),
			Definitions: []saga.Definition[order]{trip(saga.Step[order]{Name: "a", Do: l.fail("a", errFailed, nil), NoUndo: true, Retry: retry.Policy{Initial: time.Minute}})},
		}
		kafkatest.Run(t, e)
		require.NoError(t, e.Start(t.Context(), "o-1", order{}))
		k.Sleep(t, 30*time.Second)
		f := k.Drop(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "trip.saga.inbox", Count: 1 << 30})
		k.Sleep(t, time.Minute)
		require.Positive(t, f.Hits())
		require.Equal(t, []string{"a 1"}, l.of("o-1"))
		f.Remove()
		k.Sleep(t, time.Minute)
		require.Equal(t, []string{"a 1", "a 2"}, l.of("o-1"))
	})
}

// So many are due at one time that they do not fit into the client's buffer.
func TestS18_ManyTimersThatAreDueAtOnce(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(3 * time.Minute)
		var l diary
		e := &saga.Engine[order]{
			Client: k.Client(t, kgo.MaxBufferedRecords(20)), Gate: saga.Gate{After: -1},
			Definitions: []saga.Definition[order]{trip(saga.Step[order]{
				Name: "a", Do: l.fail("a", errFailed, nil), NoUndo: true, Retry: retry.Policy{Attempts: 5, Initial: time.Hour},
			})},
		}
		kafkatest.Run(t, e)
		const n = 500
		for i := range n {
			require.NoError(t, e.Start(t.Context(), strconv.Itoa(i), order{}))
		}
		k.Sleep(t, time.Hour+time.Minute)
		require.Equal(t, n, e.Status().Ended)
		for i := range n {
			at := l.timesOf(strconv.Itoa(i))
			require.Len(t, at, 2)
			require.Less(t, at[1].Sub(at[0]), time.Hour+7*time.Second, "it is virtual time: only polls take some")
		}
	})
}

// The time of an attempt at a local step, and of the whole saga.
func TestS18_TimeLimits(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(3 * time.Minute)
		var l diary
		hang := saga.Do(func(ctx context.Context, _ order) error {
			op, _ := saga.OpFrom(ctx)
			l.add(ctx, fmt.Sprint("hang ", op.Attempt))
			<-ctx.Done()
			return ctx.Err()
		})
		limited := trip(l.step("a"), saga.Step[order]{Name: "b", Do: hang, Undo: l.undo("b"), Timeout: 5 * time.Second})
		e := engine(t, k, limited)
		kafkatest.Run(t, e)
		require.NoError(t, e.Start(t.Context(), "o-1", order{}))
		k.Sleep(t, time.Minute)
		require.Equal(t, []string{"a", "hang 1", "undo b", "undo a"}, l.of("o-1"), "an unknown outcome is undone too")
		require.Equal(t, saga.Undone, lastOf(t, k, "trip")["o-1"].Phase)

		whole := trip(l.step("a"), saga.Step[order]{Name: "b", Do: l.fail("b", errFailed), Undo: l.undo("b"), Retry: retry.Policy{Attempts: retry.Forever, Initial: 20 * time.Minute}})
		whole.Name, whole.Deadline = "whole", time.Hour
		e = engine(t, k, whole)
		kafkatest.Run(t, e)
		require.NoError(t, e.Start(t.Context(), "o-2", order{}))
		k.Sleep(t, 2*time.Hour)
		got := l.of("o-2")
		require.Equal(t, "undo a", got[len(got)-1])
		require.Equal(t, saga.Undone, lastOf(t, k, "whole")["o-2"].Phase)
	})
}

// An undo is tried for ever, and the operators are told.
func TestS9_AnUndoThatFailsIsTriedForEverAndTold(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(3 * time.Minute)
		var l diary
		var works atomic.Bool
		def := trip(
			saga.Step[order]{Name: "a", Do: l.do("a"), Undo: saga.Do(func(context.Context, order) error {
				if works.Load() {
					return nil
				}
				return errFailed
			})},
			saga.Step[order]{Name: "b", Do: l.fail("b", errRefused), NoUndo: true, Retry: once},
		)
		e := engine(t, k, def)
		stuck := make(chan saga.Stuck, 10)
		e.OnStuck = func(_ context.Context, s saga.Stuck) { stuck <- s; panic("and it panics") }
		kafkatest.Run(t, e)
		began := time.Now()
		require.NoError(t, e.Start(t.Context(), "o-1", order{}))
		k.Sleep(t, time.Hour)
		require.Len(t, stuck, 1)
		it := <-stuck
		require.Equal(t, "a", it.Step)
		require.Equal(t, "not now", it.Err)
		require.WithinDuration(t, began, it.Since, time.Minute)
		require.True(t, lastOf(t, k, "trip")["o-1"].Stuck)
		works.Store(true)
		k.Sleep(t, 2*time.Minute)
		require.Equal(t, saga.Undone, lastOf(t, k, "trip")["o-1"].Phase)
	})
}
