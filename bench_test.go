package wherry_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// The two benchmarks below compare a Consumer with the plainest loop over the
// same client: run them with -bench, and read the ratio, not the figures.

// BenchmarkConsume: a handler that does nothing.
func BenchmarkConsume(b *testing.B) {
	b.Run("plain", func(b *testing.B) {
		k := filled(b)
		cl := k.Client(b, kgo.ConsumerGroup("plain"), kgo.ConsumeTopics("in"), kgo.DisableAutoCommit())
		b.ResetTimer()
		for n := 0; n < b.N; {
			fetches := cl.PollFetches(b.Context())
			n += fetches.NumRecords()
			require.NoError(b, cl.CommitRecords(b.Context(), fetches.Records()...))
		}
	})
	for name, policies := range map[string][]wherry.Policy{"wherry": nil, "wherry with telemetry": {wherry.Telemetry{}}} {
		b.Run(name, func(b *testing.B) {
			k := filled(b)
			var n atomic.Int64
			all := make(chan struct{})
			b.ResetTimer()
			kafkatest.Run(b, &wherry.Consumer{Client: k.Client(b), Group: "wherry", Policies: policies, Handlers: []wherry.Route{{Topic: "in", Handler: func(context.Context, *kgo.Record) error {
				if n.Add(1) == int64(b.N) {
					close(all)
				}
				return nil
			}}}})
			<-all
		})
	}
}

// BenchmarkConsumePublish: one record out for each record in, all of them
// acknowledged before the offset is committed.
func BenchmarkConsumePublish(b *testing.B) {
	b.Run("plain", func(b *testing.B) {
		k := filled(b)
		cl := k.Client(b, kgo.ConsumerGroup("plain"), kgo.ConsumeTopics("in"), kgo.DisableAutoCommit())
		b.ResetTimer()
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
	})
	b.Run("wherry", func(b *testing.B) {
		k := filled(b)
		b.ResetTimer()
		c := &wherry.Consumer{Client: k.Client(b), Group: "wherry", Handlers: []wherry.Route{{Topic: "in", Handler: func(ctx context.Context, r *kgo.Record) error {
			return wherry.Publish(ctx, &kgo.Record{Topic: "out", Key: r.Key, Value: r.Value})
		}}}}
		kafkatest.Run(b, c)
		for {
			var done int64
			for _, p := range c.Status().Partitions {
				done += p.Committed
			}
			if done >= int64(b.N) {
				return
			}
			time.Sleep(time.Millisecond) // and not at once: the question costs
		}
	})
}

// filled returns a cluster whose topic "in" has b.N records of 100 bytes.
func filled(b *testing.B) *kafkatest.Cluster {
	k := kafkatest.NewCluster(b, "in", "out")
	cl := k.Client(b)
	value := make([]byte, 100)
	for i := range b.N {
		cl.Produce(b.Context(), &kgo.Record{Topic: "in", Key: []byte(ids(i % 1000)), Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				b.Error(err)
			}
		})
	}
	require.NoError(b, cl.Flush(b.Context()))
	return k
}
