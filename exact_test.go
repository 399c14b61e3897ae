package wherry_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// readAll reads the records that a reader with read_committed sees of topic,
// from its start to its end, in the order of each partition.
func readAll(t *testing.T, k *kafkatest.Cluster, topic string) (all []*kgo.Record) {
	t.Helper()
	cl := k.Client(t, kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	ends, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), topic)
	require.NoError(t, err)
	left := map[int32]int64{}
	for p, end := range ends[topic] {
		if end.Offset > 0 {
			left[p] = end.Offset
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for len(left) > 0 {
		fs := cl.PollFetches(ctx)
		require.NoError(t, ctx.Err(), "reading %s: %v are left", topic, left)
		fs.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				all = append(all, r)
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return all
}

type count struct{ N int }

var (
	counts  = &wherry.OwnedTable[count]{Topic: "counts"}
	counted = wherry.Event[count]{Topic: "counted"}
)

// countOrders counts the orders of each key in a table and publishes each count.
func countOrders(ctx context.Context, _ order) error {
	key := string(wherry.RecordFrom(ctx).Key)
	c, _, err := counts.Get(ctx, key)
	if err != nil {
		return err
	}
	c.N++
	if err := counts.Put(ctx, key, c); err != nil {
		return err
	}
	return counted.Publish(ctx, key, c)
}

// requireCounts requires that each key was counted once up to n.
func requireCounts(t *testing.T, k *kafkatest.Cluster, keys, n int) {
	t.Helper()
	seen := map[string][]int{}
	for _, r := range readAll(t, k, counted.Topic) {
		v, err := counted.Decode(r)
		require.NoError(t, err)
		seen[string(r.Key)] = append(seen[string(r.Key)], v.N)
	}
	require.Len(t, seen, keys)
	for key, ns := range seen {
		want := make([]int, n)
		for i := range want {
			want[i] = i + 1
		}
		require.Equal(t, want, ns, key)
	}
}

func exactly(cl *kgo.Client, order wherry.Order) *wherry.Consumer {
	return &wherry.Consumer{
		Client: cl, Group: "g", Order: order, Delivery: wherry.ExactlyOnce,
		Tables:   []wherry.Owned{counts},
		Handlers: []wherry.Route{orderPlaced.Handler(countOrders)},
	}
}

func TestExactlyOnce_OutputsTablesAndOffsetsAreOneTransaction(t *testing.T) {
	t.Parallel()
	for _, o := range []wherry.Order{wherry.ByPartition, wherry.ByKey} {
		t.Run(fmt.Sprint(o), func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "order.placed:4", "counted:3")
			const keys, n = 20, 30
			for range n {
				for key := range keys {
					kafkatest.Send(t, k, orderPlaced, strconv.Itoa(key), order{ID: strconv.Itoa(key)})
				}
			}
			stop := kafkatest.Run(t, exactly(k.Client(t), o))
			require.Eventually(t, func() bool { return sum(committed(t, k, "g", "order.placed")) == keys*n }, patience, 10*time.Millisecond)
			require.NoError(t, stop())
			requireCounts(t, k, keys, n)
			for _, r := range readAll(t, k, "counts") {
				require.Contains(t, string(r.Value), `{"N":`)
			}

			// A successor goes on with the table.
			for key := range keys {
				kafkatest.Send(t, k, orderPlaced, strconv.Itoa(key), order{ID: strconv.Itoa(key)})
			}
			stop = kafkatest.Run(t, exactly(k.Client(t), o))
			require.Eventually(t, func() bool { return sum(committed(t, k, "g", "order.placed")) == keys*(n+1) }, patience, 10*time.Millisecond)
			require.NoError(t, stop())
			requireCounts(t, k, keys, n+1)
		})
	}
}

func TestExactlyOnce_AFailedAttemptLeavesNothing(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1", "counted:1")
	kafkatest.Send(t, k, orderPlaced, "a", order{ID: "bad"})
	c := exactly(k.Client(t), wherry.ByPartition)
	c.Handlers = []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
		return errors.Join(countOrders(ctx, o), errors.New("no"))
	})}
	end, _ := background(t, c)
	err := receive(t, end, "the end")
	require.ErrorContains(t, err, "no")
	require.Empty(t, readAll(t, k, "counted"))
	require.Empty(t, readAll(t, k, "counts"))
	require.Zero(t, sum(committed(t, k, "g", "order.placed")))
}

// Each partition has one name for producers, however often processes come and
// go, and no two groups have the same.
func TestExactlyOnce_NamesOfProducersAreBoundedAndTellGroupsApart(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	prefix := strings.ReplaceAll(strings.ToLower(t.Name()), "_", "")
	in, of := prefix+".b.t", prefix+".t"
	k.Create(t, kafkatest.Topic{Name: in, Partitions: 2}, kafkatest.Topic{Name: of, Partitions: 2}, kafkatest.Topic{Name: "copied", Partitions: 1})
	groups := map[string]string{prefix: in, prefix + "." + prefix + ".b": of} // joined by dots, both would come to one name
	for range 3 {
		for group, topic := range groups {
			c := &wherry.Consumer{
				Client: k.Client(t), Group: group, Delivery: wherry.ExactlyOnce, Order: wherry.ByKey,
				Handlers: []wherry.Route{{Topic: topic, Handler: func(ctx context.Context, r *kgo.Record) error {
					return wherry.Publish(ctx, &kgo.Record{Topic: "copied", Value: r.Value})
				}}},
			}
			stop := kafkatest.Run(t, c)
			before := sum(committed(t, k, group, topic))
			kafkatest.SendRecord(t, k, &kgo.Record{Topic: topic, Value: []byte("x")})
			require.Eventually(t, func() bool { return sum(committed(t, k, group, topic)) > before }, patience, 10*time.Millisecond)
			require.NoError(t, stop())
		}
	}
	all, err := kadm.NewClient(k.Client(t)).ListTransactions(t.Context(), nil, nil)
	require.NoError(t, err)
	var ids []string
	for _, id := range all.TransactionalIDs() {
		if strings.HasPrefix(id, prefix) {
			ids = append(ids, id)
		}
	}
	var want []string
	for group, topic := range groups {
		for p := range 2 {
			want = append(want, fmt.Sprintf("%s/%s/%d", group, topic, p))
		}
	}
	require.ElementsMatch(t, want, ids)
}
