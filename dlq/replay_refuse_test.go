package dlq_test

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
)

func TestReplayDryRun_CountsAndTouchesNothing(t *testing.T) {
	b := setup(t)
	b.bury(t,
		letter(0),
		letter(1, func(l *dlq.Letter) { l.Cause, l.Failed = wherry.CausePermanent, now.Add(-3*time.Hour) }),
		letter(2, func(l *dlq.Letter) { l.Topic, l.Group, l.ErrorType = "gone", "mailer", "" }),
		letter(3, func(l *dlq.Letter) { l.Replays, l.Failed = 3, now.Add(-100*24*time.Hour) }),
	)
	before := b.topics(t)
	report := b.run(t, func(r *dlq.Replayer) { r.DryRun, r.Group = true, "billing" })
	require.Equal(t, []int{4, 4, 2, 1, 1}, []int{report.Read, report.Selected, report.Replayed, report.Parked, report.Failed})
	require.Len(t, report.Failures, 1)
	require.EqualError(t, report.Failures[0], "letter dead/0/2: copying to gone: topic gone does not exist: make it, or say where the copy is to go with To: "+kerr.UnknownTopicOrPartition.Error())
	c := report.Counts
	require.Equal(t, map[wherry.Cause]int{wherry.CauseExhausted: 3, wherry.CausePermanent: 1}, c.Causes)
	require.Equal(t, map[string]int{"orders": 3, "gone": 1}, c.Topics)
	require.Equal(t, map[string]int{"billing": 3, "mailer": 1}, c.Groups)
	require.Equal(t, map[string]int{"*pay.Error": 3, "": 1}, c.ErrorTypes)
	require.Equal(t, []int{2, 1, 0, 0, 1}, []int{c.Ages[0].Letters, c.Ages[1].Letters, c.Ages[2].Letters, c.Ages[3].Letters, c.Ages[4].Letters})
	require.Equal(t, now.Add(-100*24*time.Hour), c.Oldest.UTC())
	require.Equal(t, now, c.Newest.UTC())
	require.Equal(t, before, b.topics(t))
	require.Empty(t, b.content(t, "orders"))
	require.Len(t, b.entries(t, dlq.Selection{}), 4)
	require.Equal(t, before, b.topics(t), "List makes no topics")
}

func TestReplayDryRun_ItsEndsKeepARunFromWhatCameLater(t *testing.T) {
	b := setup(t)
	b.buryN(t, 2)
	dry := b.run(t, func(r *dlq.Replayer) { r.DryRun = true })
	b.bury(t, letter(2))
	require.Equal(t, 2, b.run(t, func(r *dlq.Replayer) { r.Ends = dry.Ends }).Replayed)
	require.Equal(t, []string{"k-0", "k-1"}, b.keys(t, "orders"))
}

func TestReplay_RefusesAWrongConfiguration(t *testing.T) {
	b := setup(t)
	for name, row := range map[string]struct {
		change func(*dlq.Replayer)
		want   []string
	}{
		"no client, no topic":       {func(r *dlq.Replayer) { r.Client, r.Topic = nil, "" }, []string{"set Client", "set Topic"}},
		"topic does not exist":      {func(r *dlq.Replayer) { r.Topic = "nowhere" }, []string{"topic nowhere: it does not exist"}},
		"to the topic itself":       {func(r *dlq.Replayer) { r.To = "dead" }, []string{"To is dead, the dead-letter topic itself"}},
		"to the ledger":             {func(r *dlq.Replayer) { r.To = "dead.ledger" }, []string{"To is dead.ledger, the ledger"}},
		"parking in the topic":      {func(r *dlq.Replayer) { r.Parking = "dead" }, []string{"Parking is dead, the dead-letter topic itself"}},
		"to does not exist":         {func(r *dlq.Replayer) { r.To = "nowhere" }, []string{"topic nowhere does not exist: make it"}},
		"no such action":            {func(r *dlq.Replayer) { r.Action = "burn" }, []string{`there is no Action "burn"`}},
		"parking with To":           {func(r *dlq.Replayer) { r.Action, r.To = dlq.Park, "orders" }, []string{"To is for replays"}},
		"discarding for a group":    {func(r *dlq.Replayer) { r.Action, r.Group = dlq.Discard, "g" }, []string{"Group is for replays"}},
		"discarding with parking":   {func(r *dlq.Replayer) { r.Action, r.Parking = dlq.Discard, "p" }, []string{"discarding parks nothing"}},
		"negative rate and limit":   {func(r *dlq.Replayer) { r.Rate, r.Select.Limit = -1, -1 }, []string{"Rate is -1", "Select.Limit is -1"}},
		"since after until":         {func(r *dlq.Replayer) { r.Select.Since, r.Select.Until = now, now.Add(-1) }, []string{"is not before Select.Until"}},
		"offsets that hold nothing": {func(r *dlq.Replayer) { r.Select.Offsets = []dlq.Offsets{{0, 5, 5}} }, []string{"which holds nothing"}},
	} {
		t.Run(name, func(t *testing.T) {
			report, err := b.replayer(row.change).Run(t.Context())
			for _, want := range row.want {
				require.ErrorContains(t, err, want)
			}
			require.Zero(t, report.Selected)
		})
	}
}

func TestReplay_ReportsLettersThatCannotGoAndGoesOn(t *testing.T) {
	b := setup(t)
	kadmin := kadm.NewClient(b.cl)
	_, err := kadmin.CreateTopic(t.Context(), 1, 1, map[string]*string{"max.message.bytes": kadm.StringPtr("3000")}, "small")
	require.NoError(t, err)
	unknown := &kgo.Record{Topic: "dead", Key: []byte("k-5"), Value: []byte("not a letter")}
	b.bury(t,
		letter(0, func(l *dlq.Letter) { l.Topic = "small" }),
		letter(1, func(l *dlq.Letter) { l.Topic, l.Value = "small", incompressible(4000) }),
		letter(2, func(l *dlq.Letter) { l.Topic = "small" }),
		letter(3, func(l *dlq.Letter) { l.Topic = "gone" }),
		letter(4, func(l *dlq.Letter) { l.Topic = "dead" }),
	)
	require.NoError(t, b.cl.ProduceSync(t.Context(), unknown).FirstErr())
	garbled, err := letter(6).Encode("dead")
	require.NoError(t, err)
	for i, h := range garbled.Headers {
		if h.Key == "wherry-dlq-offset" {
			garbled.Headers[i].Value = []byte("many")
		}
	}
	require.NoError(t, b.cl.ProduceSync(t.Context(), garbled).FirstErr())
	b.bury(t, letter(7))

	report := b.run(t)
	require.Equal(t, []int{8, 8, 3, 5}, []int{report.Read, report.Selected, report.Replayed, report.Failed})
	whys := map[int64]string{}
	for _, f := range report.Failures {
		whys[f.Offset] = f.Error()
	}
	require.Contains(t, whys[1], "copying to small: MESSAGE_TOO_LARGE")
	require.Contains(t, whys[3], "topic gone does not exist")
	require.Contains(t, whys[4], "the dead-letter topic itself")
	require.Contains(t, whys[5], "does not say which topic")
	require.Contains(t, whys[6], "garbled")
	require.ElementsMatch(t, []string{"k-0", "k-2"}, b.keys(t, "small"), "neighbours in a batch are not refused")
	require.Equal(t, []string{"k-7"}, b.keys(t, "orders"))

	// They stay undecided, and what is garbled can be put aside.
	require.Len(t, b.entriesOfAll(t), 5)
	require.Equal(t, 5, b.run(t, func(r *dlq.Replayer) { r.Action = dlq.Park }).Parked)
	require.Empty(t, b.entriesOfAll(t))
}

// incompressible is what no batch makes smaller.
func incompressible(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// entriesOfAll are the undecided letters, garbled ones among them.
func (b bench) entriesOfAll(t *testing.T) (all []dlq.Entry) {
	t.Helper()
	for e, err := range b.replayer().List(t.Context()) {
		if err != nil {
			require.ErrorAs(t, err, new(*dlq.LetterError))
		}
		all = append(all, e)
	}
	return all
}

func TestReplay_RefusesKafkasOwnTopics(t *testing.T) {
	b := setup(t)
	kafka := b.open(t, kgo.ConsumerGroup("g"), kgo.ConsumeTopics("orders")) // which makes __consumer_offsets
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	kafka.PollFetches(ctx)
	b.bury(t, letter(0, func(l *dlq.Letter) { l.Topic = "__consumer_offsets" }))
	report := b.run(t)
	require.Equal(t, 1, report.Failed)
}

func TestReplay_ALettersReasonsAreBounded(t *testing.T) {
	b := setup(t)
	var letters []*dlq.Letter
	for i := range 150 {
		letters = append(letters, letter(i, func(l *dlq.Letter) { l.Topic = "gone" }))
	}
	b.bury(t, letters...)
	report := b.run(t)
	require.Equal(t, 150, report.Failed)
	require.Len(t, report.Failures, 100)
}

func TestReplay_FetchesWhatAShareGroupLeftAtTheOrigin(t *testing.T) {
	b := setup(t)
	origin := []*kgo.Record{
		{Topic: "orders", Key: []byte("a"), Value: []byte("1"), Headers: []kgo.RecordHeader{{Key: "app", Value: []byte("x")}}},
		{Topic: "orders", Key: []byte("b"), Value: []byte("2")},
	}
	require.NoError(t, b.cl.ProduceSync(t.Context(), origin...).FirstErr())
	gone := kadm.Offsets{}
	gone.Add(kadm.Offset{Topic: "orders", At: 1})
	_, err := kadm.NewClient(b.cl).DeleteRecords(t.Context(), gone)
	require.NoError(t, err)
	for _, offset := range []string{"0", "1"} {
		require.NoError(t, b.cl.ProduceSync(t.Context(), &kgo.Record{Topic: "dead", Headers: []kgo.RecordHeader{
			{Key: "__dlq.errors.topic", Value: []byte("orders")},
			{Key: "__dlq.errors.partition", Value: []byte("0")},
			{Key: "__dlq.errors.offset", Value: []byte(offset)},
			{Key: "__dlq.errors.group", Value: []byte("share")},
		}}).FirstErr())
	}
	report := b.run(t)
	require.Equal(t, []int{1, 1}, []int{report.Replayed, report.Failed})
	require.ErrorContains(t, report.Failures[0], "retention or compaction has removed them from orders/0/0")
	copies := b.content(t, "orders")
	require.Equal(t, []string{"b", "b"}, []string{string(copies[0].Key), string(copies[1].Key)})
	require.Equal(t, "2", string(copies[1].Value))
}

func TestReplay_StaleMarksOfATopicMadeAnewDoNotCount(t *testing.T) {
	b := setup(t)
	b.buryN(t, 2)
	require.Equal(t, 2, b.run(t).Replayed)
	adm := kadm.NewClient(b.cl)
	_, err := adm.DeleteTopics(t.Context(), "dead")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := adm.CreateTopic(t.Context(), 1, 1, nil, "dead")
		return err == nil
	}, b.timeout, 20*time.Millisecond)
	require.NoError(t, wherry.EnsureTopics(t.Context(), b.open(t), wherry.TopicSpec{Name: "dead"}))
	b.cl = b.open(t)
	b.buryN(t, 2)
	require.Equal(t, []int{2, 0}, func() []int { r := b.run(t); return []int{r.Replayed, r.Decided} }())
}
