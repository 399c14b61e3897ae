package saga_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/saga"
)

// BenchmarkSagasLocal: sagas of three local steps that do nothing, engine and
// starters in one process. cpu-s/1000 is that of this process, with the embedded
// broker where it is that.
func BenchmarkSagasLocal(b *testing.B) {
	nothing := saga.Do(func(context.Context, order) error { return nil })
	refuse := saga.Do(func(context.Context, order) error { return wherry.Permanent(errors.New("no")) })
	for name, second := range map[string]saga.Action[order]{"done": nothing, "second refused": refuse} {
		b.Run(name, func(b *testing.B) {
			k := kafkatest.NewCluster(b)
			cl := k.Client(b)
			e := &saga.Engine[order]{
				Client: cl, Topics: wherry.TopicSpec{Partitions: 8},
				Definitions: []saga.Definition[order]{{Name: "bench", Steps: []saga.Step[order]{
					{Name: "a", Do: nothing, Undo: nothing}, {Name: "b", Do: second, Undo: nothing}, {Name: "c", Do: nothing, NoUndo: true},
				}}},
			}
			kafkatest.Run(b, e)
			run := func(prefix string, n int) {
				var starters sync.WaitGroup
				const many = 4000
				before := e.Status().Ended
				for i := range many {
					starters.Go(func() {
						for j := i; j < n; j += many {
							if err := e.Start(b.Context(), prefix+strconv.Itoa(j), order{Total: j}); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				starters.Wait()
				for e.Status().Ended < before+n {
					time.Sleep(time.Millisecond)
				}
			}
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
		})
	}
}
