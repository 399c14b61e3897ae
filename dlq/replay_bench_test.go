package dlq_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/dlq"
)

// BenchmarkReplay is a run over 100,000 letters of 1 KiB beside the plainest
// loop that copies them. Read the ratio; the heap is the most that was in use
// while it ran, less what was before, which means something on a real broker
// only.
func BenchmarkReplay(b *testing.B) {
	const n = 100_000
	fill := func(b *testing.B) bench {
		k := setup(b)
		value := incompressible(1 << 10)
		for i := 0; i < n; i += 1000 {
			batch := make([]*dlq.Letter, 1000)
			for j := range batch {
				batch[j] = letter(i+j, func(l *dlq.Letter) { l.Value = value })
			}
			k.bury(b, batch...)
		}
		return k
	}
	b.Run("plain", func(b *testing.B) {
		k := fill(b)
		for b.Loop() {
			measured(b, n, func() {
				in := k.open(b, kgo.ConsumeTopics("dead"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
				for left := n; left > 0; {
					fetches := in.PollFetches(b.Context())
					for r := range fetches.RecordsAll() {
						left--
						k.cl.Produce(b.Context(), &kgo.Record{Topic: "orders", Key: r.Key, Value: r.Value, Headers: r.Headers}, func(_ *kgo.Record, err error) {
							if err != nil {
								b.Error(err)
							}
						})
					}
				}
				require.NoError(b, k.cl.Flush(b.Context()))
				in.Close()
			})
		}
	})
	b.Run("wherry", func(b *testing.B) {
		k := fill(b)
		for b.Loop() {
			measured(b, n, func() {
				require.Equal(b, n, k.run(b, func(r *dlq.Replayer) { r.Select.Decided = true }).Replayed)
			})
		}
	})
	b.Run("wherry, all decided", func(b *testing.B) {
		k := fill(b)
		require.Equal(b, n, k.run(b, func(r *dlq.Replayer) { r.Action = dlq.Discard }).Discarded)
		for b.Loop() {
			measured(b, n, func() { require.Equal(b, n, k.run(b).Decided) })
		}
	})
}

// measured reports how many letters a second f does, and the heap that it takes.
func measured(b *testing.B, n int, f func()) {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	before, most := stats.HeapAlloc, uint64(0)
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				runtime.ReadMemStats(&stats)
				most = max(most, stats.HeapAlloc)
			}
		}
	}()
	begun := time.Now()
	f()
	took := time.Since(begun)
	stop()
	<-ended
	b.ReportMetric(float64(n)/took.Seconds(), "letters/s")
	b.ReportMetric(float64(max(most, before)-before)/(1<<20), "MiB")
}
