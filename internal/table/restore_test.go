package table_test

import (
	"context"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/table"
	"github.com/wherry-go/wherry/kafkatest"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

var quiet = slog.New(slog.DiscardHandler)

// compacted starts a Kafka with the topic accounts.
func compacted(t testing.TB, partitions int) *kafkatest.Cluster {
	t.Helper()
	k := kafkatest.NewCluster(t)
	k.Create(t, kafkatest.Topic{Name: "accounts", Partitions: partitions, Config: map[string]string{"cleanup.policy": "compact", "retention.ms": "-1"}})
	return k
}

// manual opens a client that sends records where they say.
func manual(t testing.TB, k *kafkatest.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	return k.Client(t, append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
}

// write produces a record to a partition; no value is a tombstone.
func write(t testing.TB, cl *kgo.Client, partition int32, key string, value ...string) *kgo.Record {
	t.Helper()
	r := &kgo.Record{Topic: "accounts", Partition: partition, Key: []byte(key)}
	if len(value) > 0 {
		r.Value = []byte(value[0])
	}
	require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())
	return r
}

// transact runs writes in a transaction; what it returns decides it.
func transact(t testing.TB, k *kafkatest.Cluster, id string, writes func(cl *kgo.Client)) (end func(kgo.TransactionEndTry)) {
	t.Helper()
	cl := manual(t, k, kgo.TransactionalID(id))
	require.NoError(t, cl.BeginTransaction())
	writes(cl)
	return func(how kgo.TransactionEndTry) {
		require.NoError(t, cl.EndTransaction(t.Context(), how))
	}
}

func newParts(n int32) map[int32]*table.Part {
	parts := map[int32]*table.Part{}
	for p := range n {
		parts[p] = table.NewPart(nil)
	}
	return parts
}

func limited(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func restore(t testing.TB, k *kafkatest.Cluster, parts map[int32]*table.Part) {
	t.Helper()
	require.NoError(t, table.Restore(limited(t), k.Client(t), nil, "accounts", parts, quiet, nil))
}

func values(p *table.Part) map[string]string {
	all := map[string]string{}
	for key, e := range p.All() {
		all[key] = string(e.Value)
	}
	return all
}

func end(t testing.TB, k *kafkatest.Cluster, partition int32) int64 {
	t.Helper()
	ends, err := kadm.NewClient(k.Client(t)).ListEndOffsets(t.Context(), "accounts")
	require.NoError(t, err)
	return ends["accounts"][partition].Offset
}

func TestRestoreTakesInWhatTheLogsHave(t *testing.T) {
	t.Parallel()
	k := compacted(t, 3)
	cl := manual(t, k)
	write(t, cl, 0, "a", "1")
	write(t, cl, 0, "b", "2")
	write(t, cl, 0, "a", "3")
	write(t, cl, 1, "c", "4")
	write(t, cl, 1, "c")
	write(t, cl, 1, "never")
	r := &kgo.Record{Topic: "accounts", Partition: 1, Key: []byte(""), Value: []byte(""), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}, {Key: "n"}}}
	require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())

	parts := newParts(3)
	left := map[int32]int64{}
	require.NoError(t, table.Restore(limited(t), k.Client(t), nil, "accounts", parts, quiet, func(p int32, n int64) { left[p] = n }))
	require.Equal(t, map[string]string{"a": "3", "b": "2"}, values(parts[0]))
	require.Equal(t, map[string]string{"": ""}, values(parts[1]))
	require.Empty(t, values(parts[2]))
	require.Equal(t, map[int32]int64{0: 0, 1: 0, 2: 0}, left)
	for p, part := range parts {
		require.Equal(t, end(t, k, p), part.Next())
	}
	e, ok := parts[1].Get("")
	require.True(t, ok)
	require.Equal(t, table.Entry{Value: []byte{}, Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}, {Key: "n", Value: e.Headers[1].Value}}, Partition: 1, Offset: r.Offset, Millis: r.Timestamp.UnixMilli()}, e)
	require.Empty(t, e.Headers[1].Value)
}

func TestRestoreTailsOfTransactions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		write func(t *testing.T, k *kafkatest.Cluster)
		want  map[string]string
	}{
		{"nothing", func(*testing.T, *kafkatest.Cluster) {}, map[string]string{}},
		{"a commit's mark is last", func(t *testing.T, k *kafkatest.Cluster) {
			transact(t, k, "tx", func(cl *kgo.Client) { write(t, cl, 0, "a", "1") })(kgo.TryCommit)
		}, map[string]string{"a": "1"}},
		{"an abort's mark is last", func(t *testing.T, k *kafkatest.Cluster) {
			write(t, manual(t, k), 0, "a", "1")
			transact(t, k, "tx", func(cl *kgo.Client) { write(t, cl, 0, "a", "2") })(kgo.TryAbort)
		}, map[string]string{"a": "1"}},
		{"nothing but aborts", func(t *testing.T, k *kafkatest.Cluster) {
			for i := range 3 {
				transact(t, k, "tx"+strconv.Itoa(i), func(cl *kgo.Client) { write(t, cl, 0, "a", "2") })(kgo.TryAbort)
			}
		}, map[string]string{}},
		{"transactions that overlap", func(t *testing.T, k *kafkatest.Cluster) {
			one := transact(t, k, "one", func(cl *kgo.Client) { write(t, cl, 0, "a", "1") })
			two := transact(t, k, "two", func(cl *kgo.Client) { write(t, cl, 0, "b", "2") })
			write(t, manual(t, k), 0, "c", "3")
			two(kgo.TryAbort)
			one(kgo.TryCommit)
		}, map[string]string{"a": "1", "c": "3"}},
		{"a deletion that was aborted", func(t *testing.T, k *kafkatest.Cluster) {
			write(t, manual(t, k), 0, "a", "1")
			transact(t, k, "tx", func(cl *kgo.Client) { write(t, cl, 0, "a") })(kgo.TryAbort)
		}, map[string]string{"a": "1"}},
		{"a deletion that was committed", func(t *testing.T, k *kafkatest.Cluster) {
			write(t, manual(t, k), 0, "a", "1")
			transact(t, k, "tx", func(cl *kgo.Client) { write(t, cl, 0, "a") })(kgo.TryCommit)
		}, map[string]string{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			k := compacted(t, 1)
			test.write(t, k)
			parts := newParts(1)
			restore(t, k, parts)
			require.Equal(t, test.want, values(parts[0]))
			require.Equal(t, end(t, k, 0), parts[0].Next())
		})
	}
}
