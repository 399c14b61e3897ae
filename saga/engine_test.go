package saga_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
	"github.com/wherry-go/wherry/saga"
)

func TestS14_ThreeLocalSteps(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	var l diary
	e := engine(t, k, trip(l.step("a"), l.step("b"), saga.Step[order]{Name: "c", Do: l.do("c"), NoUndo: true}))
	kafkatest.Run(t, e)
	for i := range 20 {
		require.NoError(t, e.Start(t.Context(), fmt.Sprint("o-", i), order{Total: i}))
	}
	await(t, "the sagas end", func() bool { return e.Status().Ended == 20 })
	all := lastOf(t, k, "trip")
	for i := range 20 {
		id := fmt.Sprint("o-", i)
		require.Equal(t, []string{"a", "b", "c"}, l.of(id))
		require.Equal(t, saga.Done, all[id].Phase)
		require.JSONEq(t, fmt.Sprintf(`{"total":%d,"done":["a","b","c"]}`, i), strings.Replace(string(all[id].Raw), `{"done"`, `{"total":0,"done"`, 1))
	}
	noLetters(t, k)
	st := e.Status()
	require.True(t, st.Ready)
	require.Zero(t, st.Active+st.Queued+st.Early+st.Timers)
}

// One record for a saga and transaction: three local steps take one.
func TestS2_OneRecordForASagaAndTransaction(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	var l diary
	e := engine(t, k, trip(l.step("a"), l.step("b"), saga.Step[order]{Name: "c", Do: l.do("c"), NoUndo: true}))
	kafkatest.Run(t, e)
	require.NoError(t, e.Start(t.Context(), "o-1", order{Total: 5}))
	await(t, "the saga ends", func() bool { return e.Status().Ended == 1 })
	records := slices.DeleteFunc(read(t, k, "trip.saga.state"), func(r *kgo.Record) bool { return r.Key[0] == 0 })
	require.Len(t, records, 1)
	s := lastOf(t, k, "trip")["o-1"]
	require.EqualValues(t, len(s.History), s.Moves, "its history has all transitions since")
	require.Greater(t, len(s.History), 4)
}

func TestS14_RefusedInTheMiddleAndUndone(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	var l diary
	e := engine(t, k, trip(l.step("a"), l.step("b"),
		saga.Step[order]{Name: "c", Do: l.fail("c", errRefused), Undo: l.undo("c")}, saga.Step[order]{Name: "d", Do: l.do("d"), NoUndo: true}))
	kafkatest.Run(t, e)
	require.NoError(t, e.Start(t.Context(), "o-1", order{}))
	await(t, "the saga ends", func() bool { return e.Status().Ended == 1 })
	require.Equal(t, []string{"a", "b", "c 1", "undo b", "undo a"}, l.of("o-1"))
	s := lastOf(t, k, "trip")["o-1"]
	require.Equal(t, saga.Undone, s.Phase)
	require.Equal(t, "c", s.Step)
}

// What others are to see before, and any undo, waits for the commit.
func TestS19_AnUndoWaitsUntilItsReasonIsCommitted(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	var l diary
	committed := make(chan saga.Snapshot, 10)
	look := func(ctx context.Context) {
		op, _ := saga.OpFrom(ctx)
		committed <- lastOf(t, k, "trip")[op.ID]
	}
	e := engine(t, k, trip(
		saga.Step[order]{Name: "a", Do: l.do("a"), Undo: saga.Do(func(ctx context.Context, _ order) error { look(ctx); return nil })},
		saga.Step[order]{Name: "b", Do: saga.Do(func(ctx context.Context, _ order) error { look(ctx); return nil }), NoUndo: true},
		saga.Step[order]{Name: "c", Do: saga.Do(func(ctx context.Context, _ order) error { look(ctx); return nil }), NoUndo: true, Durable: true},
		saga.Step[order]{Name: "d", Do: l.fail("d", errRefused), NoUndo: true},
	))
	kafkatest.Run(t, e)
	require.NoError(t, e.Start(t.Context(), "o-1", order{}))
	b, c, undo := <-committed, <-committed, <-committed
	require.Zero(t, b.Phase, "the next local step waits for nothing")
	require.Equal(t, saga.Running, c.Phase, "a durable one does")
	require.Equal(t, []string{"done", "done", "doing", "waiting"}, statuses(c))
	require.Equal(t, saga.Undoing, undo.Phase)
	require.Equal(t, "d", undo.Step, "the reason is known")
	await(t, "the saga ends", func() bool { return e.Status().Ended == 1 })
}

func statuses(s saga.Snapshot) (all []string) {
	for _, p := range s.Steps {
		all = append(all, p.Status)
	}
	return all
}

var told = wherry.Event[order]{Topic: "told"}

func TestS19_WhatIsSentBeforeALocalStepIsCommittedBeforeIt(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "told")
	e := engine(t, k, trip(
		saga.Step[order]{Name: "tell", Do: saga.Emit(told, func(o order) order { return o }), NoUndo: true},
		saga.Step[order]{Name: "look", Do: saga.Do(func(context.Context, order) error {
			if n := len(read(t, k, "told")); n != 1 {
				return wherry.Permanent(fmt.Errorf("%d are told", n))
			}
			return nil
		}), NoUndo: true},
	))
	kafkatest.Run(t, e)
	require.NoError(t, e.Start(t.Context(), "o-1", order{Total: 7}))
	await(t, "the saga ends", func() bool { return e.Status().Ended == 1 })
	require.Equal(t, saga.Done, lastOf(t, k, "trip")["o-1"].Phase)
	require.Equal(t, 7, kafkatest.Next(t, k, told).Total)
}

func TestS19_LocalStepsRunInABoundedPool(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	var mu sync.Mutex
	now, most := 0, 0
	slow := func(context.Context, order) error {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		time.Sleep(2 * time.Millisecond)
		mu.Lock()
		now--
		mu.Unlock()
		return nil
	}
	e := engine(t, k, trip(saga.Step[order]{Name: "a", Do: saga.Do(slow), NoUndo: true}))
	e.Concurrency = 3
	kafkatest.Run(t, e)
	for i := range 60 {
		require.NoError(t, e.Start(t.Context(), strconv.Itoa(i), order{}))
	}
	await(t, "the sagas end", func() bool { return e.Status().Ended == 60 })
	require.LessOrEqual(t, most, 3)
	require.Greater(t, most, 1, "side by side")
}

func TestS19_ParallelStepsRunAtTheSameTime(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	var l diary
	both := make(chan struct{}, 2)
	meet := func(name string) saga.Action[order] {
		other := make(chan struct{})
		return saga.Local(func(ctx context.Context, _ order) (string, error) {
			both <- struct{}{}
			for len(both) < 2 {
				select {
				case <-ctx.Done():
					return "", ctx.Err()
				case <-time.After(time.Millisecond):
				case <-other:
				}
			}
			return name, nil
		}, func(o *order, r string) { o.Done = append(o.Done, r) })
	}
	e := engine(t, k, trip(l.step("a"), saga.Step[order]{Name: "group", Parallel: []saga.Step[order]{
		{Name: "b", Do: meet("b"), Undo: l.undo("b")}, {Name: "c", Do: meet("c"), Undo: l.undo("c")},
	}}, saga.Step[order]{Name: "d", Do: l.do("d"), NoUndo: true}))
	kafkatest.Run(t, e)
	require.NoError(t, e.Start(t.Context(), "o-1", order{}))
	await(t, "the saga ends", func() bool { return e.Status().Ended == 1 })
	require.JSONEq(t, `{"done":["a","b","c","d"]}`, string(lastOf(t, k, "trip")["o-1"].Raw), "applied in their order")
}

// What a local step publishes would be left behind by a failed attempt.
func TestS19_ALocalStepStagesNothing(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "told")
	type key struct{}
	e := engine(t, k, trip(saga.Step[order]{Name: "a", NoUndo: true, Do: saga.Do(func(ctx context.Context, o order) error {
		if told.Publish(ctx, "x", o) == nil {
			return wherry.Permanent(errors.New("published"))
		}
		if ctx.Value(key{}) != "of Run" {
			return wherry.Permanent(errors.New("without Run's values"))
		}
		return nil
	})}))
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "of Run"))
	end := make(chan error, 1)
	go func() { end <- e.Run(ctx) }()
	require.NoError(t, e.Start(t.Context(), "o-1", order{}))
	require.Equal(t, saga.Done, phaseOf(t, k, "o-1", saga.Done).Phase)
	cancel()
	require.NoError(t, <-end)
}

func TestS14_AConfigurationsFaultsComeAtOnce(t *testing.T) {
	t.Parallel()
	err := (&saga.Engine[order]{MaxActive: -1, Gate: saga.Gate{Probe: -1}}).Run(t.Context())
	require.ErrorContains(t, err, "no client")
	require.ErrorContains(t, err, "no definitions")
	require.ErrorContains(t, err, "MaxActive")
	require.ErrorContains(t, err, "Probe")
	k := kafkatest.NewCluster(t)
	var l diary
	step := saga.Step[order]{Name: "a", Do: l.do("a"), NoUndo: true}
	err = engine(t, k, trip(step), trip(step), saga.Definition[order]{Name: "other", Steps: []saga.Step[order]{step}}).Run(t.Context())
	require.ErrorContains(t, err, "two definitions of \"trip\" have version 1")
	require.ErrorContains(t, err, "runs the sagas of one name")
	e := engine(t, k, trip(step))
	require.ErrorContains(t, e.Start(t.Context(), "", order{}), "the id is empty")
	require.ErrorContains(t, e.Start(t.Context(), strings.Repeat("x", 257), order{}), "the limit is 256")
	stop := kafkatest.Run(t, e)
	require.NoError(t, stop())
	require.ErrorContains(t, e.Run(t.Context()), "has run already")
}

// Two engines share the partitions; one leaves and one comes while sagas are under
// way.
func TestS15_EnginesShareSagasThroughRebalances(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	var l diary
	def := trip(l.step("a"), saga.Step[order]{Name: "b", Do: l.fail("b", errFailed, nil), Undo: l.undo("b"), Retry: retry.Policy{Attempts: 5, Initial: 20 * time.Millisecond}},
		saga.Step[order]{Name: "c", Do: saga.Do(func(_ context.Context, o order) error {
			if o.Total%3 == 0 {
				return errRefused
			}
			return nil
		}), NoUndo: true})
	first := engine(t, k, def)
	stop := kafkatest.Run(t, first)
	client := engine(t, k, def)
	const n = 300
	started := make(chan error, 1)
	go func() {
		for i := range n {
			if err := client.Start(t.Context(), strconv.Itoa(i), order{Total: i}); err != nil {
				started <- err
				return
			}
		}
		started <- nil
	}()
	stop2 := kafkatest.Run(t, engine(t, k, def))
	require.NoError(t, stop())
	kafkatest.Run(t, engine(t, k, def))
	require.NoError(t, stop2())
	kafkatest.Run(t, engine(t, k, def))
	require.NoError(t, <-started)
	var all map[string]saga.Snapshot
	await(t, "all end", func() bool {
		all = lastOf(t, k, "trip")
		ended := 0
		for _, s := range all {
			if s.Phase.Ended() {
				ended++
			}
		}
		return ended == n
	})
	for i := range n {
		s := all[strconv.Itoa(i)]
		want := saga.Done
		if i%3 == 0 {
			want = saga.Undone
		}
		require.Equal(t, want, s.Phase, i)
		if i%3 == 0 {
			got := l.of(strconv.Itoa(i))
			require.Contains(t, got, "undo a")
			require.Contains(t, got, "undo b")
		}
	}
	noLetters(t, k)
}
