package saga_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/saga"
)

// tripPaid ends the step that awaits it, tripRefused refuses it.
var (
	tripPaid    = wherry.Event[order]{Topic: "paid"}
	tripRefused = wherry.Event[string]{Topic: "declined"}
)

// patience is for what has to come about.
func patience(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// tripOfPay is a saga that reserves, and then awaits to be paid.
func tripOfPay(l *diary) saga.Definition[order] {
	return saga.Definition[order]{
		Name: "trip", Steps: []saga.Step[order]{
			{Name: "reserve", Do: l.do("reserve"), Undo: l.undo("reserve")},
			{Name: "pay", NoUndo: true, Do: saga.Await[order](
				saga.Success(tripPaid, func(o *order, p order) { o.Total = p.Total }),
				saga.Failure[order](tripRefused, nil).Because(func(why string) string { return why }),
			)},
			{Name: "notify", Do: l.do("notify"), NoUndo: true},
		},
	}
}

// serving runs an Engine.
func serving(t *testing.T, k *kafkatest.Cluster, d saga.Definition[order]) *saga.Engine[order] {
	t.Helper()
	e := &saga.Engine[order]{Client: k.Client(t), Definitions: []saga.Definition[order]{d}, Topics: wherry.TopicSpec{Partitions: 3}}
	kafkatest.Run(t, e)
	return e
}

func TestS33_AStartIsSeenByItsStarter(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "paid:1", "declined:1")
	var l diary
	e := serving(t, k, tripOfPay(&l))
	_, err := e.Get(patience(t), "o-0")
	require.ErrorIs(t, err, saga.ErrNotFound)
	_, err = e.Wait(patience(t), "o-0")
	require.ErrorIs(t, err, saga.ErrNotFound)
	for i := range 20 {
		id := fmt.Sprint("o-", i)
		require.NoError(t, e.Start(patience(t), id, order{Total: i}))
		in, err := e.Get(patience(t), id)
		require.NoError(t, err)
		require.Equal(t, saga.Running, in.Phase)
		require.Equal(t, order{Total: i, Done: []string{"reserve"}}, in.State)
		require.Equal(t, "trip", in.Saga)
		require.Equal(t, id, in.ID)
		require.Equal(t, []string{"done", "doing", "waiting"}, []string{in.Steps[0].Status, in.Steps[1].Status, in.Steps[2].Status})
		require.Equal(t, "pay", in.Steps[1].Step)
		require.Equal(t, "started", in.History[0].What)
	}
}

func TestS33_WaitIsToldOfTheEndAndOfWhy(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "paid:1", "declined:1")
	var l diary
	e := serving(t, k, tripOfPay(&l))
	type end struct {
		state order
		err   error
	}
	ends := map[string]chan end{}
	for _, id := range []string{"good", "bad"} {
		require.NoError(t, e.Start(patience(t), id, order{}))
		ends[id] = make(chan end, 3)
		for range 3 {
			go func() {
				s, err := e.Wait(patience(t), id)
				ends[id] <- end{s, err}
			}()
		}
	}
	await(t, "six wait", func() bool { return e.Waiting() == 6 })
	require.NoError(t, saga.Signal(patience(t), e, "good", tripPaid, order{Total: 7}))
	require.NoError(t, saga.Signal(patience(t), e, "bad", tripRefused, "no money"))
	for range 3 {
		got := <-ends["good"]
		require.NoError(t, got.err)
		require.Equal(t, order{Total: 7, Done: []string{"reserve", "notify"}}, got.state)
		got = <-ends["bad"]
		var abort *saga.AbortError
		require.ErrorAs(t, got.err, &abort)
		require.Equal(t, []string{"trip", "bad", "pay", "no money"}, []string{abort.Saga, abort.ID, abort.Step, abort.Err.Error()})
		require.Equal(t, order{Done: []string{"reserve"}}, got.state)
	}
	// Who comes late is told too.
	s, err := e.Wait(patience(t), "good")
	require.NoError(t, err)
	require.Equal(t, 7, s.Total)
	in, err := e.Get(patience(t), "bad")
	require.NoError(t, err)
	require.Equal(t, saga.Undone, in.Phase)
	require.Equal(t, "no money", in.Why)
	require.False(t, in.Ended.IsZero())
}

func TestS33_WithoutRunAndFromAnotherProcess(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "paid:1", "declined:1")
	var l diary
	serving(t, k, tripOfPay(&l))
	caller := &reqreply.Caller{Client: k.Client(t)}
	kafkatest.Run(t, caller)
	for name, e := range map[string]*saga.Engine[order]{
		"one for a call": {Client: k.Client(t), Definitions: []saga.Definition[order]{tripOfPay(&l)}},
		"one that runs":  {Client: k.Client(t), Definitions: []saga.Definition[order]{tripOfPay(&l)}, Caller: caller},
	} {
		require.NoError(t, e.Start(patience(t), name, order{}))
		in, err := e.Get(patience(t), name)
		require.NoError(t, err)
		require.Equal(t, saga.Running, in.Phase)
		require.NoError(t, saga.Signal(patience(t), e, name, tripPaid, order{Total: 1}))
		s, err := e.Wait(patience(t), name)
		require.NoError(t, err)
		require.Equal(t, 1, s.Total)
	}
	require.NotZero(t, caller.Status().Answered)
}

func TestS33_WhereNoEngineRunsThatIsSaid(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "paid:1", "declined:1")
	var l diary
	e := &saga.Engine[order]{Client: k.Client(t), Definitions: []saga.Definition[order]{tripOfPay(&l)}}
	_, err := e.Get(patience(t), "o-1")
	require.ErrorContains(t, err, "do not exist")
	require.NoError(t, e.Start(patience(t), "o-1", order{}))
	_, err = e.Get(patience(t), "o-1")
	require.ErrorIs(t, err, reqreply.ErrNoResponder)
	_, err = e.Get(patience(t), "")
	require.ErrorContains(t, err, "the id is empty")

	ctx, cancel := context.WithCancelCause(patience(t))
	over := errors.New("enough")
	waits := make(chan error, 1)
	go func() {
		_, err := e.Wait(ctx, "o-1")
		waits <- err
	}()
	cancel(over)
	require.ErrorIs(t, <-waits, over)
	var asked saga.Engine[order]
	_, err = asked.Get(patience(t), "o-1")
	require.ErrorContains(t, err, "set Definitions")
}

func TestS33_ListAndCountFollowTheStateTopic(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "paid:1", "declined:1")
	var l diary
	e := serving(t, k, tripOfPay(&l))
	for i := range 9 {
		require.NoError(t, e.Start(patience(t), fmt.Sprint("o-", i), order{Total: i}))
	}
	for i := range 3 {
		require.NoError(t, saga.Signal(patience(t), e, fmt.Sprint("o-", i), tripPaid, order{}))
		_, err := e.Wait(patience(t), fmt.Sprint("o-", i))
		require.NoError(t, err)
	}
	require.NoError(t, saga.Signal(patience(t), e, "o-3", tripRefused, "no"))
	_, err := e.Wait(patience(t), "o-3")
	require.Error(t, err)
	for i := range 9 {
		_, err := e.Get(patience(t), fmt.Sprint("o-", i)) // so all has been committed
		require.NoError(t, err)
	}
	list := func(f saga.Filter) (ids []string) {
		for in, err := range e.List(patience(t), f) {
			require.NoError(t, err)
			require.NotNil(t, in.State.Done)
			require.GreaterOrEqual(t, in.Offset, int64(0))
			ids = append(ids, in.ID)
		}
		return ids
	}
	require.Len(t, list(saga.Filter{}), 9)
	require.Equal(t, []string{"o-0", "o-1", "o-2"}, list(saga.Filter{Phases: []saga.Phase{saga.Done}}))
	require.Equal(t, []string{"o-4", "o-5", "o-6", "o-7", "o-8"}, list(saga.Filter{Open: true, Step: "pay", Version: 1}))
	require.Empty(t, list(saga.Filter{Stuck: true}))
	require.Empty(t, list(saga.Filter{Since: time.Now().Add(time.Hour)}))
	c, err := e.Count(patience(t))
	require.NoError(t, err)
	require.Equal(t, map[saga.Phase]int{saga.Running: 5, saga.Done: 3, saga.Undone: 1}, c.Phases)
	require.Equal(t, map[int]int{1: 9}, c.Versions)
	require.Len(t, c.Offsets, 3)
	require.False(t, c.Oldest.IsZero())

	// The same without its code.
	i := &saga.Inspector{Client: k.Client(t), Name: "trip"}
	for s, err := range i.List(patience(t), saga.Filter{Phases: []saga.Phase{saga.Undone}}) {
		require.NoError(t, err)
		require.Equal(t, []string{"o-3", "pay", "no", `{"total":3,"done":["reserve"]}`}, []string{s.ID, s.Step, s.Why, string(s.Raw)})
		require.Equal(t, "notify", s.Steps[2].Step)
	}
	outlines, err := i.Outlines(patience(t))
	require.NoError(t, err)
	require.Len(t, outlines, 1)
	d := tripOfPay(&l)
	require.Equal(t, d.Mermaid(), outlines[0].Mermaid)
	pay := outlines[0].Steps[1]
	require.Equal(t, saga.OutlineStep{Name: "pay", Stage: 1, Do: pay.Do}, pay)
	require.Contains(t, pay.Do, "success paid")
	for _, err := range (&saga.Inspector{Client: k.Client(t), Name: "none"}).List(patience(t), saga.Filter{}) {
		require.ErrorContains(t, err, "do not exist")
	}
}

// A saga that has left memory is found in the topic.
func TestS33_AnEndedSagaIsFoundInTheTopic(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "paid:1", "declined:1")
	var l diary
	e := serving(t, k, tripOfPay(&l))
	require.NoError(t, e.Start(patience(t), "o-1", order{}))
	require.NoError(t, saga.Signal(patience(t), e, "o-1", tripPaid, order{Total: 3}))
	_, err := e.Wait(patience(t), "o-1")
	require.NoError(t, err)
	e.ForgetRecent()
	in, err := e.Get(patience(t), "o-1")
	require.NoError(t, err)
	require.Equal(t, saga.Done, in.Phase)
	require.Equal(t, 3, in.State.Total)
	require.GreaterOrEqual(t, in.Offset, int64(0), "from the topic")
	s, err := e.Wait(patience(t), "o-1")
	require.NoError(t, err)
	require.Equal(t, 3, s.Total)
}

// What an owner says it says in a transaction: nothing is answered before that
// is committed.
func TestS33_AnAnswerIsCommittedOrNone(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "paid:1", "declined:1")
	var l diary
	e := serving(t, k, tripOfPay(&l))
	require.NoError(t, e.Start(patience(t), "o-1", order{}))
	_, err := e.Get(patience(t), "o-1")
	require.NoError(t, err)
	lost := k.Drop(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.EndTxn}, Count: -1})
	short, cancel := context.WithTimeout(patience(t), time.Second)
	defer cancel()
	_, err = e.Get(short, "o-1")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	lost.Remove()
	_, err = e.Get(patience(t), "o-1")
	require.NoError(t, err)
}
