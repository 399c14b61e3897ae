package saga_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
	"github.com/wherry-go/wherry/saga"
)

var ada = saga.By{Actor: "ada", Reason: "the customer called"}

// verbs are the lines of a saga's history that verbs left.
func verbs(in saga.Instance[order]) (lines []string) {
	for _, t := range in.History {
		if t.What == "verb" {
			lines = append(lines, strings.TrimSpace(t.Step+" "+t.Note))
		}
	}
	return lines
}

func TestS35_CancelUndoesWhatWasDoneOnce(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "paid:1", "declined:1")
	var l diary
	e := serving(t, k, tripOfPay(&l))
	require.NoError(t, e.Start(patience(t), "o-1", order{}))
	once := ada
	once.ID = "ticket-7"
	require.NoError(t, e.Undo(patience(t), "o-1", once))
	_, err := e.Wait(patience(t), "o-1")
	var abort *saga.AbortError
	require.ErrorAs(t, err, &abort)
	require.Equal(t, "pay", abort.Step)
	require.ErrorContains(t, err, "undo by ada: the customer called")
	require.Equal(t, []string{"reserve", "undo reserve"}, l.of("o-1"))
	in, err := e.Get(patience(t), "o-1")
	require.NoError(t, err)
	require.Equal(t, []string{"undo by ada: the customer called"}, verbs(in))

	var refused *saga.VerbError
	require.ErrorAs(t, e.Cancel(patience(t), "o-1", ada), &refused)
	require.Equal(t, saga.VerbError{Saga: "trip", ID: "o-1", Verb: saga.Cancel, Reason: refused.Reason}, *refused)
	require.Contains(t, refused.Reason, "the saga has ended, it is undone")
	require.ErrorAs(t, e.Pause(patience(t), "none", ada), &refused)
	require.Contains(t, refused.Reason, "there is no such saga")
}

func TestS35_AVerbOfOneIDIsAppliedOnce(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "paid:1", "declined:1")
	var l diary
	e := serving(t, k, tripOfPay(&l))
	require.NoError(t, e.Start(patience(t), "o-1", order{}))
	once := ada
	once.ID = "ticket-7"
	require.NoError(t, e.Pause(patience(t), "o-1", once))
	require.NoError(t, e.Resume(patience(t), "o-1", ada))
	require.NoError(t, e.Pause(patience(t), "o-1", once), "asked again, after it was done")
	in, err := e.Get(patience(t), "o-1")
	require.NoError(t, err)
	require.False(t, in.Paused)
	require.Equal(t, []string{"pause by ada: the customer called", "resume by ada: the customer called"}, verbs(in))
	require.ErrorContains(t, e.Resume(patience(t), "o-1", ada), "it is not paused")
}

func TestS35_PauseHoldsWhatComesNext(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "paid:1", "declined:1")
	var l diary
	e := serving(t, k, tripOfPay(&l))
	require.NoError(t, e.Start(patience(t), "o-1", order{}))
	require.NoError(t, e.Pause(patience(t), "o-1", ada))
	require.NoError(t, saga.Signal(patience(t), e, "o-1", tripPaid, order{Total: 5}))
	why, err := e.Why(patience(t), "o-1")
	require.NoError(t, err)
	require.True(t, why.Paused)
	require.Contains(t, why.String(), "it is paused")
	require.Equal(t, []string{"reserve"}, l.of("o-1"), "what came was taken in, and nothing begun")
	require.NoError(t, e.Resume(patience(t), "o-1", ada))
	s, err := e.Wait(patience(t), "o-1")
	require.NoError(t, err)
	require.Equal(t, order{Total: 5, Done: []string{"reserve", "notify"}}, s)
}

func TestS35_SkipAndCompleteSettleTheStepInHand(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "paid:1", "declined:1")
	var l diary
	e := serving(t, k, tripOfPay(&l))
	require.NoError(t, e.Start(patience(t), "o-1", order{}))
	by := ada
	by.Step = "notify"
	var refused *saga.VerbError
	require.ErrorAs(t, e.Skip(patience(t), "o-1", by), &refused)
	require.Contains(t, refused.Reason, `step "notify" is not in hand`)
	by.Step = "pay"
	require.NoError(t, e.Skip(patience(t), "o-1", by))
	s, err := e.Wait(patience(t), "o-1")
	require.NoError(t, err)
	require.Equal(t, order{Done: []string{"reserve", "notify"}}, s)

	require.NoError(t, e.Start(patience(t), "o-2", order{}))
	by.Step, by.State = "", []byte(`{"total":99}`)
	require.NoError(t, e.Complete(patience(t), "o-2", by))
	s, err = e.Wait(patience(t), "o-2")
	require.NoError(t, err)
	require.Equal(t, order{Total: 99, Done: []string{"notify"}}, s)
	in, err := e.Get(patience(t), "o-2")
	require.NoError(t, err)
	require.Equal(t, "done", in.Steps[1].Status)
	require.Equal(t, []string{"pay complete by ada: the customer called"}, verbs(in))
}

// tripOfCharge is a saga whose one step fails until it is mended, with an hour between
// attempts.
func tripOfCharge(mended *atomic.Bool) saga.Definition[order] {
	return saga.Definition[order]{
		Name: "trip", Steps: []saga.Step[order]{{
			Name: "charge", NoUndo: true, Retry: retry.Policy{Initial: time.Hour, Max: time.Hour},
			Do: saga.Do(func(context.Context, order) error {
				if mended.Load() {
					return nil
				}
				return errors.New("the bank is closed")
			}),
		}},
	}
}

func TestS35_RetryTriesAtOnceAndWhySaysWhatItWaitedFor(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	var mended atomic.Bool
	e := serving(t, k, tripOfCharge(&mended))
	require.NoError(t, e.Start(patience(t), "o-1", order{}))
	why, err := e.Why(patience(t), "o-1")
	require.NoError(t, err)
	require.Len(t, why.Steps, 1)
	step := why.Steps[0]
	require.Equal(t, saga.StepReason{Step: "charge", Does: "local", Attempt: 2, Between: true, Since: step.Since, Next: step.Next, Last: "the bank is closed"}, step)
	require.WithinDuration(t, time.Now().Add(time.Hour), why.Next, 30*time.Minute)
	require.Regexp(t, `^"o-1" waits to make attempt 2 at step "charge" \(local\) \(the one before: the bank is closed\), since .*; it begins at .*\.$`, why.String())
	mended.Store(true)
	require.NoError(t, e.Retry(patience(t), "o-1", ada))
	_, err = e.Wait(patience(t), "o-1")
	require.NoError(t, err)
}

func TestS35_PurgeForgets(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "paid:1", "declined:1")
	var l diary
	e := serving(t, k, tripOfPay(&l))
	require.NoError(t, e.Start(patience(t), "o-1", order{}))
	waits := make(chan error, 1)
	go func() {
		_, err := e.Wait(patience(t), "o-1")
		waits <- err
	}()
	await(t, "one waits", func() bool { return e.Waiting() == 1 })
	require.NoError(t, e.Purge(patience(t), "o-1", ada))
	_, err := e.Get(patience(t), "o-1")
	require.ErrorIs(t, err, saga.ErrNotFound)
	require.ErrorIs(t, <-waits, saga.ErrNotFound)
	c, err := e.Count(patience(t))
	require.NoError(t, err)
	require.Empty(t, c.Phases)

	require.NoError(t, e.Start(patience(t), "o-1", order{}), "it may begin anew")
	require.NoError(t, saga.Signal(patience(t), e, "o-1", tripPaid, order{}))
	_, err = e.Wait(patience(t), "o-1")
	require.NoError(t, err)
	require.NoError(t, e.Purge(patience(t), "o-1", ada), "also one that has ended")
	_, err = e.Get(patience(t), "o-1")
	require.ErrorIs(t, err, saga.ErrNotFound)
}

func TestS35_WhoAndWhyAreAsked(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	i := &saga.Inspector{Client: k.Client(t), Name: "trip"}
	err := i.Do(t.Context(), "o-1", "explode", saga.By{Step: "a", State: []byte("{}")})
	for _, want := range []string{"there is no such verb", "no actor", "no reason", "By.Step is for retry, skip and complete", "By.State is for complete"} {
		require.ErrorContains(t, err, want)
	}
	require.ErrorContains(t, (&saga.Inspector{}).Do(t.Context(), "o-1", saga.Pause, ada), "set Client")
}

// A signal is an event like one that was read, and each is one of its own.
func TestS33_SignalsAreEvents(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "paid:1", "declined:1")
	var l diary
	e := serving(t, k, tripOfPay(&l))
	require.ErrorContains(t, saga.Signal(patience(t), e, "o-1", wherry.Event[string]{Topic: "elsewhere"}, ""), `no Definition has a trigger or an outcome of topic "elsewhere"`)
	require.ErrorContains(t, saga.Signal(patience(t), e, "\x00", tripPaid, order{}), "zero byte")
	require.NoError(t, saga.Signal(patience(t), e, "o-1", tripPaid, order{Total: 3}))
	why, err := e.Why(patience(t), "o-1")
	require.NoError(t, err)
	require.Equal(t, saga.Early, why.Phase)
	require.Contains(t, why.String(), "1 event waits for its start")
	_, err = e.Wait(patience(t), "o-1")
	require.ErrorIs(t, err, saga.ErrNotFound)
	require.NoError(t, e.Start(patience(t), "o-1", order{}))
	s, err := e.Wait(patience(t), "o-1")
	require.NoError(t, err)
	require.Equal(t, 3, s.Total)
}
