package dlq_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/dlq"
)

// transact writes letters in a transaction and leaves it open.
func (b bench) transact(t *testing.T, id string, letters ...*dlq.Letter) *kgo.Client {
	t.Helper()
	tx := b.open(t, kgo.TransactionalID(id))
	require.NoError(t, tx.BeginTransaction())
	for _, l := range letters {
		r, err := l.Encode("dead")
		require.NoError(t, err)
		require.NoError(t, tx.ProduceSync(t.Context(), r).FirstErr())
	}
	return tx
}

func (b bench) end(t *testing.T, tx *kgo.Client, commit kgo.TransactionEndTry) {
	t.Helper()
	tx.PurgeTopicsFromProducing("never-used") // see docs/traps.md: EndTransaction may otherwise lose the transaction
	require.NoError(t, tx.EndTransaction(t.Context(), commit))
}

func (b bench) deleteTo(t testing.TB, topic string, partition int32, offset int64) {
	t.Helper()
	gone := kadm.Offsets{}
	gone.Add(kadm.Offset{Topic: topic, Partition: partition, At: offset})
	_, err := kadm.NewClient(b.cl).DeleteRecords(t.Context(), gone)
	require.NoError(t, err)
}

func TestReplay_ComesToTheEndOfAnyTopic(t *testing.T) {
	for name, row := range map[string]struct {
		write func(t *testing.T, b bench)
		want  []string
	}{
		"empty": {func(*testing.T, bench) {}, nil},
		"a committed transaction at the end": {func(t *testing.T, b bench) {
			b.buryN(t, 1)
			b.end(t, b.transact(t, "tx", letter(1)), kgo.TryCommit)
		}, []string{"k-0", "k-1"}},
		"an aborted transaction at the end": {func(t *testing.T, b bench) {
			b.buryN(t, 1)
			b.end(t, b.transact(t, "tx", letter(1)), kgo.TryAbort)
		}, []string{"k-0"}},
		"nothing but an aborted transaction": {func(t *testing.T, b bench) {
			b.end(t, b.transact(t, "tx", letter(1)), kgo.TryAbort)
		}, nil},
		"an open transaction at the end": {func(t *testing.T, b bench) {
			b.buryN(t, 1)
			tx := b.transact(t, "tx", letter(1))
			t.Cleanup(func() { _ = tx.EndTransaction(t.Context(), kgo.TryAbort) })
		}, []string{"k-0"}},
		"letters behind an open transaction": {func(t *testing.T, b bench) {
			tx := b.transact(t, "tx", letter(0))
			t.Cleanup(func() { _ = tx.EndTransaction(t.Context(), kgo.TryAbort) })
			b.bury(t, letter(1))
		}, nil},
		"all deleted": {func(t *testing.T, b bench) {
			b.buryN(t, 3)
			b.deleteTo(t, "dead", 0, 3)
		}, nil},
		"some deleted": {func(t *testing.T, b bench) {
			b.buryN(t, 3)
			b.deleteTo(t, "dead", 0, 2)
		}, []string{"k-2"}},
		"deleted up to an open transaction": {func(t *testing.T, b bench) {
			b.buryN(t, 3)
			tx := b.transact(t, "tx", letter(3))
			t.Cleanup(func() { _ = tx.EndTransaction(t.Context(), kgo.TryAbort) })
			b.deleteTo(t, "dead", 0, 3)
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			row.write(t, b)
			report := b.run(t)
			require.Equal(t, len(row.want), report.Replayed)
			require.Equal(t, row.want, b.keys(t, "orders"))
			require.Equal(t, len(row.want), b.run(t).Decided)
		})
	}
}

func TestReplay_ReadsAllPartitionsAlsoEmptyOnes(t *testing.T) {
	b := setup(t, "wide:12")
	cl := b.open(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := range 5 {
		r, err := letter(i).Encode("wide")
		require.NoError(t, err)
		r.Partition = int32(2 * i)
		require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())
	}
	require.Equal(t, 5, b.run(t, func(r *dlq.Replayer) { r.Topic = "wide" }).Replayed)
}

func TestReplay_PassesWhatIsDeletedWhileItReads(t *testing.T) {
	b := setup(t)
	for i := range 40 { // more than is fetched ahead
		b.bury(t, letter(i, func(l *dlq.Letter) { l.Value = incompressible(900_000) }))
	}
	deleted := false
	report := b.run(t, func(r *dlq.Replayer) {
		r.Action = dlq.Discard
		r.Select.Where = func(l *dlq.Letter) bool {
			if !deleted {
				deleted = true
				b.deleteTo(t, "dead", 0, 40)
			}
			return true
		}
	})
	require.NotZero(t, report.Discarded)
	require.Less(t, report.Discarded, 40)
}

func TestReplay_PassesWhatCompactionRemovedFromTheEnd(t *testing.T) {
	b := faulty(t)
	_, err := kadm.NewClient(b.cl).CreateTopic(t.Context(), 1, 1, map[string]*string{
		"cleanup.policy": kadm.StringPtr("compact"), "min.cleanable.dirty.ratio": kadm.StringPtr("0"), "delete.retention.ms": kadm.StringPtr("0"),
		"segment.bytes": kadm.StringPtr("14"), "min.compaction.lag.ms": kadm.StringPtr("0"),
	}, "compacted")
	require.NoError(t, err)
	r, err := letter(0).Encode("compacted")
	require.NoError(t, err)
	require.NoError(t, b.cl.ProduceSync(t.Context(), r).FirstErr())
	for range 3 {
		require.NoError(t, b.cl.ProduceSync(t.Context(), &kgo.Record{Topic: "compacted", Key: []byte("gone")}).FirstErr())
	}
	b.fake.Compact()
	report := b.run(t, func(r *dlq.Replayer) { r.Topic = "compacted" })
	require.Equal(t, 1, report.Replayed)
}

func TestReplay_ATopicThatIsDeletedWhileItIsReadIsAnError(t *testing.T) {
	b := setup(t)
	for i := range 40 {
		b.bury(t, letter(i, func(l *dlq.Letter) { l.Value = incompressible(900_000) }))
	}
	deleted := false
	report, err := b.replayer(func(r *dlq.Replayer) {
		r.Action = dlq.Discard
		r.Select.Where = func(l *dlq.Letter) bool {
			if !deleted {
				deleted = true
				_, err := kadm.NewClient(b.cl).DeleteTopics(t.Context(), "dead")
				require.NoError(t, err)
			}
			return true
		}
	}).Run(t.Context())
	require.Error(t, err)
	require.Contains(t, strings.ToLower(err.Error()), "dead")
	require.Less(t, report.Discarded, 40)
}

func TestReplay_SelectedOffsetsAloneAreRead(t *testing.T) {
	b := setup(t)
	b.buryN(t, 10)
	report := b.run(t, func(r *dlq.Replayer) {
		r.Select.Offsets = []dlq.Offsets{{0, 3, 5}, {0, 8, 0}, {7, 0, 0}}
	})
	require.Equal(t, []int{7, 4}, []int{report.Read, report.Replayed}, "from 3 on, as one range")
	require.Equal(t, []string{"k-3", "k-4", "k-8", "k-9"}, b.keys(t, "orders"))
}

func TestReplay_LimitEndsIt(t *testing.T) {
	b := setup(t)
	b.buryN(t, 10)
	for _, want := range []int{4, 4, 2, 0} {
		report := b.run(t, func(r *dlq.Replayer) { r.Select.Limit = 4 })
		require.Equal(t, []int{want, want}, []int{report.Selected, report.Replayed})
	}
}

func TestReplay_RateSpreadsCopiesEvenly(t *testing.T) {
	b := setup(t)
	b.buryN(t, 21)
	report := b.run(t, func(r *dlq.Replayer) { r.Rate = 40 })
	require.Equal(t, 21, report.Replayed)
	require.GreaterOrEqual(t, report.Took, 480*time.Millisecond) // 20 intervals of 25 ms, less what late timers make up for
	copies := b.content(t, "orders")
	for i := 8; i < len(copies); i++ { // 8 intervals, less what one transaction brings together
		require.GreaterOrEqual(t, copies[i].Timestamp.Sub(copies[i-8].Timestamp), 80*time.Millisecond, "no bursts")
	}
}
