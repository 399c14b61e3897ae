package dlq_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
)

func (b bench) small(t *testing.T, most string) {
	t.Helper()
	_, err := kadm.NewClient(b.cl).CreateTopic(t.Context(), 1, 1, map[string]*string{"max.message.bytes": kadm.StringPtr(most)}, "small")
	require.NoError(t, err)
}

func TestReplayOnce_OneThatIsTooLargeDoesNotFailItsNeighbours(t *testing.T) {
	b := setup(t)
	b.small(t, "20000")
	const n = 200
	var want []string
	for i := range n {
		size := 300
		if i == 77 || i == 78 || i == n-1 {
			size = 30_000
		} else {
			want = append(want, fmt.Sprintf("k-%d", i))
		}
		b.bury(t, letter(i, func(l *dlq.Letter) { l.Topic, l.Value = "small", incompressible(size) }))
	}
	report := b.run(t)
	require.Equal(t, []int{n - 3, 3, 0}, []int{report.Replayed, report.Failed, report.Unsettled})
	for i, at := range []int64{77, 78, n - 1} {
		require.Equal(t, at, report.Failures[i].Offset)
		require.ErrorIs(t, report.Failures[i], kerr.MessageTooLarge)
	}
	require.Equal(t, want, b.keys(t, "small"), "in their order")
	again := b.run(t)
	require.Equal(t, []int{n - 3, 0, 3}, []int{again.Decided, again.Replayed, again.Failed})
}

func TestReplayOnce_WhatIsTooLargeTogetherGoesInParts(t *testing.T) {
	b := setup(t)
	b.small(t, "2000")
	const n = 300
	for i := range n {
		b.bury(t, letter(i, func(l *dlq.Letter) { l.Topic, l.Value = "small", incompressible(300) }))
	}
	report := b.run(t)
	require.Equal(t, []int{n, 0}, []int{report.Replayed, report.Failed})
	require.Len(t, b.content(t, "small"), n)
}

func TestReplayOnce_HugeLetters(t *testing.T) {
	b := setup(t)
	const n = 40
	for i := range n {
		b.bury(t, letter(i, func(l *dlq.Letter) { l.Value = incompressible(900_000) }))
	}
	require.Equal(t, n, b.run(t).Replayed)
	require.Len(t, b.content(t, "orders"), n)
}

// A refusal hits whole requests here, and with them the letters of another topic.
func TestReplayOnce_ATopicThatTakesNothingFailsItsLettersAlone(t *testing.T) {
	t.Parallel()
	for _, why := range []*kerr.Error{kerr.MessageTooLarge, kerr.InvalidRecord, kerr.InvalidTimestamp, kerr.PolicyViolation, kerr.UnknownServerError} {
		t.Run(why.Message, func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, []string{"orders:1", "dead:1", "closed:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				b := bench{cl: k.Client(t), opts: k.Opts(), timeout: k.Timeout}
				const n = 60
				for i := range n {
					b.bury(t, letter(i, func(l *dlq.Letter) {
						if i%3 == 1 {
							l.Topic = "closed"
						}
					}))
				}
				b.cl = k.Client(t, kgo.ClientID("first"))
				closed := k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "closed", Client: "first", Count: -1}, why)
				report := b.run(t, slowly)
				require.Positive(t, closed.Hits())
				closed.Remove()
				require.Equal(t, []int{n - n/3, n / 3, 0}, []int{report.Replayed, report.Failed, report.Unsettled})
				for _, f := range report.Failures {
					require.ErrorIs(t, f, why)
					require.Equal(t, "closed", f.To)
				}
				require.Empty(t, b.content(t, "closed"))
				require.Len(t, b.content(t, "orders"), n-n/3)
				require.Equal(t, n/3, b.run(t).Replayed)
				require.Len(t, b.content(t, "closed"), n/3)
			})
		})
	}
}

func TestReplayOnce_ATopicThatIsDeletedMeanwhileFailsItsLettersAlone(t *testing.T) {
	b := setup(t, "closed:1")
	const n = 60
	for i := range n {
		b.bury(t, letter(i, func(l *dlq.Letter) {
			if i%3 == 1 {
				l.Topic = "closed"
			}
		}))
	}
	report := b.run(t, func(r *dlq.Replayer) {
		r.Select.Where = func(l *dlq.Letter) bool {
			if l.Offset == 5 { // after the first that goes there was looked at
				b.delete(t, "closed")
			}
			return true
		}
	})
	require.Equal(t, []int{n - n/3, n / 3, 0}, []int{report.Replayed, report.Failed, report.Unsettled})
	require.ErrorIs(t, report.Failures[0], kerr.UnknownTopicOrPartition)
	require.Len(t, b.content(t, "orders"), n-n/3)
}

func TestReplayOnce_ALedgerThatTakesLittleHasItInParts(t *testing.T) {
	b := setup(t, "wide:7")
	_, err := kadm.NewClient(b.cl).CreateTopic(t.Context(), 1, 1, map[string]*string{
		"max.message.bytes": kadm.StringPtr("700"), "cleanup.policy": kadm.StringPtr("compact"), "retention.ms": kadm.StringPtr("-1"),
	}, dlq.LedgerTopic("dead"))
	require.NoError(t, err)
	const n = 300
	b.buryN(t, n)
	require.Equal(t, n, b.run(t, func(r *dlq.Replayer) { r.To = "wide" }).Replayed)
	require.Len(t, b.content(t, "wide"), n)
	require.Equal(t, n, b.run(t).Decided)
}

// What was replayed before there were transactions still counts.
func TestReplay_WhatAnEarlierVersionDecidedStillCounts(t *testing.T) {
	b := setup(t)
	b.buryN(t, 4)
	b.ledger(t)
	topics, err := kadm.NewClient(b.cl).ListTopics(t.Context(), "dead")
	require.NoError(t, err)
	id := kafkaID(topics["dead"].ID)
	for key, value := range map[string]string{
		id + "/0/0":              `{"action":"replayed","at":"2026-11-22T15:42:49.123456Z","by":"ada","why":"fixed","run":"0123456789abcdef","to":"orders","toPartition":0,"toOffset":41}`,
		id + "/0/2":              `{"action":"discarded","at":"2026-11-22T15:42:50Z","by":"ada","run":"0123456789abcdef","toPartition":0,"toOffset":0}`,
		"run/" + id + "/0123456": "", // a lease that was released
	} {
		r := &kgo.Record{Topic: "dead.ledger", Key: []byte(key), Value: []byte(value)}
		if value == "" {
			r.Value = nil
		}
		require.NoError(t, b.cl.ProduceSync(t.Context(), r).FirstErr())
	}
	report := b.run(t)
	require.Equal(t, []int{2, 2}, []int{report.Decided, report.Replayed})
	require.Equal(t, []string{"k-1", "k-3"}, b.keys(t, "orders"))
	entries := b.entries(t, dlq.Selection{Decided: true})
	require.EqualValues(t, 41, entries[0].Decision.ToOffset)
	require.Equal(t, dlq.Discard, entries[2].Decision.Action)
	require.Equal(t, report.Run, entries[3].Decision.Run)
	// And can be decided anew.
	require.Equal(t, 4, b.run(t, func(r *dlq.Replayer) { r.Action, r.Select.Decided = dlq.Discard, true }).Discarded)
	for _, e := range b.entries(t, dlq.Selection{Decided: true}) {
		require.Equal(t, dlq.Discard, e.Decision.Action)
	}
}

// A broker with access control that grants everything but the transactional id,
// and then, for all that begin with the topic's name, that too.
func TestReplayOnce_UnderAccessControl(t *testing.T) {
	t.Parallel()
	on := func(kind kmsg.ACLResourceType, prefix string) kfake.ACL {
		return kfake.ACL{Resource: kind, Name: prefix, Pattern: kmsg.ACLResourcePatternTypePrefixed, Operation: kmsg.ACLOperationAll, Allow: true}
	}
	letters, orders := on(kmsg.ACLResourceTypeTopic, "dead"), on(kmsg.ACLResourceTypeTopic, "orders")
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders", "dead", "closed"), kfake.EnableSASL(), kfake.EnableACLs(),
		kfake.Superuser("PLAIN", "root", "pw"),
		kfake.User("PLAIN", "ada", "pw", letters, orders),
		kfake.User("PLAIN", "bob", "pw", letters, orders, on(kmsg.ACLResourceTypeTransactionalId, "dead")),
	)
	require.NoError(t, err)
	t.Cleanup(fake.Close)
	as := func(user string) bench {
		b := bench{fake: fake, timeout: 10 * time.Second, opts: []kgo.Opt{
			kgo.SeedBrokers(fake.ListenAddrs()...), kgo.DisableClientMetrics(), kgo.MetadataMinAge(10 * time.Millisecond),
			kgo.SASL(plain.Auth{User: user, Pass: "pw"}.AsMechanism()),
		}}
		b.cl = b.open(t)
		return b
	}
	root := as("root")
	root.buryN(t, 3)
	root.bury(t, letter(3, func(l *dlq.Letter) { l.Topic = "closed" }))

	report, err := as("ada").replayer().Run(t.Context())
	require.ErrorIs(t, err, kerr.TransactionalIDAuthorizationFailed)
	require.ErrorContains(t, err, "grant WRITE and DESCRIBE on the transactional id dead.replay")
	require.Zero(t, report.Selected)
	require.Empty(t, root.content(t, "orders"))

	report = as("bob").run(t)
	require.Equal(t, []int{3, 1}, []int{report.Replayed, report.Failed})
	require.ErrorIs(t, report.Failures[0], kerr.TopicAuthorizationFailed)
	require.Len(t, root.content(t, "orders"), 3)
}

func TestReplay_TheReportAndTheLedgerSayWhoWhenAndWhy(t *testing.T) {
	b := setup(t)
	b.buryN(t, 2)
	report := b.run(t, func(r *dlq.Replayer) { r.By, r.Why = "", "the bank is open" })
	require.Regexp(t, `^[^@]+@[^@]+$`, report.By)
	require.Equal(t, "the bank is open", report.Why)
	for _, e := range b.entries(t, dlq.Selection{Decided: true}) {
		require.Equal(t, []string{report.By, report.Why, report.Run}, []string{e.Decision.By, e.Decision.Why, e.Decision.Run})
		require.False(t, e.Decision.At.Before(report.Began.Truncate(time.Millisecond)))
		require.WithinDuration(t, time.Now(), e.Decision.At, time.Minute)
	}
}
