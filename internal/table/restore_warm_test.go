package table_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/table"
	"github.com/wherry-go/wherry/kafkatest"
)

// owner writes to its Part as a Consumer does: in transactions.
type owner struct {
	cl   *kgo.Client
	part *table.Part
}

func newOwner(t *testing.T, k *kafkatest.Cluster, id string) *owner {
	t.Helper()
	return &owner{manual(t, k, kgo.TransactionalID(id)), table.NewPart(nil)}
}

// transact writes rs in a transaction and ends it.
func (o *owner) transact(t *testing.T, end kgo.TransactionEndTry, rs ...*kgo.Record) {
	t.Helper()
	require.NoError(t, o.cl.BeginTransaction())
	for _, r := range rs {
		r.Topic = "accounts"
		o.part.Write(r)
	}
	require.NoError(t, o.cl.ProduceSync(t.Context(), rs...).FirstErr())
	require.NoError(t, o.cl.EndTransaction(t.Context(), end))
	if end {
		o.part.Commit(rs)
	} else {
		o.part.Rollback(rs...)
	}
}

// restore returns how many offsets were left when it began.
func (o *owner) restore(t *testing.T, k *kafkatest.Cluster) (first int64) {
	t.Helper()
	first = -1
	require.NoError(t, table.Restore(limited(t), k.Client(t), nil, "accounts", map[int32]*table.Part{0: o.part}, quiet, func(_ int32, left int64) {
		if first < 0 {
			first = left
		}
	}))
	return first
}

func TestRestoreGoesOnWhereAPartWasGivenUp(t *testing.T) {
	t.Parallel()
	k := compacted(t, 1)
	one, two := newOwner(t, k, "one"), newOwner(t, k, "two")
	require.Zero(t, one.restore(t, k))
	one.transact(t, kgo.TryCommit, unsent("a", "1"), unsent("b", "1"))
	one.transact(t, kgo.TryAbort, unsent("a", "2"))
	one.transact(t, kgo.TryCommit, unsent("c", "3"))
	require.Equal(t, end(t, k, 0)-1, one.part.Next(), "all but the last mark")
	one.part.Write(unsent("pending", "of an assignment that is over"))

	require.EqualValues(t, 7, two.restore(t, k))
	two.transact(t, kgo.TryCommit, unsent("a"), unsent("b", "4"))

	require.EqualValues(t, 4, one.restore(t, k), "a mark, two records and a mark")
	require.Equal(t, map[string]string{"b": "4", "c": "3"}, values(one.part))
	require.Zero(t, one.part.Pending())
	require.Zero(t, one.restore(t, k))
}

// What anybody else wrote between the owner's transactions is not passed over.
func TestRestoreFindsWhatOthersWroteMeanwhile(t *testing.T) {
	t.Parallel()
	k := compacted(t, 1)
	o := newOwner(t, k, "one")
	o.restore(t, k)
	o.transact(t, kgo.TryCommit, unsent("a", "1"))
	write(t, manual(t, k), 0, "b", "by hand")
	o.transact(t, kgo.TryCommit, unsent("a", "2"))
	require.EqualValues(t, 1, o.part.Next())
	require.Equal(t, map[string]string{"a": "2"}, values(o.part))
	o.restore(t, k)
	require.Equal(t, map[string]string{"a": "2", "b": "by hand"}, values(o.part))
}

// entries are a Part's with all that is known of them.
func entries(p *table.Part) map[string]table.Entry { return maps.Collect(p.All()) }

func TestRestoreOfAWarmPartAgreesWithAColdOneWhateverHappened(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 0))
			k := compacted(t, 1)
			hand := manual(t, k)
			owners := []*owner{newOwner(t, k, "one"), newOwner(t, k, "two")}
			for turn := range 6 {
				o := owners[turn%2]
				o.restore(t, k)
				cold := newParts(1)
				restore(t, k, cold)
				require.Equal(t, entries(cold[0]), entries(o.part))
				require.Equal(t, cold[0].Next(), o.part.Next())
				for range random.IntN(6) {
					var rs []*kgo.Record
					for i := range random.IntN(5) {
						r := unsent(strconv.Itoa(random.IntN(6)))
						if random.IntN(3) > 0 {
							r.Value = fmt.Append(nil, turn, i)
						}
						rs = append(rs, r)
					}
					switch random.IntN(8) {
					case 0:
						o.transact(t, kgo.TryAbort, rs...)
					case 1:
						write(t, hand, 0, strconv.Itoa(random.IntN(6)), "by hand")
					case 2:
						o.transact(t, kgo.TryAbort, rs...)
						o.part.Rollback()
					default:
						o.transact(t, kgo.TryCommit, rs...)
					}
				}
			}
		})
	}
}

func TestRestoreOfATopicThatWasMadeAnew(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]int{"empty": 0, "shorter": 1, "as long": 2, "longer": 5} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := compacted(t, 1)
			cl := manual(t, k)
			write(t, cl, 0, "old", "1")
			write(t, cl, 0, "older", "1")
			parts := newParts(1)
			restore(t, k, parts)
			_, err := kadm.NewClient(cl).DeleteTopics(t.Context(), "accounts")
			require.NoError(t, err)
			k.Create(t, kafkatest.Topic{Name: "accounts", Partitions: 1, Config: map[string]string{"cleanup.policy": "compact", "retention.ms": "-1"}})
			cl = manual(t, k)
			want := map[string]string{}
			for i := range after {
				write(t, cl, 0, strconv.Itoa(i), "new")
				want[strconv.Itoa(i)] = "new"
			}
			restore(t, k, parts)
			require.Equal(t, want, values(parts[0]))
			require.EqualValues(t, after, parts[0].Next())
		})
	}
}

// A log that lost its end, which an embedded broker and a healthy real one do
// not do: the Part believes in records that nobody wrote.
func TestRestoreOfALogThatIsShorterThanWhatWasRead(t *testing.T) {
	t.Parallel()
	k := compacted(t, 1)
	write(t, manual(t, k), 0, "a", "1")
	parts := newParts(1)
	restore(t, k, parts)
	parts[0].Commit(sent(1, unsent("lost", "1"), unsent("a")))
	require.EqualValues(t, 3, parts[0].Next())
	restore(t, k, parts)
	require.Equal(t, map[string]string{"a": "1"}, values(parts[0]))
	require.EqualValues(t, 1, parts[0].Next())
}

// A tombstone that was compacted away before a warm Part read it would leave
// its key there for ever.
func TestRestoreDoesNotTrustAPartThatMayHaveMissedATombstone(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour // the topic's delete.retention.ms
	for name, test := range map[string]struct {
		before func(t *testing.T, v *virtual, part *table.Part)
		after  time.Duration
		refuse bool // to tell what the topic's is
		cold   bool
	}{
		"soon after":   {after: time.Hour},
		"much later":   {after: day + time.Hour, cold: true},
		"nobody tells": {after: time.Minute, refuse: true, cold: true},
		"it was restored since": {before: func(t *testing.T, v *virtual, part *table.Part) {
			<-time.After(day/2 - time.Hour)
			require.NoError(t, v.restore(t, part))
		}, after: day/2 - time.Hour},
		"it committed since": {before: func(t *testing.T, v *virtual, part *table.Part) {
			<-time.After(day/2 - time.Hour)
			r := unsent("stays", "1")
			part.Write(r)
			r.Topic = "accounts"
			require.NoError(t, v.cl.ProduceSync(t.Context(), r).FirstErr())
			part.Commit([]*kgo.Record{r})
		}, after: day/2 - time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, v *virtual) {
				write(t, v.cl, 0, "stays", "1")
				write(t, v.cl, 0, "a", "1")
				part := table.NewPart(nil)
				require.NoError(t, v.restore(t, part))
				if test.before != nil {
					test.before(t, v, part)
				}
				write(t, v.cl, 0, "a")
				write(t, v.cl, 0, "b", "1")
				<-time.After(test.after)
				v.Compact()
				if test.refuse {
					v.refuseConfigs()
				}
				first := int64(-1)
				require.NoError(t, table.Restore(t.Context(), v.cl, nil, "accounts", map[int32]*table.Part{0: part}, quiet, func(_ int32, left int64) {
					if first < 0 {
						first = left
					}
				}))
				require.Equal(t, map[string]string{"stays": "1", "b": "1"}, values(part))
				require.Equal(t, test.cold, first > 2)
			})
		})
	}
}
