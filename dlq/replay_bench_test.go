package dlq_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
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

// BenchmarkReplayOnce is a run over 200,000 letters of 200 bytes beside the
// plainest loop that copies them in transactions, which takes what a poll brings
// into one and marks nothing. Its copies are the letters as they are, or the
// records that failed. They take turns, so that what else the machine does is the
// same for all.
func BenchmarkReplayOnce(b *testing.B) {
	const n = 200_000
	k := setup(b, "orders:4", "dead:4")
	k.buryMany(b, n)
	took := map[string]time.Duration{}
	timed := func(what string, f func()) {
		begun := time.Now()
		f()
		took[what] += time.Since(begun)
	}
	for b.Loop() {
		timed("byhand", func() { k.copyByHand(b, n, false) })
		timed("wherry", func() {
			require.Equal(b, n, k.run(b).Replayed)
		})
		k.delete(b, dlq.LedgerTopic("dead"))
		timed("originals", func() { k.copyByHand(b, n, true) })
	}
	for what, d := range took {
		b.ReportMetric(float64(n)*float64(b.N)/d.Seconds(), what+"/s")
	}
	b.ReportMetric(took["byhand"].Seconds()/took["wherry"].Seconds(), "ratio")
	b.ReportMetric(took["originals"].Seconds()/took["wherry"].Seconds(), "ratio-to-originals")
}

// delete deletes a topic and returns when it is gone.
func (b bench) delete(t testing.TB, topic string) {
	t.Helper()
	adm := kadm.NewClient(b.cl)
	ctx := kadm.WithAuthorizedOps(t.Context())
	_, err := adm.DeleteTopics(ctx, topic)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		topics, err := adm.ListTopics(ctx, topic)
		return err == nil && topics.Error() != nil
	}, b.timeout, 10*time.Millisecond)
}

// buryMany writes n letters of 200 bytes.
func (b bench) buryMany(t testing.TB, n int) {
	t.Helper()
	value := incompressible(200)
	for i := 0; i < n; i += 1000 {
		letters := make([]*dlq.Letter, 1000)
		for j := range letters {
			letters[j] = letter(i+j, func(l *dlq.Letter) { l.Value, l.Headers = value, nil })
		}
		b.bury(t, letters...)
	}
}

func (b bench) copyByHand(t testing.TB, n int, original bool) {
	t.Helper()
	in := b.open(t, kgo.ConsumeTopics("dead"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer in.Close()
	out := b.open(t, kgo.TransactionalID("by-hand"), kgo.ProducerLinger(0))
	defer out.Close()
	var refused atomic.Pointer[error]
	for left := n; left > 0; {
		fetches := in.PollRecords(t.Context(), 5000)
		require.NoError(t, out.BeginTransaction())
		for r := range fetches.RecordsAll() {
			left--
			c := &kgo.Record{Topic: "orders", Key: r.Key, Value: r.Value, Headers: r.Headers}
			if original {
				l, err := dlq.Read(r)
				require.NoError(t, err)
				c = l.Original()
			}
			out.Produce(t.Context(), c, func(_ *kgo.Record, err error) {
				if err != nil {
					refused.CompareAndSwap(nil, &err)
				}
			})
		}
		require.NoError(t, out.Flush(t.Context()))
		require.Nil(t, refused.Load())
		require.NoError(t, out.EndTransaction(t.Context(), kgo.TryCommit))
	}
}

// BenchmarkReplayMillion is a run over 1,000,000 letters of 200 bytes, one that
// passes all of them over, and a list of what was decided. After each it says
// what is live in the heap at its end, before it returns, and most while it runs.
func BenchmarkReplayMillion(b *testing.B) {
	const n = 1_000_000
	k := setup(b, "orders:4", "dead:4")
	k.buryMany(b, n)
	live := func() float64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return float64(stats.HeapAlloc) / (1 << 20)
	}
	atEnd := 0.0
	before := live()
	last := func(r *dlq.Replayer) {
		seen := 0
		r.Select.Where = func(*dlq.Letter) bool {
			if seen++; seen == n {
				atEnd = live() - before
			}
			return true
		}
	}
	b.Run("replay", func(b *testing.B) {
		measured(b, n, func() { require.Equal(b, n, k.run(b, last).Replayed) })
		b.ReportMetric(atEnd, "MiB-live")
	})
	b.Run("pass over", func(b *testing.B) {
		measured(b, n, func() { require.Equal(b, n, k.run(b, last).Decided) })
		b.ReportMetric(atEnd, "MiB-live")
	})
	b.Run("list", func(b *testing.B) {
		measured(b, n, func() {
			decided := 0
			list := k.replayer(last)
			list.Select.Decided = true
			for e, err := range list.List(b.Context()) {
				require.NoError(b, err)
				if e.Decision != nil {
					decided++
				}
			}
			require.Equal(b, n, decided)
		})
		b.ReportMetric(atEnd, "MiB-live")
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
