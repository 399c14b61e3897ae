package dlq_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/dlq"
)

func TestList_GivesLettersInOrderWithWhatWasDecided(t *testing.T) {
	b := setup(t)
	b.buryN(t, 4)
	b.run(t, func(r *dlq.Replayer) { r.Select.Keys = []string{"k-0"} })
	b.run(t, func(r *dlq.Replayer) { r.Select.Keys, r.Action = []string{"k-1"}, dlq.Park })
	b.run(t, func(r *dlq.Replayer) { r.Select.Keys, r.Action = []string{"k-2"}, dlq.Discard })
	var got []dlq.Action
	for i, e := range b.entries(t, dlq.Selection{Decided: true}) {
		require.Equal(t, int64(i), e.Record.Offset)
		if e.Decision == nil {
			got = append(got, "")
			continue
		}
		got = append(got, e.Decision.Action)
	}
	require.Equal(t, []dlq.Action{dlq.Replay, dlq.Park, dlq.Discard, ""}, got)
	undecided := b.entries(t, dlq.Selection{})
	require.Len(t, undecided, 1)
	require.Equal(t, "v-3", string(undecided[0].Value))
	require.Len(t, b.entries(t, dlq.Selection{Decided: true, Limit: 2}), 2)
}

func TestList_EndsWithAnErrorOrWhenNobodyReadsOn(t *testing.T) {
	b := setup(t)
	b.buryN(t, 3)
	n := 0
	for range b.replayer().List(t.Context()) {
		n++
		break
	}
	require.Equal(t, 1, n)
	for _, err := range b.replayer(func(r *dlq.Replayer) { r.Topic = "nowhere" }).List(t.Context()) {
		require.ErrorContains(t, err, "topic nowhere: it does not exist")
		n++
	}
	require.Equal(t, 2, n)
}

func TestLedger_AMarkThatCannotBeReadIsADecision(t *testing.T) {
	b := setup(t)
	b.buryN(t, 2)
	b.ledger(t)
	topics, err := kadm.NewClient(b.cl).ListTopics(t.Context(), "dead")
	require.NoError(t, err)
	id := kafkaID(topics["dead"].ID)
	for key, value := range map[string]string{id + "/0/0": "not JSON", "nonsense": "{}", id + "/0/-1": "{}", "run/" + id: "{}"} {
		require.NoError(t, b.cl.ProduceSync(t.Context(), &kgo.Record{Topic: "dead.ledger", Key: []byte(key), Value: []byte(value)}).FirstErr())
	}
	report := b.run(t)
	require.Equal(t, []int{1, 1}, []int{report.Decided, report.Replayed})
	require.WithinDuration(t, time.Now(), b.entries(t, dlq.Selection{Decided: true})[0].Decision.At, time.Minute)

	// A tombstone takes a decision back.
	require.NoError(t, b.cl.ProduceSync(t.Context(), &kgo.Record{Topic: "dead.ledger", Key: []byte(id + "/0/0")}).FirstErr())
	require.Equal(t, 1, b.run(t).Replayed)
}

func TestLedger_OfSeveralPartitionsIsRefused(t *testing.T) {
	b := setup(t, "dead.ledger:2")
	b.buryN(t, 1)
	_, err := b.replayer().Run(t.Context())
	require.ErrorContains(t, err, "dead.ledger")
	require.ErrorContains(t, err, "2 partitions")
	for _, err := range b.replayer().List(t.Context()) {
		require.ErrorContains(t, err, "it has 2 partitions, a ledger has one")
	}
}
