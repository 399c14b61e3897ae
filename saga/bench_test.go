package saga_test

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/saga"
)

// BenchmarkSagasLocal: sagas of three local steps that do nothing, engine and
// starters in one process, beside the least that the raw client needs for it.
// cpu-s/1000 is that of this process, with the embedded broker where it is that.
func BenchmarkSagasLocal(b *testing.B) {
	noop := func(context.Context, order) error { return nil }
	b.Run("by hand", func(b *testing.B) {
		k := kafkatest.NewCluster(b, "inbox:8", "state:8")
		var ended atomic.Int64
		byHand(b, k, []func(context.Context, order) error{noop, noop, noop}, &ended)
		cl := k.Client(b)
		measureSagas(b, func(prefix string, n int) { startByHand(b, cl, prefix, n, &ended) })
	})
	nothing := saga.Do(noop)
	refuse := saga.Do(func(context.Context, order) error { return wherry.Permanent(errors.New("no")) })
	for _, c := range []struct {
		name   string
		second saga.Action[order]
	}{{"done", nothing}, {"second refused", refuse}} {
		b.Run(c.name, func(b *testing.B) {
			k := kafkatest.NewCluster(b)
			e := &saga.Engine[order]{
				Client: k.Client(b), Topics: wherry.TopicSpec{Partitions: 8},
				Definitions: []saga.Definition[order]{{Name: "bench", Steps: []saga.Step[order]{
					{Name: "a", Do: nothing, Undo: nothing}, {Name: "b", Do: c.second, Undo: nothing}, {Name: "c", Do: nothing, NoUndo: true},
				}}},
			}
			kafkatest.Run(b, e)
			measureSagas(b, func(prefix string, n int) {
				startAll(b, e, prefix, n, order{}, func() int { return e.Status().Ended })
			})
		})
	}
}

// measureSagas runs b.N sagas after some to warm up.
func measureSagas(b *testing.B, run func(prefix string, n int)) {
	b.Helper()
	run("warm-", 20_000)
	var before, after syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &before))
	b.ResetTimer()
	run("o-", b.N)
	b.StopTimer()
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &after))
	cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sagas/s")
	b.ReportMetric(cpu.Seconds()/float64(b.N)*1000, "cpu-s/1000")
}
