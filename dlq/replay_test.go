package dlq_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
)

// now is when the letters of the tests failed: whole milliseconds, which is
// what a record's timestamp has.
var now = time.Now().UTC().Truncate(time.Millisecond)

// bench is a cluster with a topic "orders" and its dead letters in "dead", of
// one partition each.
type bench struct {
	cl      *kgo.Client
	opts    []kgo.Opt
	timeout time.Duration
	fake    *kfake.Cluster // nil unless faulty made it
}

func setup(t testing.TB, topics ...string) bench {
	t.Helper()
	if t, ok := t.(*testing.T); ok {
		t.Parallel()
	}
	if len(topics) == 0 || !strings.HasPrefix(topics[0], "orders:") {
		topics = append([]string{"orders:1", "dead:1"}, topics...)
	}
	k := kafkatest.NewCluster(t, topics...)
	return bench{cl: k.Client(t), opts: k.Opts(), timeout: k.Timeout}
}

// faulty is setup with an embedded broker, for tests that break it.
func faulty(t *testing.T) bench {
	t.Helper()
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders", "dead"))
	require.NoError(t, err)
	t.Cleanup(fake.Close)
	b := bench{fake: fake, timeout: 10 * time.Second, opts: []kgo.Opt{
		kgo.SeedBrokers(fake.ListenAddrs()...), kgo.DisableClientMetrics(), kgo.ProducerLinger(0), kgo.MetadataMinAge(10 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond }),
	}}
	b.cl = b.open(t)
	return b
}

func (b bench) open(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(slices.Concat(b.opts, opts)...)
	require.NoError(t, err)
	t.Cleanup(cl.CloseAllowingRebalance)
	return cl
}

// letter is the n-th letter of a test: of record n of orders.
func letter(n int, change ...func(*dlq.Letter)) *dlq.Letter {
	l := &dlq.Letter{
		Topic: "orders", Offset: int64(n), Timestamp: now.Add(-time.Hour), Group: "billing",
		Key: fmt.Appendf(nil, "k-%d", n), Value: fmt.Appendf(nil, "v-%d", n),
		Headers: []kgo.RecordHeader{{Key: "app", Value: []byte{0xff, 0}}},
		Cause:   wherry.CauseExhausted, Error: "card declined", ErrorType: "*pay.Error", Attempts: 4,
		FirstFailed: now.Add(-time.Minute), Failed: now,
	}
	for _, c := range change {
		c(l)
	}
	return l
}

// bury writes letters to topic dead and returns their records.
func (b bench) bury(t testing.TB, letters ...*dlq.Letter) (records []*kgo.Record) {
	t.Helper()
	for _, l := range letters {
		r, err := l.Encode("dead")
		require.NoError(t, err)
		records = append(records, r)
	}
	require.NoError(t, b.cl.ProduceSync(t.Context(), records...).FirstErr())
	return records
}

// buryN writes n letters.
func (b bench) buryN(t testing.TB, n int) []*kgo.Record {
	t.Helper()
	letters := make([]*dlq.Letter, n)
	for i := range letters {
		letters[i] = letter(i)
	}
	return b.bury(t, letters...)
}

// replayer is what most tests run.
func (b bench) replayer(change ...func(*dlq.Replayer)) *dlq.Replayer {
	r := &dlq.Replayer{Client: b.cl, Topic: "dead", By: "tester", Why: "a test", Logger: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(r)
	}
	return r
}

func (b bench) run(t testing.TB, change ...func(*dlq.Replayer)) dlq.Report {
	t.Helper()
	report, err := b.replayer(change...).Run(t.Context())
	require.NoError(t, err)
	return report
}

// topics are the names of all topics that a test has.
func (b bench) topics(t *testing.T) []string {
	t.Helper()
	topics, err := kadm.NewClient(b.cl).ListTopics(kadm.WithAuthorizedOps(t.Context()))
	require.NoError(t, err)
	return topics.Names()
}

// content is what a topic holds, read committed, in the order of its partitions.
func (b bench) content(t testing.TB, topic string) (all []*kgo.Record) {
	t.Helper()
	ends, err := kadm.NewClient(b.cl).ListCommittedOffsets(t.Context(), topic)
	require.NoError(t, err)
	require.NoError(t, ends.Error())
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	cl := b.open(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	ctx, cancel := context.WithTimeout(t.Context(), b.timeout)
	defer cancel()
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		require.NoError(t, fetches.Err0())
		for r := range fetches.RecordsAll() {
			if !r.Attrs.IsControl() {
				all = append(all, r)
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		}
	}
	return all
}

func (b bench) keys(t *testing.T, topic string) (keys []string) {
	t.Helper()
	for _, r := range b.content(t, topic) {
		keys = append(keys, string(r.Key))
	}
	return keys
}

// kafkaID is a topic's id as Kafka's own tools write it.
func kafkaID(id kadm.TopicID) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

func headersOf(r *kgo.Record) map[string]string {
	all := map[string]string{}
	for _, h := range r.Headers {
		all[h.Key] += string(h.Value)
	}
	return all
}

// entries lists the letters with their decisions.
func (b bench) entries(t *testing.T, sel dlq.Selection) (all []dlq.Entry) {
	t.Helper()
	for e, err := range b.replayer(func(r *dlq.Replayer) { r.Select = sel }).List(t.Context()) {
		require.NoError(t, err)
		all = append(all, e)
	}
	return all
}

func TestReplay_CopiesBytesToTheOriginAndMarksTheLetters(t *testing.T) {
	b := setup(t)
	b.bury(t,
		letter(0),
		letter(1, func(l *dlq.Letter) { l.Key, l.Value = nil, nil }),
		letter(2, func(l *dlq.Letter) { l.Key, l.Value = []byte{}, []byte{0, 0xff, 10} }),
	)
	report := b.run(t)
	require.Equal(t, 3, report.Replayed)
	require.Equal(t, []int{3, 3, 0, 0, 0}, []int{report.Read, report.Selected, report.Decided, report.Failed, report.Unsettled})
	copies := b.content(t, "orders")
	require.Len(t, copies, 3)
	require.Equal(t, "k-0", string(copies[0].Key))
	require.Nil(t, copies[1].Key)
	require.Nil(t, copies[1].Value)
	require.Equal(t, []byte{}, copies[2].Key)
	require.Equal(t, []byte{0, 0xff, 10}, copies[2].Value)
	for _, c := range copies {
		require.Equal(t, map[string]string{"app": "\xff\x00", "wherry-dlq-replays": "1"}, headersOf(c))
		require.WithinDuration(t, time.Now(), c.Timestamp, time.Minute)
	}

	entries := b.entries(t, dlq.Selection{Decided: true})
	require.Len(t, entries, 3)
	for i, e := range entries {
		require.WithinDuration(t, time.Now(), e.Decision.At, time.Minute)
		e.Decision.At = time.Time{}
		require.Equal(t, &dlq.Decision{Action: dlq.Replay, By: "tester", Why: "a test", Run: report.Run, To: "orders", ToOffset: int64(i)}, e.Decision)
	}
	require.Empty(t, b.entries(t, dlq.Selection{}))
}

func TestReplay_PassesOverWhatWasDecidedUnlessAskedFor(t *testing.T) {
	b := setup(t)
	b.buryN(t, 3)
	require.Equal(t, 3, b.run(t).Replayed)
	again := b.run(t)
	require.Equal(t, []int{3, 3, 0, 0}, []int{again.Read, again.Decided, again.Selected, again.Replayed})
	b.bury(t, letter(3))
	more := b.run(t)
	require.Equal(t, []int{4, 3, 1, 1}, []int{more.Read, more.Decided, more.Selected, more.Replayed})
	require.Equal(t, []string{"k-0", "k-1", "k-2", "k-3"}, b.keys(t, "orders"))
	all := b.run(t, func(r *dlq.Replayer) { r.Select.Decided = true })
	require.Equal(t, 4, all.Replayed)
	require.Len(t, b.content(t, "orders"), 8)
}

func TestReplay_KeepsTheOrderOfAPartition(t *testing.T) {
	b := setup(t)
	want := []string{}
	for i := range 2500 {
		want = append(want, fmt.Sprintf("k-%d", i))
	}
	b.buryN(t, 2500)
	require.Equal(t, 2500, b.run(t).Replayed)
	require.Equal(t, want, b.keys(t, "orders"))
}

func TestReplay_CopiesGoToThePartitionOfTheirKey(t *testing.T) {
	b := setup(t, "wide:5")
	b.buryN(t, 50)
	b.run(t, func(r *dlq.Replayer) { r.To = "wide" })
	for _, c := range b.content(t, "wide") {
		fresh := &kgo.Record{Topic: "wide", Key: c.Key}
		require.NoError(t, b.cl.ProduceSync(t.Context(), fresh).FirstErr())
		require.Equal(t, fresh.Partition, c.Partition)
	}
}

func TestReplay_ToOneGroupNamesItOnTheCopy(t *testing.T) {
	b := setup(t)
	b.bury(t, letter(0), letter(1, func(l *dlq.Letter) {
		l.Headers = append(l.Headers, kgo.RecordHeader{Key: "wherry-only-group", Value: []byte("mailer")})
	}))
	b.run(t, func(r *dlq.Replayer) { r.Group = "billing" })
	for _, c := range b.content(t, "orders") {
		require.Equal(t, "billing", headersOf(c)["wherry-only-group"])
	}
}

func TestReplay_OfARecordThatWasForOneGroupStaysForIt(t *testing.T) {
	b := setup(t, "other:1")
	b.bury(t, letter(0, func(l *dlq.Letter) {
		l.Headers = append(l.Headers, kgo.RecordHeader{Key: "wherry-only-group", Value: []byte("mailer")})
	}))
	b.run(t)
	require.Equal(t, "mailer", headersOf(b.content(t, "orders")[0])["wherry-only-group"])
	b.run(t, func(r *dlq.Replayer) { r.To, r.Select.Decided = "other", true })
	require.NotContains(t, headersOf(b.content(t, "other")[0]), "wherry-only-group")
}

func TestReplay_OtherGroupsPassACopyBy(t *testing.T) {
	b := setup(t)
	b.buryN(t, 2)
	heard := make(chan string, 10)
	for _, group := range []string{"billing", "mailer"} {
		kafkatest.Run(t, &wherry.Consumer{
			Client: b.cl, Group: group, Logger: slog.New(slog.DiscardHandler),
			Handlers: []wherry.Route{{Topic: "orders", Handler: func(_ context.Context, r *kgo.Record) error {
				heard <- group + " " + string(r.Key)
				return nil
			}}},
		})
	}
	b.run(t, func(r *dlq.Replayer) { r.Group = "billing" })
	require.NoError(t, b.cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Key: []byte("end")}).FirstErr())
	var got []string
	for range 4 {
		select {
		case h := <-heard:
			got = append(got, h)
		case <-time.After(b.timeout):
			t.Fatal("not all arrive", got)
		}
	}
	require.ElementsMatch(t, []string{"billing k-0", "billing k-1", "billing end", "mailer end"}, got)
}

func TestReplay_ParksWhatWasReplayedTooOften(t *testing.T) {
	for name, row := range map[string]struct {
		most int
		want []int // replayed, parked
	}{
		"3 by default": {0, []int{3, 2}},
		"as said":      {1, []int{1, 4}},
		"no limit":     {-1, []int{5, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			var letters []*dlq.Letter
			for i := range 5 {
				letters = append(letters, letter(i, func(l *dlq.Letter) { l.Replays = i }))
			}
			b.bury(t, letters...)
			report := b.run(t, func(r *dlq.Replayer) { r.MaxReplays = row.most })
			require.Equal(t, row.want, []int{report.Replayed, report.Parked})
			require.Len(t, b.content(t, "orders"), row.want[0])
			if row.want[1] == 0 {
				require.NotContains(t, b.topics(t), "dead.parked")
				return
			}
			require.Len(t, b.content(t, "dead.parked"), row.want[1])
		})
	}
}

func TestReplay_CountsReplaysOfLettersThatOtherFrameworksWrote(t *testing.T) {
	b := setup(t)
	spring := &kgo.Record{Topic: "dead", Key: []byte("k"), Headers: []kgo.RecordHeader{
		{Key: "wherry-dlq-replays", Value: []byte("2")}, // of the copy that failed again
		{Key: "kafka_dlt-original-topic", Value: []byte("orders")},
		{Key: "kafka_dlt-original-partition", Value: []byte{0, 0, 0, 0}},
		{Key: "kafka_dlt-original-offset", Value: []byte{0, 0, 0, 0, 0, 0, 0, 9}},
		{Key: "kafka_dlt-exception-fqcn", Value: []byte("java.lang.IllegalStateException")},
	}}
	require.NoError(t, b.cl.ProduceSync(t.Context(), spring).FirstErr())
	require.Equal(t, 1, b.run(t).Replayed)
	require.Equal(t, map[string]string{"wherry-dlq-replays": "3"}, headersOf(b.content(t, "orders")[0]))
	again := b.run(t, func(r *dlq.Replayer) { r.Select.Decided, r.MaxReplays = true, 2 })
	require.Equal(t, 1, again.Parked)
}

func TestReplay_ParkedLettersAreCopiedAsTheyAre(t *testing.T) {
	b := setup(t)
	letters := b.buryN(t, 3)
	report := b.run(t, func(r *dlq.Replayer) { r.Action = dlq.Park })
	require.Equal(t, []int{3, 0}, []int{report.Parked, report.Replayed})
	parked := b.content(t, "dead.parked")
	require.Len(t, parked, 3)
	for i, p := range parked {
		require.Equal(t, letters[i].Key, p.Key)
		require.Equal(t, letters[i].Value, p.Value)
		require.Equal(t, letters[i].Headers, p.Headers)
	}
	require.Equal(t, dlq.Park, b.entries(t, dlq.Selection{Decided: true})[0].Decision.Action)

	// What is parked is a dead-letter topic itself.
	back := b.run(t, func(r *dlq.Replayer) { r.Topic = "dead.parked" })
	require.Equal(t, 3, back.Replayed)
	require.Equal(t, []string{"k-0", "k-1", "k-2"}, b.keys(t, "orders"))
}

func TestReplay_DiscardedLettersAreMarkedOnly(t *testing.T) {
	b := setup(t)
	b.buryN(t, 3)
	report := b.run(t, func(r *dlq.Replayer) { r.Action, r.Select.Keys = dlq.Discard, []string{"k-1"} })
	require.Equal(t, []int{1, 1, 3}, []int{report.Discarded, report.Selected, report.Read})
	require.Empty(t, b.content(t, "orders"))
	require.Len(t, b.content(t, "dead"), 3)
	require.NotContains(t, b.topics(t), "dead.parked")
	require.Equal(t, 2, b.run(t).Replayed)
	require.Equal(t, []string{"k-0", "k-2"}, b.keys(t, "orders"))
}

func TestReplay_KeepTimeKeepsTheTimeOfTheRecordThatFailed(t *testing.T) {
	b := setup(t)
	b.bury(t, letter(0))
	b.run(t, func(r *dlq.Replayer) { r.KeepTime = true })
	require.Equal(t, now.Add(-time.Hour), b.content(t, "orders")[0].Timestamp.UTC())
}
