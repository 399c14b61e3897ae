package wherry_test

import (
	"context"
	"encoding/binary"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// byHand is the loop that one writes by hand for exactly once: correct in that
// it commits nothing when a record was not produced, and tuned.
func byHand(ctx context.Context, b *testing.B, k *kafkatest.Cluster, id string, progress func(n int)) {
	cl := k.Client(b)
	s, err := kgo.NewGroupTransactSession(append(slices.Clone(cl.Opts()),
		kgo.ConsumerGroup(id), kgo.ConsumeTopics("in"), kgo.TransactionalID(id),
		kgo.ProducerLinger(0), kgo.MetadataMinAge(50*time.Millisecond), kgo.ConcurrentTransactionsBackoff(2*time.Millisecond),
		kgo.FetchMinBytes(1), kgo.FetchMaxWait(500*time.Millisecond), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.TransactionTimeout(10*time.Second),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)...)
	require.NoError(b, err)
	defer s.Close()
	var ended time.Time
	for {
		time.Sleep(2*time.Millisecond - time.Since(ended))
		fetches := s.PollRecords(ctx, 2000)
		if ctx.Err() != nil {
			return
		}
		if fetches.NumRecords() == 0 {
			continue
		}
		require.NoError(b, s.Begin())
		var failed atomic.Bool
		fetches.EachRecord(func(r *kgo.Record) {
			s.Produce(ctx, &kgo.Record{Topic: "out", Key: r.Key, Value: r.Value}, func(_ *kgo.Record, err error) {
				if err != nil {
					failed.Store(true)
				}
			})
		})
		require.NoError(b, s.Client().Flush(ctx))
		ok, err := s.End(context.WithoutCancel(ctx), kgo.TransactionEndTry(!failed.Load()))
		require.NoError(b, err)
		ended = time.Now()
		if ok {
			progress(fetches.NumRecords())
		}
	}
}

func exactCopy(b *testing.B, k *kafkatest.Cluster, order wherry.Order) *wherry.Consumer {
	return &wherry.Consumer{
		Client: k.Client(b), Group: "wherry", Order: order, Delivery: wherry.ExactlyOnce,
		Handlers: []wherry.Route{{Topic: "in", Handler: func(ctx context.Context, r *kgo.Record) error {
			return wherry.Publish(ctx, &kgo.Record{Topic: "out", Key: r.Key, Value: r.Value})
		}}},
	}
}

// BenchmarkExactlyOnce: one record out for each in, in transactions.
func BenchmarkExactlyOnce(b *testing.B) {
	b.Run("by hand", func(b *testing.B) {
		k := filled(b)
		ctx, stop := context.WithCancel(b.Context())
		b.ResetTimer()
		done := 0
		byHand(ctx, b, k, "hand", func(n int) {
			if done += n; done >= b.N {
				rate(b)
				stop()
			}
		})
	})
	for _, order := range []wherry.Order{wherry.ByPartition, wherry.ByKey} {
		b.Run([]string{"wherry", "wherry ByKey"}[order], func(b *testing.B) {
			k := filled(b)
			b.ResetTimer()
			c := exactCopy(b, k, order)
			kafkatest.Run(b, c)
			// Offsets also count the marks of transactions, of which "in" has none.
			for done := int64(0); done < int64(b.N); {
				time.Sleep(time.Millisecond)
				done = 0
				for _, p := range c.Status().Partitions {
					done += p.Committed
				}
			}
			rate(b)
		})
	}
}

// BenchmarkExactlyOnceLatency: 100 records a second, from the moment that one
// is produced until a reader with read_committed has its output.
func BenchmarkExactlyOnceLatency(b *testing.B) {
	measure := func(b *testing.B, run func(ctx context.Context, k *kafkatest.Cluster)) {
		k := kafkatest.NewCluster(b, "in", "out")
		ctx, stop := context.WithCancel(b.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); run(ctx, k) }()
		reader := k.Client(b, kgo.ConsumeTopics("out"), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
			kgo.FetchMaxWait(500*time.Millisecond), kgo.MetadataMinAge(50*time.Millisecond))
		writer := k.Client(b, kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
		const warm = 300
		n := b.N + warm
		go func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for range n {
				<-tick.C
				value := binary.LittleEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))
				writer.Produce(ctx, &kgo.Record{Topic: "in", Value: append(value, make([]byte, 92)...)}, nil)
			}
		}()
		var took []time.Duration
		for len(took) < n {
			reader.PollFetches(b.Context()).EachRecord(func(r *kgo.Record) {
				took = append(took, time.Duration(time.Now().UnixNano()-int64(binary.LittleEndian.Uint64(r.Value))))
			})
		}
		b.StopTimer()
		took = took[warm:]
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
		b.ReportMetric(0, "ns/op")
		stop()
		<-ended
	}
	b.Run("by hand", func(b *testing.B) {
		measure(b, func(ctx context.Context, k *kafkatest.Cluster) { byHand(ctx, b, k, "hand", func(int) {}) })
	})
	b.Run("wherry", func(b *testing.B) {
		measure(b, func(ctx context.Context, k *kafkatest.Cluster) {
			require.NoError(b, exactCopy(b, k, wherry.ByPartition).Run(ctx))
		})
	})
}
