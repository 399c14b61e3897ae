package table_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/table"
)

// BenchmarkRestore restores 1,000,000 keys of 17 bytes with values of 300 over
// 8 partitions, beside a client that reads the same and keeps nothing.
func BenchmarkRestore(b *testing.B) {
	const keys, partitions = 1_000_000, 8
	k := compacted(b, partitions)
	cl := k.Client(b, kgo.MaxBufferedRecords(200_000), kgo.ProducerLinger(5*time.Millisecond), kgo.ProducerBatchCompression(kgo.NoCompression()))
	values := make([]byte, 1<<20)
	_, _ = rand.Read(values)
	for i := range keys {
		at := i * 7919 % (len(values) - 300)
		cl.Produce(b.Context(), &kgo.Record{Topic: "accounts", Key: fmt.Appendf(nil, "saga-%012d", i), Value: values[at : at+300]}, func(_ *kgo.Record, err error) {
			if err != nil {
				b.Error(err)
			}
		})
	}
	require.NoError(b, cl.Flush(b.Context()))

	b.Run("read only", func(b *testing.B) {
		for b.Loop() {
			require.Equal(b, keys, readOnly(b, k.Opts()))
		}
		b.ReportMetric(float64(keys*b.N)/b.Elapsed().Seconds(), "entries/s")
		b.ReportMetric(0, "ns/op")
	})
	b.Run("restore", func(b *testing.B) {
		lent := k.Client(b)
		var heap float64
		for b.Loop() {
			b.StopTimer()
			parts, before := newParts(partitions), heapInUse()
			b.StartTimer()
			require.NoError(b, table.Restore(b.Context(), lent, nil, "accounts", parts, quiet, nil))
			b.StopTimer()
			heap = heapInUse() - before
			found := 0
			for _, part := range parts {
				found += part.Len()
			}
			require.Equal(b, keys, found)
			b.StartTimer()
		}
		b.ReportMetric(float64(keys*b.N)/b.Elapsed().Seconds(), "entries/s")
		b.ReportMetric(heap/keys, "B/key")
		b.ReportMetric(0, "ns/op")
	})
}

func heapInUse() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// readOnly reads the topic to its end with a client as Restore's and returns
// how many records there were.
func readOnly(b *testing.B, opts []kgo.Opt) (n int) {
	ends := map[int32]int64{}
	cl, err := kgo.NewClient(append(opts, kgo.ConsumeTopics("accounts"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
	require.NoError(b, err)
	defer cl.Close()
	listed, err := kadm.NewClient(cl).ListEndOffsets(b.Context(), "accounts")
	require.NoError(b, err)
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	for len(ends) > 0 {
		fetches := cl.PollFetches(context.Background())
		require.NoError(b, fetches.Err())
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			if n += len(f.Records); len(f.Records) > 0 && f.Records[len(f.Records)-1].Offset+1 >= ends[f.Partition] {
				delete(ends, f.Partition)
			}
		})
	}
	return n
}
