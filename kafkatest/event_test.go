package kafkatest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/kafkatest"
)

func TestSendReturnsTheAcknowledgedRecord(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	first := kafkatest.Send(t, k, orderPlaced, "o-1", order{ID: "o-1"})
	second := kafkatest.Send(t, k, orderPlaced, "o-2", order{ID: "o-2"})
	require.EqualValues(t, 0, first.Partition)
	require.Equal(t, first.Offset+1, second.Offset)
	require.False(t, first.Timestamp.IsZero())
}

func TestSendToATopicThatIsMissingSaysSo(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.paid")
	rec := record(t, func(t testing.TB) { kafkatest.Send(t, k, orderPlaced, "o-1", order{}) })
	require.True(t, rec.failed)
	require.Contains(t, rec.text, `topic "order.placed" does not exist: name it in NewCluster`)
}

func TestNextReturnsEachRecordOnceInTheOrderOfItsPartition(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed")
	const keys, each = 8, 5
	for n := range each {
		for key := range keys {
			id := fmt.Sprint("o-", key)
			kafkatest.Send(t, k, orderPlaced, id, order{ID: id, Amount: n})
		}
	}
	next := map[string]int{}
	for range keys * each {
		o := kafkatest.Next(t, k, orderPlaced)
		require.Equal(t, next[o.ID], o.Amount, "order within key %s", o.ID)
		next[o.ID]++
	}
	kafkatest.None(t, k, orderPlaced, 0)
}

func TestNextWaitsForARecordThatComesLater(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed", "order.paid")
	kafkatest.Run(t, billing(k.Client(t, kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("order.placed"))))
	kafkatest.Send(t, k, orderPlaced, "o-1", order{ID: "o-1", Amount: 7})
	require.Equal(t, 7, kafkatest.Next(t, k, orderPaid).Amount)
}

func TestNextReadsOnlyWhatIsCommitted(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	cl := k.Client(t, kgo.TransactionalID(t.Name()))
	ctx := t.Context()
	produce := func(id string, end kgo.TransactionEndTry) {
		require.NoError(t, cl.BeginTransaction())
		r, err := orderPlaced.Record(id, order{ID: id})
		require.NoError(t, err)
		require.NoError(t, cl.ProduceSync(ctx, r).FirstErr())
		require.NoError(t, cl.EndTransaction(ctx, end))
	}
	produce("aborted", kgo.TryAbort)
	produce("committed", kgo.TryCommit)
	require.Equal(t, "committed", kafkatest.Next(t, k, orderPlaced).ID)
	produce("aborted too", kgo.TryAbort)
	kafkatest.None(t, k, orderPlaced, 0)
}

func TestNextThatWaitsInVainTellsWhatIsOnTheCluster(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:2", "order.paid", "billing.dlq:1", "unused")
	kafkatest.Send(t, k, event[order]{"billing.dlq"}, "o-1", order{})
	kafkatest.Send(t, k, orderPaid, "o-1", order{})
	kafkatest.Send(t, k, orderPaid, "o-2", order{})
	kafkatest.Send(t, k, orderPlaced, "o-1", order{})
	kafkatest.Next(t, k, orderPlaced)
	k.Timeout = 50 * time.Millisecond
	rec := record(t, func(t testing.TB) { kafkatest.Next(t, k, orderPlaced) })
	require.True(t, rec.failed)
	require.Contains(t, rec.text, `no record on topic "order.placed" within 50ms: time is over`)
	require.Contains(t, rec.text, `records of "order.placed" read before in this test: 1`)
	require.Regexp(t, `end offsets of "order.placed": 0:[01] 1:[01]\n`, rec.text)
	require.Contains(t, rec.text, "other topics with records of this test (transaction markers count): billing.dlq 1, order.paid 2\n")
}

func TestNextThatWaitsInVainTellsOfAnOpenTransaction(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	cl := k.Client(t, kgo.TransactionalID(t.Name()))
	require.NoError(t, cl.BeginTransaction())
	r, err := orderPlaced.Record("o-1", order{})
	require.NoError(t, err)
	require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())
	k.Timeout = 50 * time.Millisecond
	rec := record(t, func(t testing.TB) { kafkatest.Next(t, k, orderPlaced) })
	require.Contains(t, rec.text, "order.placed/0: offsets from 0 on wait for a transaction that is still open")
	require.NoError(t, cl.EndTransaction(t.Context(), kgo.TryAbort))
}

func TestNextOnATopicThatIsMissingSaysSo(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	k.Timeout = 50 * time.Millisecond
	rec := record(t, func(t testing.TB) { kafkatest.Next(t, k, orderPlaced) })
	require.True(t, rec.failed)
	require.Contains(t, rec.text, `topic "order.placed" does not exist`)
	require.Contains(t, rec.text, "other topics with records of this test (transaction markers count): none")
}

func TestNextFailsOnARecordThatDoesNotDecode(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	value := append([]byte("<order/>"), make([]byte, 100)...)
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "order.placed", Key: []byte("o-1"), Value: value})
	rec := record(t, func(t testing.TB) { kafkatest.Next(t, k, orderPlaced) })
	require.True(t, rec.failed)
	require.Contains(t, rec.text, `decode order.placed/0@0 key "o-1" value "<order/>`)
	require.Contains(t, rec.text, "… (108 bytes): invalid character '<'")
}

func TestNoneFailsOnARecordThatIsThereOrComes(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1", "order.paid")
	kafkatest.Send(t, k, orderPlaced, "o-1", order{ID: "o-1", Amount: 3})
	rec := record(t, func(t testing.TB) { kafkatest.None(t, k, orderPlaced, 0) })
	require.True(t, rec.failed, "a record that is there counts even when no time is given")
	require.Contains(t, rec.text, `wanted no record on topic "order.placed" within 0s, got order.placed/0@0 key "o-1"`)
	require.Contains(t, rec.text, "decoded: {ID:o-1 Amount:3}")

	kafkatest.None(t, k, orderPaid, 0)
	cl := k.Client(t)
	rec = record(t, func(t testing.TB) {
		kafkatest.Run(t, kafkatest.RunFunc(func(ctx context.Context) error {
			return cl.ProduceSync(ctx, &kgo.Record{Topic: "order.paid"}).FirstErr()
		}))
		kafkatest.None(t, k, orderPaid, time.Minute)
	})
	require.True(t, rec.failed)
}

func TestNoneOnATopicThatIsMissingFails(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	rec := record(t, func(t testing.TB) { kafkatest.None(t, k, orderPlaced, 0) })
	require.True(t, rec.failed, "a misspelt topic must not pass")
	require.Contains(t, rec.text, "does not exist")
}
