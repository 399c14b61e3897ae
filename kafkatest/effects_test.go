package kafkatest_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/kafkatest"
)

// rec is a record of topic/partition@offset; its id is its value.
func rec(topic string, partition int32, offset int64, key, id string) *kgo.Record {
	return &kgo.Record{
		Topic: topic, Partition: partition, Offset: offset, Key: []byte(key), Value: []byte(id),
		Timestamp: time.Date(2026, 1, 2, 3, 4, 5, int(offset)*int(time.Millisecond), time.UTC),
	}
}

func byValue(r *kgo.Record) string { return string(r.Value) }

func TestEffects_Check(t *testing.T) {
	t.Parallel()
	type records = []*kgo.Record
	pay := kafkatest.Effects{Inputs: []string{"in"}, Outputs: []string{"out"}, ID: byValue}
	with := func(edit func(*kafkatest.Effects)) kafkatest.Effects {
		e := pay
		edit(&e)
		return e
	}
	two := with(func(e *kafkatest.Effects) { e.Outputs = []string{"out", "log"} })
	dead := with(func(e *kafkatest.Effects) { e.Instead = []string{"dead"} })
	byKey := with(func(e *kafkatest.Effects) { e.ID = nil })
	some := with(func(e *kafkatest.Effects) {
		e.Want = func(in *kgo.Record) []string {
			if in.Offset%2 == 1 {
				return nil
			}
			return []string{"out", "out", "log"}
		}
	})
	for _, test := range []struct {
		name    string
		effects kafkatest.Effects
		records records
		want    []string // parts of the report; none: no error
	}{
		{"each has one", pay, records{rec("in", 0, 0, "k", "a"), rec("in", 0, 1, "k", "b"), rec("out", 0, 0, "k", "a"), rec("out", 0, 1, "k", "b")}, nil},
		{"nothing there", pay, nil, nil},
		{
			"missing", pay,
			records{rec("in", 0, 7, "k", "a"), rec("in", 0, 8, "k", "b"), rec("out", 0, 0, "k", "b")},
			[]string{"1 of 2 inputs", "1 missing", `missing: in/0@7 (key "k", 03:04:05.007) has no output in out`},
		},
		{
			"doubled", pay,
			records{rec("in", 0, 0, "k", "a"), rec("out", 0, 3, "k", "a"), rec("out", 1, 40, "k", "a")},
			[]string{"0 of 1 inputs", `doubled: in/0@0 (key "k", 03:04:05.000) has 2 outputs in out in place of 1: out/0@3 (key "k", 03:04:05.003), and 37ms later out/1@40`},
		},
		{
			"half of a transaction", two,
			records{rec("in", 0, 0, "k", "a"), rec("log", 0, 5, "k", "a")},
			[]string{`missing: in/0@0 (key "k", 03:04:05.000) has no output in out, and it has log/0@5`},
		},
		{
			"foreign", pay,
			records{rec("in", 0, 0, "k", "a"), rec("out", 0, 0, "k", "a"), rec("out", 0, 1, "k", "x")},
			[]string{"1 of 1 inputs have what they should, 1 foreign", `foreign: out/0@1 (key "k", 03:04:05.001) has the id "x"`},
		},
		{
			"out of order", pay,
			records{rec("in", 0, 0, "k", "a"), rec("in", 0, 1, "k", "b"), rec("out", 0, 0, "k", "b"), rec("out", 0, 1, "k", "a")},
			[]string{"1 out of order", "in/0@1", "out/0@0", "of the earlier input in/0@0"},
		},
		{"another key has another order", pay, records{rec("in", 0, 0, "k", "a"), rec("in", 0, 1, "l", "b"), rec("out", 0, 0, "l", "b"), rec("out", 0, 1, "k", "a")}, nil},
		{"other partitions of outputs have no order", pay, records{rec("in", 0, 0, "k", "a"), rec("in", 0, 1, "k", "b"), rec("out", 0, 0, "k", "b"), rec("out", 1, 1, "k", "a")}, nil},
		{
			"no order wanted", with(func(e *kafkatest.Effects) { e.Unordered = true }),
			records{rec("in", 0, 0, "k", "a"), rec("in", 0, 1, "k", "b"), rec("out", 0, 0, "k", "b"), rec("out", 0, 1, "k", "a")},
			nil,
		},
		{
			"dead letters have no order", dead,
			records{rec("in", 0, 0, "k", "a"), rec("in", 0, 1, "k", "b"), rec("dead", 0, 0, "k", "b"), rec("dead", 0, 1, "k", "a")},
			nil,
		},
		{
			"nor where they are wanted", with(func(e *kafkatest.Effects) {
				e.Instead, e.Want = []string{"dead"}, func(*kgo.Record) []string { return []string{"dead"} }
			}),
			records{rec("in", 0, 0, "k", "a"), rec("in", 0, 1, "k", "b"), rec("dead", 0, 0, "k", "b"), rec("dead", 0, 1, "k", "a")},
			nil,
		},
		{"a dead letter in place of the output", dead, records{rec("in", 0, 0, "k", "a"), rec("dead", 0, 0, "k", "a")}, nil},
		{
			"a dead letter and the output", dead,
			records{rec("in", 0, 0, "k", "a"), rec("dead", 0, 1, "k", "a"), rec("out", 0, 2, "k", "a")},
			[]string{"1 unwanted", "dead/0@1", "out/0@2"},
		},
		{
			"two dead letters", dead,
			records{rec("in", 0, 0, "k", "a"), rec("dead", 0, 1, "k", "a"), rec("dead", 0, 2, "k", "a")},
			[]string{"1 doubled", "has 2 records in place of its outputs"},
		},
		{
			"neither", dead,
			records{rec("in", 0, 0, "k", "a")},
			[]string{"1 missing"},
		},
		{
			"by key, outputs are counted", byKey,
			records{rec("in", 0, 0, "k", "1"), rec("in", 0, 1, "k", "2"), rec("out", 0, 0, "k", ""), rec("out", 0, 1, "k", ""), rec("out", 0, 2, "k", "")},
			[]string{"and 1 more inputs of the same id", "has 3 outputs in out in place of 2"},
		},
		{"by key, without fault", byKey, records{rec("in", 0, 0, "k", "1"), rec("in", 0, 1, "k", "2"), rec("out", 0, 0, "k", ""), rec("out", 0, 1, "k", "")}, nil},
		{
			"what is wanted depends", some,
			records{rec("in", 0, 0, "k", "a"), rec("in", 0, 1, "k", "b"), rec("out", 0, 0, "k", "a"), rec("out", 0, 1, "k", "a"), rec("log", 0, 0, "k", "a")},
			nil,
		},
		{
			"what is not wanted", some,
			records{rec("in", 0, 0, "k", "a"), rec("in", 0, 1, "k", "b"), rec("out", 0, 0, "k", "a"), rec("log", 0, 0, "k", "a"), rec("log", 0, 1, "k", "b")},
			[]string{"has 1 of 2 outputs in out", "in/0@1 (key \"k\", 03:04:05.001) has an output in log, where it should have none"},
		},
		{"without an id nothing is judged", pay, records{rec("in", 0, 0, "k", ""), rec("out", 0, 0, "k", "")}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := test.effects.Check(test.records)
			if test.want == nil {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			for _, part := range test.want {
				require.ErrorContains(t, err, part)
			}
		})
	}
}

func TestEffects_TheReportEnds(t *testing.T) {
	t.Parallel()
	var all []*kgo.Record
	for i := range int64(1000) {
		all = append(all, rec("in", 0, i, "k", strconv.FormatInt(i, 10)))
	}
	err := kafkatest.Effects{Inputs: []string{"in"}, Outputs: []string{"out"}, ID: byValue}.Check(all)
	require.ErrorContains(t, err, "1000 missing")
	require.ErrorContains(t, err, "and 980 more")
	require.Len(t, strings.Split(err.Error(), "\n"), 22)
}

func TestHeaderID(t *testing.T) {
	t.Parallel()
	r := &kgo.Record{Headers: []kgo.RecordHeader{{Key: "id", Value: []byte("old")}, {Key: "other"}, {Key: "id", Value: []byte("new")}}}
	require.Equal(t, "new", kafkatest.HeaderID("id")(r))
	require.Empty(t, kafkatest.HeaderID("absent")(r))
}

// copier is a service that is exactly once: a GroupTransactSession that copies.
// edit may spoil an output; nil leaves it out.
func copier(t testing.TB, k *kafkatest.Cluster, edit func(out *kgo.Record) []*kgo.Record) kafkatest.RunFunc {
	return func(ctx context.Context) error {
		s, err := kgo.NewGroupTransactSession(append(k.Opts(),
			kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders"), kgo.TransactionalID("billing"),
			kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
		if err != nil {
			return err
		}
		defer s.Close()
		for ctx.Err() == nil {
			fetches := s.PollFetches(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err := s.Begin(); err != nil {
				return err
			}
			fetches.EachRecord(func(r *kgo.Record) {
				for _, out := range edit(&kgo.Record{Topic: "payments", Key: r.Key, Value: r.Value}) {
					s.Produce(ctx, out, nil)
				}
			})
			if err := s.Client().Flush(ctx); err != nil {
				return nil
			}
			if _, err := s.End(context.WithoutCancel(ctx), kgo.TryCommit); err != nil {
				t.Logf("end: %v", err)
				return nil
			}
		}
		return nil
	}
}

func TestExactlyOnce_OnABroker(t *testing.T) {
	t.Parallel()
	orders := kafkatest.Effects{Inputs: []string{"orders"}, Outputs: []string{"payments"}, Group: "billing", ID: byValue}
	for _, test := range []struct {
		name string
		edit func(*kgo.Record) []*kgo.Record
		want string
	}{
		{"good", func(r *kgo.Record) []*kgo.Record { return []*kgo.Record{r} }, ""},
		{"one is lost", func(r *kgo.Record) []*kgo.Record {
			if string(r.Value) == "o-7" {
				return nil
			}
			return []*kgo.Record{r}
		}, "9 of 10 inputs have what they should, 1 missing"},
		{"one is there twice", func(r *kgo.Record) []*kgo.Record {
			if string(r.Value) == "o-7" {
				again := *r
				return []*kgo.Record{r, &again}
			}
			return []*kgo.Record{r}
		}, "1 doubled"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			both(t, []string{"orders", "payments"}, func(t *testing.T, k *kafkatest.Cluster) {
				kafkatest.Run(t, copier(t, k, test.edit))
				cl := k.Client(t)
				for i := range 10 {
					r := &kgo.Record{Topic: "orders", Key: []byte{byte(i % 3)}, Value: []byte("o-" + strconv.Itoa(i))}
					require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())
				}
				rec := record(t, func(t testing.TB) { kafkatest.ExactlyOnce(t, k, orders) })
				require.Equal(t, test.want != "", rec.failed, rec.text)
				require.Contains(t, rec.text, test.want)
			})
		})
	}
}

func TestExactlyOnce_TellsWhatIsNotCommitted(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1", "payments:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		k.Timeout = 100 * time.Millisecond
		cl := k.Client(t)
		produce(t, cl, "orders", "a")
		produce(t, cl, "payments", "a")
		rec := record(t, func(t testing.TB) {
			kafkatest.ExactlyOnce(t, k, kafkatest.Effects{Inputs: []string{"orders"}, Outputs: []string{"payments"}, Group: "billing", ID: byValue})
		})
		require.True(t, rec.failed)
		require.Contains(t, rec.text, `uncommitted: orders/0@0`)
		require.Contains(t, rec.text, `group "billing" is at offset 0`)
		kafkatest.ExactlyOnce(t, k, kafkatest.Effects{Inputs: []string{"orders"}, Outputs: []string{"payments"}, ID: byValue})
	})
}

func TestExactlyOnce_SeesWhatWasCommittedAndNamesWhatIsOpen(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1", "payments:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		k.Timeout = 2 * time.Second
		produce(t, k.Client(t), "orders", "a")
		txn := k.Client(t, kgo.TransactionalID("payer"))
		require.NoError(t, txn.BeginTransaction())
		produce(t, txn, "payments", "a")
		require.NoError(t, txn.EndTransaction(t.Context(), kgo.TryAbort))
		require.NoError(t, txn.BeginTransaction())
		produce(t, txn, "payments", "a")
		orders := kafkatest.Effects{Inputs: []string{"orders"}, Outputs: []string{"payments"}, ID: byValue}
		rec := record(t, func(t testing.TB) { kafkatest.ExactlyOnce(t, k, orders) })
		require.True(t, rec.failed)
		require.Contains(t, rec.text, "payments/0: a transaction is open since offset 2")
		txn.PurgeTopicsFromProducing("a name never used") // or kgo may abort (docs/traps.md)
		require.NoError(t, txn.EndTransaction(t.Context(), kgo.TryCommit))
		kafkatest.ExactlyOnce(t, k, orders)
	})
}

func TestExactlyOnce_InputsThatWereProducedInTransactions(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1", "payments:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		txn := k.Client(t, kgo.TransactionalID("shop"))
		require.NoError(t, txn.BeginTransaction())
		produce(t, txn, "orders", "a")
		txn.PurgeTopicsFromProducing("a name never used")
		require.NoError(t, txn.EndTransaction(t.Context(), kgo.TryCommit))
		produce(t, k.Client(t), "payments", "a")
		// Offset 1 is the marker: a group may stop before it.
		_, err := kadm.NewClient(k.Client(t)).CommitOffsets(t.Context(), "billing", kadm.OffsetsFromRecords(kgo.Record{Topic: "orders"}))
		require.NoError(t, err)
		kafkatest.ExactlyOnce(t, k, kafkatest.Effects{Inputs: []string{"orders"}, Outputs: []string{"payments"}, Group: "billing", ID: byValue})
	})
}

func TestExactlyOnce_ProvesNothingAboutNothing(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1", "payments:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		for _, e := range []kafkatest.Effects{{}, {Inputs: []string{"orders"}}, {Inputs: []string{"orders"}, Outputs: []string{"payments"}}} {
			rec := record(t, func(t testing.TB) { kafkatest.ExactlyOnce(t, k, e) })
			require.True(t, rec.failed)
			require.Contains(t, rec.text, "proves nothing")
		}
	})
}
