package saga_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/saga"
)

type (
	placed  struct{ ID string }
	payment struct{ OrderID, Reason string }
)

var (
	orderPlaced = wherry.Event[placed]{Topic: "order.placed"}
	orderMade   = wherry.Event[placed]{Topic: "order.made"}
	wasPaid     = wherry.Event[payment]{Topic: "paid"}
	unpaid      = wherry.Event[payment]{Topic: "unpaid"}
	cancelled   = wherry.Event[placed]{Topic: "cancelled"}
)

func byOrder(p payment) string { return p.OrderID }

// paying is started by an event, sends one, and awaits one of two.
func paying(l *diary) saga.Definition[order] {
	def := trip(
		saga.Step[order]{
			Name: "pay", Do: saga.Emit(orderMade, func(o order) placed { return placed{strconv.Itoa(o.Total)} },
				saga.Success(wasPaid, func(o *order, p payment) { o.Done = append(o.Done, "paid") }),
				saga.Failure[order](unpaid, func(*order, payment) {}).By(byOrder).Because(func(p payment) string { return p.Reason })),
			Undo: saga.Emit(cancelled, func(o order) placed { return placed{strconv.Itoa(o.Total)} }),
		},
		saga.Step[order]{Name: "log", Do: l.do("log"), NoUndo: true},
	)
	def.Start = []saga.Trigger[order]{saga.On(orderPlaced, func(placed) order { return order{Total: 7} })}
	return def
}

var payingTopics = []string{"order.placed", "order.made:1", "paid", "unpaid", "cancelled"}

func TestS22_EventsStartSagasAndEndTheirSteps(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, payingTopics...)
	kafkatest.Send(t, k, orderPlaced, "before", placed{}) // before the engine was first started
	var l diary
	def := paying(&l)
	e := engine(t, k, def)
	stop := kafkatest.Run(t, e)
	kafkatest.Send(t, k, orderPlaced, "o-1", placed{})
	kafkatest.Send(t, k, orderPlaced, "o-2", placed{})
	kafkatest.Send(t, k, orderPlaced, "o-2", placed{}) // starts no other
	require.Equal(t, "7", kafkatest.Next(t, k, orderMade).ID)
	require.Equal(t, "7", kafkatest.Next(t, k, orderMade).ID)
	kafkatest.Send(t, k, wasPaid, "o-1", payment{})
	kafkatest.Send(t, k, unpaid, "whatever", payment{OrderID: "o-2", Reason: "no money"})
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "unpaid", Key: []byte("o-2"), Value: []byte("no JSON")})
	await(t, "the sagas end", func() bool { return e.Status().Ended == 2 })
	all := lastOf(t, k, "trip")
	require.Len(t, all, 2)
	require.Equal(t, saga.Done, all["o-1"].Phase)
	require.JSONEq(t, `{"total":7,"done":["paid","log"]}`, string(all["o-1"].Raw))
	require.Equal(t, saga.Undone, all["o-2"].Phase)
	require.Equal(t, "no money", all["o-2"].Why)
	await(t, "the letter", func() bool { return len(letters(t, k)) == 1 })
	letter := letters(t, k)[0]
	require.Equal(t, wherry.CauseUndecodable, letter.Cause)
	require.Equal(t, "unpaid", letter.Topic)
	require.Equal(t, "no JSON", string(letter.Value))
	require.Equal(t, "trip.saga.router", letter.Group)

	require.NoError(t, stop())
	kafkatest.Send(t, k, orderPlaced, "o-3", placed{}) // while none runs
	kafkatest.Run(t, engine(t, k, def))
	kafkatest.Send(t, k, wasPaid, "o-3", payment{})
	require.Equal(t, saga.Done, phaseOf(t, k, "o-3", saga.Done).Phase)
}

func TestS22_FromTheStartOfATopic(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, payingTopics...)
	kafkatest.Send(t, k, orderPlaced, "before", placed{})
	var l diary
	def := trip(saga.Step[order]{Name: "a", Do: l.do("a"), NoUndo: true})
	def.Start = []saga.Trigger[order]{
		saga.On(orderPlaced, func(placed) order { return order{} }).From(wherry.Earliest),
		saga.On(orderMade, func(p placed) order { return order{} }).By(func(p placed) string { return p.ID }),
	}
	e := engine(t, k, def)
	kafkatest.Run(t, e)
	kafkatest.Send(t, k, orderMade, "", placed{ID: "other"})
	await(t, "the sagas end", func() bool { return e.Status().Ended == 2 })
	require.Equal(t, []string{"a"}, l.of("before"))
	require.Equal(t, []string{"a"}, l.of("other"))
}

// An event that comes before its step, or before its saga, waits.
func TestS23_AnEventBeforeItsTimeWaits(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, payingTopics...)
	var l diary
	hold := make(chan struct{})
	def := paying(&l)
	def.Steps = append([]saga.Step[order]{{Name: "first", NoUndo: true, Do: saga.Do(func(ctx context.Context, _ order) error {
		select {
		case <-hold:
		case <-ctx.Done():
		}
		return ctx.Err()
	})}}, def.Steps...)
	e := engine(t, k, def)
	e.Retention = 365 * 24 * time.Hour
	kafkatest.Run(t, e)
	kafkatest.Send(t, k, wasPaid, "o-1", payment{}) // before its saga
	await(t, "it waits", func() bool { return e.Status().Early == 1 })
	require.Equal(t, saga.Early, lastOf(t, k, "trip")["o-1"].Phase)
	kafkatest.Send(t, k, orderPlaced, "o-1", placed{})
	kafkatest.Send(t, k, orderPlaced, "o-2", placed{})
	kafkatest.Send(t, k, wasPaid, "o-2", payment{}) // before its step
	close(hold)
	await(t, "the sagas end", func() bool { return e.Status().Ended == 2 })
	require.Equal(t, []string{"log"}, l.of("o-1"))
	require.Equal(t, []string{"log"}, l.of("o-2"))
	require.Zero(t, e.Status().Early)
	noLetters(t, k)
}

func TestS23_AnEventThatWaitsForTooLongIsADeadLetter(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, payingTopics, func(t *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(3 * time.Minute)
		var l diary
		e := engine(t, k, paying(&l))
		e.EventTTL = 10 * time.Minute
		kafkatest.Run(t, e)
		sent := kafkatest.Send(t, k, wasPaid, "nobody", payment{OrderID: "x"})
		k.Sleep(t, 9*time.Minute)
		require.Equal(t, 1, e.Status().Early)
		noLetters(t, k)
		k.Sleep(t, 2*time.Minute)
		require.Zero(t, e.Status().Early)
		require.Empty(t, lastOf(t, k, "trip"))
		all := letters(t, k)
		require.Len(t, all, 1)
		require.Equal(t, wherry.CauseExpired, all[0].Cause)
		require.Equal(t, []any{"paid", sent.Partition, sent.Offset}, []any{all[0].Topic, all[0].Partition, all[0].Offset})
		require.Equal(t, sent.Value, all[0].Value)
		require.Equal(t, "nobody", string(all[0].Key))
	})
}

func TestS23_MoreEventsThanMayWaitAreDeadLetters(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, payingTopics...)
	var l diary
	e := engine(t, k, paying(&l))
	e.MaxEarly, e.Topics.Partitions = 10, 1
	kafkatest.Run(t, e)
	for i := range 30 {
		kafkatest.Send(t, k, wasPaid, strconv.Itoa(i), payment{})
		await(t, "it is taken in", func() bool { return e.Status().Early == min(i+1, 10) })
	}
	await(t, "the rest are dead letters", func() bool { return len(letters(t, k)) == 20 })
	require.Equal(t, 10, e.Status().Early)
	for _, letter := range letters(t, k) {
		require.Equal(t, wherry.CauseExpired, letter.Cause)
	}
	require.Len(t, lastOf(t, k, "trip"), 10)
}
