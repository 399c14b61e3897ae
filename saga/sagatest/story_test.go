package sagatest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/saga"
	"github.com/wherry-go/wherry/saga/sagatest"
)

func TestStory_PaymentRefused(t *testing.T) {
	t.Parallel()
	s := sagatest.Start(t, checkout(), "o-1", order{Total: 100})
	s.Asked("reserve")
	s.Reply("reserve", reserved{Shelf: "A3"})
	sagatest.Event(s, paymentFailed, paymentLost{Order: "o-1", Why: "card declined"})
	s.Asked("undo reserve")
	s.Reply("undo reserve", nil)
	s.Undone("pay")
	s.Golden("testdata/payment_refused.txt")
}

func TestStory_AllGoesWellFromAnEvent(t *testing.T) {
	t.Parallel()
	s := sagatest.New(t, checkout(), "o-1")
	sagatest.Event(s, orderPlaced, placed{Total: 100})
	require.Equal(t, reserveReq{Total: 100}, sagatest.Request[reserveReq](s, "reserve"))
	s.Reply("reserve", reserved{Shelf: "A3"})
	require.Equal(t, []paymentDue{{Total: 100}}, sagatest.Emitted(s, paymentWanted))
	sagatest.Event(s, paymentCreated, payment{ID: "p-1", Order: "o-1"})
	s.Reply("ship", shipped{Parcel: "P1"})
	s.Done()
	require.Equal(t, order{Total: 100, Shelf: "A3", Payment: "p-1", Parcel: "P1", Logged: true}, s.State())
	require.Len(t, s.Calls("log"), 1)
	require.Len(t, sagatest.Emitted(s, notifyWanted), 1)
	require.Zero(t, s.Elapsed())
	s.Golden("testdata/done.txt")
}

func TestStory_EventsComeEarlyAndTwice(t *testing.T) {
	t.Parallel()
	s := sagatest.New(t, checkout(), "o-1")
	sagatest.Event(s, paymentCreated, payment{ID: "p-1", Order: "o-1"})
	s.Is(saga.Early)
	s.Twice()
	s.Start(order{Total: 100})
	s.Twice() // a start that comes twice changes nothing
	s.Asked("reserve")
	s.Reply("reserve", reserved{Shelf: "A3"})
	s.Asked("ship")
	s.Twice()
	s.Asked("ship")
	sagatest.Event(s, paymentCreated, payment{ID: "p-2", Order: "o-1"})
	require.Equal(t, "p-1", s.State().Payment)
	require.Len(t, sagatest.Emitted(s, paymentWanted), 1)
}

func TestStory_EventsThatNobodyAwaitsInTimeExpire(t *testing.T) {
	t.Parallel()
	s := sagatest.New(t, checkout(), "o-1")
	sagatest.Event(s, paymentCreated, payment{ID: "p-1", Order: "o-1"})
	s.Advance(time.Hour - time.Millisecond)
	require.Empty(t, s.Expired())
	s.Advance(time.Millisecond)
	require.Equal(t, []string{"payment.created"}, s.Expired())
	s.Is(0)
}

func TestStory_TimeGoesOnAsAskedAndNothingIsEarly(t *testing.T) {
	t.Parallel()
	s := sagatest.Start(t, checkout(), "o-1", order{Total: 100})
	s.Lose("reserve")
	s.Advance(10*time.Second - time.Millisecond)
	require.Equal(t, 1, s.Snapshot().Steps[0].Attempt)
	s.Next() // it times out
	require.Equal(t, 10*time.Second, s.Elapsed())
	s.Asked()
	s.Next() // and is tried again, as retry.Policy says
	require.Equal(t, 11*time.Second, s.Elapsed())
	s.Asked("reserve")
	s.Late("reserve", reserved{Shelf: "late"})
	require.Equal(t, "late", s.State().Shelf)
	s.Asked("pay")
	s.Late("reserve", reserved{Shelf: "later"}) // attempt 2, which nobody waits for now
	require.Equal(t, "late", s.State().Shelf)
	s.Advance(10 * time.Minute) // pay times out, and is taken back with reserve
	s.Asked("undo reserve")
	require.Len(t, sagatest.Emitted(s, refundWanted), 1)
	require.Equal(t, 10*time.Minute+11*time.Second, s.Elapsed())
	s.Lose("undo reserve")
	s.Next()
	s.Late("undo reserve", nil)
	s.Undone("pay")
	s.Golden("testdata/late.txt")
}

func TestStory_ParticipantsFailAndAreAskedAgain(t *testing.T) {
	t.Parallel()
	s := sagatest.Start(t, checkout(), "o-1", order{Total: 100})
	for range 2 {
		s.Fail("reserve", "no database")
		s.Next()
	}
	s.Asked("reserve")
	s.Fail("reserve", "no database")
	s.Undone("reserve")
	var asked []int
	for _, sent := range s.Sent() {
		asked = append(asked, sent.Op.Attempt)
	}
	require.Equal(t, []int{1, 2, 3}, asked)
}

func TestStory_AnUndoIsTriedUntilItIsDoneAndStuckIsTold(t *testing.T) {
	t.Parallel()
	s := sagatest.Start(t, checkout(), "o-1", order{Total: 100})
	s.Reply("reserve", reserved{Shelf: "A3"})
	sagatest.Event(s, paymentFailed, paymentLost{Order: "o-1"})
	for !s.Snapshot().Stuck {
		s.Refuse("undo reserve", "gone", "no such shelf")
		s.Next()
	}
	s.Stuck("reserve")
	require.Equal(t, 15*time.Minute, s.Elapsed())
	s.Next()
	s.Reply("undo reserve", struct{}{})
	s.Undone("pay")
}

// bookkeeping has Local steps that are undone.
func bookkeeping(calls *[]saga.Op) saga.Definition[order] {
	note := func(ctx context.Context, _ order) error {
		op, _ := saga.OpFrom(ctx)
		*calls = append(*calls, op)
		return nil
	}
	return saga.Definition[order]{Name: "books", Steps: []saga.Step[order]{
		{Name: "book", Do: saga.Do(note), Undo: saga.Do(note)},
		{Name: "count", Do: saga.Local(
			func(context.Context, order) (int, error) { return 7, nil },
			func(o *order, n int) { o.Total += n },
		), Undo: saga.Do(note)},
		{Name: "wait", Do: saga.Call(ship, func(order) shipReq { return shipReq{} }, nil), NoUndo: true},
	}}
}

func TestStory_ACrashHasLocalStepsDoneAgainUnderTheSameOp(t *testing.T) {
	t.Parallel()
	var calls []saga.Op
	s := sagatest.Start(t, bookkeeping(&calls), "b-1", order{Total: 1})
	s.Crash()
	require.Equal(t, 8, s.State().Total, "what was not committed does not count")
	do := saga.Op{Saga: "books", ID: "b-1", Step: "book", Attempt: 1}
	require.Equal(t, []saga.Op{do, do}, calls)
	require.Len(t, s.Calls("count"), 2)
	require.Len(t, s.Sent(), 1)

	s.Refuse("wait", "no", "never")
	s.Undone("wait")
	require.Len(t, calls, 4)
	s.Crash() // of the last undo alone: that of count was committed
	s.Undone("wait")
	require.Len(t, s.Calls("undo count"), 1)
	require.Len(t, s.Calls("undo book"), 2)
	s.Golden("testdata/crash.txt")
}

func TestStory_ALocalStepThatFailsAfterACrashIsUndone(t *testing.T) {
	t.Parallel()
	var calls []saga.Op
	s := sagatest.New(t, bookkeeping(&calls), "b-1")
	s.FailLocal("book", nil, wherry.Permanent(errors.New("closed")))
	s.Start(order{})
	s.Asked("wait")
	s.Crash()
	s.Undone("book")
	require.Len(t, s.Calls("undo book"), 1)
	require.Empty(t, s.Sent(), "what was not committed was not sent")
}

func TestStory_LocalStepsFailAsToldAndDoOtherThings(t *testing.T) {
	t.Parallel()
	var calls []saga.Op
	s := sagatest.New(t, bookkeeping(&calls), "b-1")
	s.FailLocal("book", errDown, nil)
	sagatest.Local(s, "count", func(_ context.Context, o order) (int, error) { return o.Total * 10, nil })
	s.Start(order{Total: 1})
	require.Empty(t, calls, "the first attempt was not made")
	s.Next()
	require.Len(t, calls, 1)
	require.Equal(t, 2, calls[0].Attempt)
	require.Equal(t, 11, s.State().Total)

	s = sagatest.New(t, bookkeeping(&calls), "b-2")
	s.FailLocal("count", wherry.Permanent(errors.New("no")))
	s.Start(order{})
	s.Undone("count")

	s = sagatest.New(t, bookkeeping(&calls), "b-3")
	s.FailLocal("count", context.DeadlineExceeded)
	s.Start(order{})
	s.Undone("count")
	require.Len(t, s.Calls("undo count"), 1, "what is not known to be done is undone")
}

func TestStory_OperatorsActAndAreRefused(t *testing.T) {
	t.Parallel()
	s := sagatest.Start(t, checkout(), "o-1", order{Total: 100})
	s.Do(saga.Pause, saga.By{})
	s.Fail("reserve", "down")
	s.Advance(time.Minute)
	s.Asked()
	s.Do(saga.Resume, saga.By{})
	s.Asked("reserve")
	s.Cancel("the customer called")
	s.Reply("reserve", reserved{})
	s.Asked("undo reserve")
	var refused *saga.VerbError
	require.ErrorAs(t, s.Try(saga.Cancel, saga.By{}), &refused)
	s.Do(saga.Complete, saga.By{Step: "reserve", Actor: "ann", Reason: "put back by hand"})
	s.Undone()

	s = sagatest.Start(t, checkout(), "o-2", order{})
	s.Do(saga.Purge, saga.By{})
	s.Is(0)
}

func TestStory_ParkedBehindThePivot(t *testing.T) {
	t.Parallel()
	s := sagatest.New(t, checkout(), "o-1")
	s.FailLocal("log", wherry.Permanent(errors.New("the disk is full")))
	sagatest.Event(s, paymentCreated, payment{ID: "p-1", Order: "o-1"})
	s.Start(order{})
	s.Reply("reserve", reserved{})
	s.Reply("ship", shipped{Parcel: "P1"})
	s.Parked("log")
	require.Contains(t, s.Why(), "the disk is full")
	s.Do(saga.Retry, saga.By{})
	s.Done()
}

func TestStory_WhatIsHeldAgainstTheCodeQuarantines(t *testing.T) {
	t.Parallel()
	d := saga.Definition[order]{Name: "q", Steps: []saga.Step[order]{{
		Name: "pay", NoUndo: true, Do: saga.Await[order](saga.Success(paymentCreated, func(*order, payment) { panic("not so") })),
	}}}
	s := sagatest.Start(t, d, "o-1", order{})
	s.Record(&kgo.Record{Topic: "payment.created", Key: []byte("o-1"), Value: []byte(`{"ID":1}`)})
	s.Is(saga.Quarantined)
	require.Contains(t, s.Why(), "decoding")

	s = sagatest.Start(t, d, "o-1", order{})
	sagatest.Event(s, paymentCreated, payment{})
	s.Is(saga.Quarantined)
	require.Contains(t, s.Why(), "not so")
}

func TestStory_AnswersOfOtherCodecsAndProfiles(t *testing.T) {
	t.Parallel()
	m := reqreply.Method[reserveReq, reserved]{
		Topic: "other", Codec: wherry.JSON{}, Profile: reqreply.Profile{CorrelationID: "cid", Error: "err", Binary: true},
	}
	d := saga.Definition[order]{Name: "other", Steps: []saga.Step[order]{{
		Name: "a", NoUndo: true,
		Do: saga.Call(m, func(order) reserveReq { return reserveReq{3} }, func(o *order, r reserved) { o.Shelf = r.Shelf }),
	}}}
	s := sagatest.Start(t, d, "x", order{})
	require.Equal(t, reserveReq{3}, sagatest.Request[reserveReq](s, "a"))
	s.Fail("a", "down")
	s.Next()
	s.Reply("a", reserved{Shelf: "B"})
	s.Done()
	require.Equal(t, "B", s.State().Shelf)

	s = sagatest.Start(t, d, "y", order{})
	s.Refuse("a", "sold-out", "no more")
	s.Undone("a")
	require.Contains(t, s.Why(), "sold-out: no more")
}
