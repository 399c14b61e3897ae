package saga_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
	"github.com/wherry-go/wherry/saga"
)

// An id is bytes: it comes through commands, replies, events, questions and verbs
// as it is.
func TestS21_IDsOfAnyBytes(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "ask", "paid", "unpaid", "order.made")
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "asked", Handlers: []wherry.Route{
		asked.Handler(func(_ context.Context, o order) (order, error) { return o, nil }),
	}})
	e := engine(t, k, trip(
		saga.Step[order]{Name: "ask", NoUndo: true, Do: saga.Call(asked, func(o order) order { return o }, func(o *order, _ order) { o.Done = append(o.Done, "asked") })},
		saga.Step[order]{Name: "pay", NoUndo: true, Do: saga.Emit(orderMade, func(order) placed { return placed{} }, saga.Success(wasPaid, func(o *order, _ payment) { o.Done = append(o.Done, "paid") }))},
	))
	kafkatest.Run(t, e)
	for i, id := range []string{"\xff\xfe\x80", "a\x00b", " ", "\n", "a.do.1.2", "\xff", strings.Repeat("x", 256), strings.Repeat("\xc3", 256)} {
		require.NoError(t, e.Start(t.Context(), id, order{Total: i}))
		require.Equal(t, id, string(kafkatest.NextRecord(t, k, "order.made").Key))
		by := saga.By{Actor: "ann", Reason: "to see"}
		require.NoError(t, e.Pause(t.Context(), id, by))
		require.NoError(t, e.Resume(t.Context(), id, by))
		kafkatest.Send(t, k, wasPaid, id, payment{})
		state, err := e.Wait(t.Context(), id)
		require.NoError(t, err, "%q", id)
		require.Equal(t, order{Total: i, Done: []string{"asked", "paid"}}, state, "%q", id)
		got, err := e.Get(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, id, got.ID)
	}
	noLetters(t, k)
}

func TestS22_AnEventOfNoIDIsADeadLetter(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, payingTopics...)
	var l diary
	e := engine(t, k, paying(&l))
	kafkatest.Run(t, e)
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "order.placed", Value: []byte("{}")})
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "order.placed", Key: []byte(strings.Repeat("k", 10_000)), Value: []byte("{}")})
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "order.placed", Key: []byte("\x00saga"), Value: []byte("{}")})
	kafkatest.Send(t, k, orderPlaced, "o-1", placed{})
	kafkatest.Send(t, k, wasPaid, "o-1", payment{})
	await(t, "the saga ends, and the letters", func() bool { return e.Status().Ended == 1 && len(letters(t, k)) == 3 })
	for _, letter := range letters(t, k) {
		require.Equal(t, wherry.CauseUndecodable, letter.Cause)
		require.Equal(t, "order.placed", letter.Topic)
	}
	for _, id := range []string{"", strings.Repeat("k", 10_000), "\x00saga"} {
		_, err := e.Get(t.Context(), id)
		require.Error(t, err)
		require.NotErrorIs(t, err, saga.ErrNotFound)
		require.Error(t, saga.Signal(t.Context(), e, id, wasPaid, payment{}))
	}
}

// A state that fits by a few bytes, or does not: its history grows with what
// comes, and at some time there is no room for it.
func TestS26_AStateAtTheLimit(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(time.Minute)
		const limit = 20_000
		tries := map[string]int{}
		e := &saga.Engine[order]{
			Client: k.Client(t, kgo.ProducerBatchMaxBytes(limit)), Topics: wherry.TopicSpec{Partitions: 1}, Concurrency: 1, Gate: saga.Gate{After: -1}, Retention: 24 * time.Hour,
			Definitions: []saga.Definition[order]{trip(
				saga.Step[order]{Name: "fill", NoUndo: true, Do: saga.Local(func(_ context.Context, o order) (int, error) { return o.Total, nil },
					func(o *order, n int) { o.Pad = strings.Repeat("x", n) })},
				saga.Step[order]{
					Name: "then", NoUndo: true, Retry: retry.Policy{Attempts: 30, Initial: time.Minute, Multiplier: 1},
					Do: saga.Do(func(ctx context.Context, _ order) error {
						op, _ := saga.OpFrom(ctx)
						if tries[op.ID]++; tries[op.ID] < 25 {
							return errors.New("a text of which some room is taken")
						}
						return nil
					}),
				},
			)},
		}
		kafkatest.Run(t, e)
		n := 0
		for size := limit - 2400; size < limit+50; size += 43 {
			require.NoError(t, e.Start(t.Context(), strconv.Itoa(size), order{Total: size}))
			n++
		}
		k.Sleep(t, 3*time.Hour)
		phases := map[saga.Phase]int{}
		for id, s := range lastOf(t, k, "trip") {
			phases[s.Phase]++
			require.Contains(t, []saga.Phase{saga.Done, saga.Quarantined}, s.Phase, "%s: %s", id, s.Why)
		}
		refused := letters(t, k)
		t.Log(phases, len(refused))
		for id, tried := range tries {
			require.LessOrEqual(t, tried, 25, "%s: it is held, and not tried for ever", id)
		}
		require.Equal(t, n, phases[saga.Done]+phases[saga.Quarantined]+len(refused))
		require.Positive(t, phases[saga.Done])
		require.Positive(t, phases[saga.Quarantined])
		for _, letter := range refused {
			require.Equal(t, "start", string(letter.Headers[0].Value))
			require.Contains(t, letter.Error, "MESSAGE_TOO_LARGE")
		}
	})
}
