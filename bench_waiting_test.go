package wherry_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
)

// BenchmarkWaitingKeys: the memory of 100,000 keys whose records failed once
// and wait for their second attempt, after all have begun to and again after
// 100,000 further records went past them.
func BenchmarkWaitingKeys(b *testing.B) {
	const waiting, others = 100_000, 20_000
	for range b.N {
		k := kafkatest.NewCluster(b, "in")
		cl := k.Client(b)
		send := func(n int, prefix string) {
			for i := range n {
				r := &kgo.Record{Topic: "in", Key: []byte(prefix + strconv.Itoa(i)), Value: make([]byte, 100)}
				cl.Produce(b.Context(), r, func(_ *kgo.Record, err error) {
					if err != nil {
						b.Error(err)
					}
				})
			}
			require.NoError(b, cl.Flush(b.Context()))
		}
		send(waiting, "w")
		c := &wherry.Consumer{
			Client: k.Client(b), Group: "waiting", Order: wherry.ByKey, MaxHeld: 2 * waiting, MaxWait: 2 * time.Hour,
			Policies: []wherry.Policy{retry.Policy{Attempts: 2, Initial: time.Hour}},
			Logger:   quiet,
			Handlers: []wherry.Route{{Topic: "in", Handler: func(_ context.Context, r *kgo.Record) error {
				if r.Key[0] == 'w' {
					return errBench
				}
				return nil
			}}},
		}
		before := memory()
		stop := kafkatest.Run(b, c)
		sum := func(of func(wherry.PartitionStatus) int) (n int) {
			for _, p := range c.Status().Partitions {
				n += of(p)
			}
			return n
		}
		state := func() (n, held int) {
			return sum(func(p wherry.PartitionStatus) int { return p.Waiting }), sum(func(p wherry.PartitionStatus) int { return p.Held })
		}
		await(b, func() bool { n, _ := state(); return n == waiting })
		b.ReportMetric(float64(memory()-before)/waiting, "B/key")
		for range 5 {
			send(others, "o")
			await(b, func() bool { _, held := state(); return held == waiting })
		}
		b.ReportMetric(float64(memory()-before)/waiting, "B/key-later")
		b.ReportMetric(0, "ns/op")
		require.NoError(b, stop())
	}
}

var (
	quiet    = slog.New(slog.DiscardHandler)
	errBench = errors.New("not yet")
)

// memory is what the heap and the stacks hold.
func memory() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

func await(b *testing.B, done func() bool) {
	for begun := time.Now(); !done(); time.Sleep(20 * time.Millisecond) {
		require.Less(b, time.Since(begun), 2*time.Minute)
	}
}
