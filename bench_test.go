package wherry_test

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// These benchmarks compare a Consumer with what one would write by hand on the
// same client, in one run: read the ratio, not the figures. docs/benchmarks.md
// has the results, and how to run them.

// BenchmarkConsume: a handler that does nothing.
func BenchmarkConsume(b *testing.B) {
	b.Run("plain", func(b *testing.B) {
		k := filled(b)
		b.ResetTimer()
		cl := k.Client(b, kgo.ConsumerGroup("plain"), kgo.ConsumeTopics("in"), kgo.DisableAutoCommit())
		handle := func(context.Context, *kgo.Record) error { return nil }
		for n := 0; n < b.N; {
			fetches := cl.PollFetches(b.Context())
			fetches.EachRecord(func(r *kgo.Record) {
				if err := handle(b.Context(), r); err != nil {
					b.Error(err)
				}
			})
			n += fetches.NumRecords()
			require.NoError(b, cl.CommitRecords(b.Context(), fetches.Records()...))
		}
		rate(b)
	})
	for _, c := range []struct {
		name     string
		order    wherry.Order
		policies []wherry.Policy
	}{
		{name: "wherry"},
		{name: "wherry ByKey", order: wherry.ByKey},
		{name: "wherry with Telemetry", policies: []wherry.Policy{wherry.Telemetry{}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			k := filled(b)
			counted, all := countdown(b.N)
			b.ResetTimer()
			kafkatest.Run(b, &wherry.Consumer{
				Client: k.Client(b), Group: "wherry", Order: c.order, Policies: c.policies,
				Handlers: []wherry.Route{{Topic: "in", Handler: func(context.Context, *kgo.Record) error { counted(); return nil }}},
			})
			<-all
			rate(b)
		})
	}
}

// BenchmarkByKey: a handler of 1 ms, 500 at once, records of a key in order.
func BenchmarkByKey(b *testing.B) {
	const workers = 500
	b.Run("plain", func(b *testing.B) { // goroutines that are fed by hand
		k := filled(b)
		counted, all := countdown(b.N)
		b.ResetTimer()
		cl := k.Client(b, kgo.ConsumerGroup("plain"), kgo.ConsumeTopics("in"), kgo.DisableAutoCommit())
		var feeds [workers]chan *kgo.Record
		var working sync.WaitGroup
		for i := range feeds {
			feeds[i] = make(chan *kgo.Record, 20)
			working.Go(func() {
				for range feeds[i] {
					time.Sleep(time.Millisecond)
					counted()
				}
			})
		}
		for n := 0; n < b.N; {
			fetches := cl.PollFetches(b.Context())
			n += fetches.NumRecords()
			fetches.EachRecord(func(r *kgo.Record) {
				h := fnv.New32a()
				_, _ = h.Write(r.Key)
				feeds[h.Sum32()%workers] <- r
			})
		}
		<-all
		rate(b)
		for _, feed := range feeds {
			close(feed)
		}
		working.Wait()
	})
	b.Run("wherry", func(b *testing.B) {
		k := filled(b)
		counted, all := countdown(b.N)
		b.ResetTimer()
		kafkatest.Run(b, &wherry.Consumer{
			Client: k.Client(b), Group: "wherry", Order: wherry.ByKey, Concurrency: workers,
			Handlers: []wherry.Route{{Topic: "in", Handler: func(context.Context, *kgo.Record) error {
				time.Sleep(time.Millisecond)
				counted()
				return nil
			}}},
		})
		<-all
		rate(b)
	})
}

// BenchmarkConsumePublish: one record out for each record in, all of them
// acknowledged before the offset is committed.
func BenchmarkConsumePublish(b *testing.B) {
	b.Run("plain", func(b *testing.B) {
		k := filled(b)
		b.ResetTimer()
		cl := k.Client(b, kgo.ConsumerGroup("plain"), kgo.ConsumeTopics("in"), kgo.DisableAutoCommit())
		for n := 0; n < b.N; {
			fetches := cl.PollFetches(b.Context())
			fetches.EachRecord(func(r *kgo.Record) {
				cl.Produce(b.Context(), &kgo.Record{Topic: "out", Key: r.Key, Value: r.Value}, func(_ *kgo.Record, err error) {
					if err != nil {
						b.Error(err)
					}
				})
			})
			require.NoError(b, cl.Flush(b.Context()))
			n += fetches.NumRecords()
			require.NoError(b, cl.CommitRecords(b.Context(), fetches.Records()...))
		}
		rate(b)
	})
	for _, order := range []wherry.Order{wherry.ByPartition, wherry.ByKey} {
		b.Run([]string{"wherry", "wherry ByKey"}[order], func(b *testing.B) {
			k := filled(b)
			b.ResetTimer()
			c := &wherry.Consumer{Client: k.Client(b), Group: "wherry", Order: order, Handlers: []wherry.Route{{Topic: "in", Handler: func(ctx context.Context, r *kgo.Record) error {
				return wherry.Publish(ctx, &kgo.Record{Topic: "out", Key: r.Key, Value: r.Value})
			}}}}
			kafkatest.Run(b, c)
			for done := int64(0); done < int64(b.N); {
				time.Sleep(time.Millisecond) // and not at once: the question costs
				done = 0
				for _, p := range c.Status().Partitions {
					done += p.Committed
				}
			}
			rate(b)
		})
	}
}

// rate reports records per second, and the CPU of this process for each.
func rate(b *testing.B) {
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(0, "ns/op")
}

// countdown returns a function that counts, and a channel that is closed at n.
func countdown(n int) (count func(), all <-chan struct{}) {
	var counted atomic.Int64
	done := make(chan struct{})
	return func() {
		if counted.Add(1) == int64(n) {
			close(done)
		}
	}, done
}

// filled returns a cluster whose topic "in" has b.N records of 100 bytes that
// do not compress, of 10,000 keys.
func filled(b *testing.B) *kafkatest.Cluster {
	k := kafkatest.NewCluster(b, "in", "out")
	cl := k.Client(b)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range b.N {
		value := make([]byte, 96, 100)
		for j := 0; j < len(value); j += 8 {
			binary.LittleEndian.PutUint64(value[j:], random.Uint64())
		}
		cl.Produce(b.Context(), &kgo.Record{Topic: "in", Key: strconv.AppendInt(nil, int64(i%10_000), 10), Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				b.Error(err)
			}
		})
	}
	require.NoError(b, cl.Flush(b.Context()))
	return k
}
