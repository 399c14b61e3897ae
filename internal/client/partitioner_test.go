package client_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/client"
)

// inners are kgo's partitioners, each of another shape of optional methods.
func inners() map[string]func() kgo.Partitioner {
	return map[string]func() kgo.Partitioner{
		"uniform bytes, adaptive, kgo's default": func() kgo.Partitioner { return kgo.UniformBytesPartitioner(64<<10, true, true, nil) },
		"uniform bytes":                          func() kgo.Partitioner { return kgo.UniformBytesPartitioner(64<<10, false, true, nil) },
		"sticky key":                             func() kgo.Partitioner { return kgo.StickyKeyPartitioner(nil) },
		"sticky":                                 kgo.StickyPartitioner,
		"round robin":                            kgo.RoundRobinPartitioner,
		"manual":                                 kgo.ManualPartitioner,
		"least backup":                           kgo.LeastBackupPartitioner,
		"basic consistent": func() kgo.Partitioner {
			return kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
				return func(r *kgo.Record, n int) int { return len(r.Key) % n }
			})
		},
	}
}

const partitions = 7

func through(t *testing.T, c *kfake.Cluster, p kgo.Partitioner) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DisableClientMetrics(), kgo.RecordPartitioner(p))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

func TestAMarkIsHonouredWhateverTheInnerPartitioner(t *testing.T) {
	t.Parallel()
	c := broker(t, kfake.SeedTopics(partitions, "orders"))
	for name, inner := range inners() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := through(t, c, client.Partitioner(inner()))
			var sent []*kgo.Record
			for i := range 100 { // marked and unmarked, with and without a key, in turn
				r := &kgo.Record{Topic: "orders", Value: []byte("value")}
				if i%3 == 0 {
					r.Key = fmt.Append(nil, "key", i)
				}
				if i%2 == 0 {
					client.ToPartition(r, int32(i%partitions))
				}
				sent = append(sent, r)
			}
			require.NoError(t, cl.ProduceSync(context.Background(), sent...).FirstErr())
			for i, r := range sent {
				if i%2 == 0 {
					require.EqualValues(t, i%partitions, r.Partition, "record %d", i)
				}
			}
		})
	}
}

func TestUnmarkedRecordsGoWhereTheInnerPartitionerSendsThem(t *testing.T) {
	t.Parallel()
	c := broker(t, kfake.SeedTopics(partitions, "orders"))
	for name, inner := range inners() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			switch name {
			case "least backup", "sticky": // go by chance, whatever the key
				t.Skip("sends no key to a partition of its own")
			}
			send := func(cl *kgo.Client) (to []int32) {
				for i := range 100 {
					r := &kgo.Record{Topic: "orders", Key: fmt.Append(nil, "key", i), Partition: int32(i % partitions)}
					require.NoError(t, cl.ProduceSync(context.Background(), r).FirstErr())
					to = append(to, r.Partition)
				}
				return to
			}
			alone, wrapped := send(through(t, c, inner())), send(through(t, c, client.Partitioner(inner())))
			if name == "round robin" { // the first partition is by chance
				shift := (wrapped[0] - alone[0] + partitions) % partitions
				for i := range alone {
					alone[i] = (alone[i] + shift) % partitions
				}
			}
			require.Equal(t, alone, wrapped)
		})
	}
}

func TestAMarkBeyondThePartitionsFailsTheRecordAlone(t *testing.T) {
	t.Parallel()
	c := broker(t, kfake.SeedTopics(partitions, "orders"))
	for name, inner := range inners() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := through(t, c, client.Partitioner(inner()))
			for _, beyond := range []int32{partitions, -1, 1 << 30} {
				bad, good := &kgo.Record{Topic: "orders"}, &kgo.Record{Topic: "orders"}
				client.ToPartition(bad, beyond)
				client.ToPartition(good, 3)
				results := cl.ProduceSync(context.Background(), bad, good)
				for _, result := range results {
					if result.Record == bad {
						require.ErrorContains(t, result.Err, "partition")
					} else {
						require.NoError(t, result.Err)
					}
				}
			}
		})
	}
}

type traceKey struct{}

func TestToPartitionKeepsTheContextAndTheLastMarkCounts(t *testing.T) {
	t.Parallel()
	r := &kgo.Record{}
	_, marked := client.Marked(r)
	require.False(t, marked)

	r.Context = context.WithValue(context.Background(), traceKey{}, "trace")
	_, marked = client.Marked(r)
	require.False(t, marked)

	client.ToPartition(r, 5)
	client.ToPartition(r, 0)
	p, marked := client.Marked(r)
	require.True(t, marked)
	require.Zero(t, p)
	require.Equal(t, "trace", r.Context.Value(traceKey{}))
}
