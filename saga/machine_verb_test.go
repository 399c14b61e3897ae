package saga

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestS35_CancelWaitsForWhatIsOutAndUndoes(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, both())
	pl.start()
	pl.ok("a")
	pl.fail("b")
	require.Empty(t, pl.verb(Cancel, ""))
	require.Equal(t, Running, pl.in.phase, "c is out")
	require.Equal(t, "cancel by ann: so it is", pl.in.why)
	require.Contains(t, pl.refused(Cancel, ""), "already")
	require.Contains(t, pl.refused(Retry, "c"), "going to be undone")
	require.Equal(t, []string{"c.undo"}, sends(pl.ok("c")))
	require.Equal(t, stepRejected, pl.status("b"))
	require.Contains(t, pl.refused(Cancel, ""), "already")
	require.Contains(t, pl.refused(Undo, ""), "already")
	pl.ok("c")
	pl.ok("a")
	require.Equal(t, Undone, pl.in.phase)
	require.Equal(t, "cancel by ann: so it is", pl.in.why)
	require.Contains(t, pl.refused(Complete, ""), "has ended")
}

func TestS35_UndoDoesNotWait(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, both())
	pl.start()
	pl.ok("a")
	pl.fail("b")
	require.Equal(t, []string{"c.undo"}, sends(pl.verb(Undo, "")))
	require.Equal(t, stepRejected, pl.status("b"))

	pl = newPlay(t, both())
	pl.start()
	pl.verb(Cancel, "")
	require.Equal(t, []string{"a.undo"}, sends(pl.verb(Undo, "")), "also where it was cancelled before")
}

func TestS35_CancelOfAQueuedOneEndsIt(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, both())
	pl.do(input{kind: inStart, payload: []byte(`{}`), queue: true})
	require.Contains(t, pl.refused(Skip, ""), "queued")
	require.Empty(t, pl.verb(Cancel, ""))
	require.Equal(t, Undone, pl.in.phase)
	require.Empty(t, pl.do(input{kind: inAdmit}))
}

func TestS35_NothingIsCancelledBehindThePivot(t *testing.T) {
	t.Parallel()
	d := saga(step("a"), Step[order]{Name: "p", Do: call("p.do"), Pivot: true}, Step[order]{Name: "b", Do: call("b.do")})
	pl := newPlay(t, d)
	pl.start()
	pl.ok("a")
	require.Contains(t, pl.refused(Undo, ""), "may be done", "the pivot is out")
	pl.verb(Cancel, "")
	require.Equal(t, Running, pl.in.phase)
	require.Equal(t, []string{"b.do"}, sends(pl.ok("p")), "it came too late")
	require.Empty(t, pl.in.why)
	for _, v := range []VerbName{Cancel, Undo} {
		require.Contains(t, pl.refused(v, ""), "can only go forward")
	}
}

func TestS35_RetryTriesAtOnceWithItsAttemptsAnew(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, both())
	pl.start()
	pl.fail("a")
	pl.later(time.Second)
	pl.fail("a")
	require.Equal(t, []string{"a.do"}, sends(pl.verb(Retry, "")))
	require.Equal(t, 3, pl.op("a").Attempt)
	for range 2 {
		pl.fail("a")
		require.Equal(t, Running, pl.in.phase)
		pl.later(4 * time.Second)
	}
	pl.ok("a")
	require.Contains(t, pl.refused(Retry, ""), "name one: b, c")
	require.Contains(t, pl.refused(Retry, "a"), "not in hand")
	require.Contains(t, pl.refused(Retry, "x"), "no step")
	first := pl.op("b")
	require.Equal(t, []string{"b.do"}, sends(pl.verb(Retry, "b")), "also where an attempt is out")
	require.True(t, pl.in.steps[1].doubt, "of which nobody knows what it did")
	require.Empty(t, pl.noOp(first))
	require.Equal(t, stepDoing, pl.status("b"))

	pl.no("b")
	pl.ok("c")
	pl.ok("b")
	pl.fail("c")
	require.Equal(t, []string{"c.undo"}, sends(pl.verb(Retry, "c")), "an undo too")
}

func TestS35_SkipPassesTheStepByAndCompleteHasItDone(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, both())
	pl.start()
	require.Equal(t, []string{"b.do", "c.do"}, sends(pl.verb(Skip, "")))
	require.Empty(t, pl.verb(Skip, "b"))
	require.Contains(t, pl.refused(Complete, "d"), "not in hand")
	out := pl.do(input{kind: inVerb, verb: verb{id: "1", name: Complete, state: []byte(`{"plan":"by hand"}`)}})
	require.Equal(t, []string{"d.do"}, sends(out))
	require.Equal(t, order{Plan: "by hand"}, pl.state())
	out = pl.do(input{kind: inVerb, verb: verb{id: "2", name: Complete, state: []byte(`[`)}})
	require.Equal(t, []effectKind{effectRefuse}, kinds(out))
	require.Equal(t, order{Plan: "by hand"}, pl.state())
	require.Equal(t, []string{"c.undo"}, sends(pl.no("d")), "what was skipped is not undone, what was completed is")
	require.Empty(t, pl.verb(Complete, "c"))
	require.Equal(t, Undone, pl.in.phase)
	require.Equal(t, []stepStatus{stepSkipped, stepSkipped, stepUndone, stepRejected}, statuses(pl.in))
}

func TestS35_APauseBeginsNothingAndTakesAllIn(t *testing.T) {
	t.Parallel()
	d := both()
	d.Steps[1].Parallel[0].Idempotent = true
	pl := newPlay(t, d)
	pl.start()
	require.Empty(t, pl.verb(Pause, ""))
	require.Contains(t, pl.refused(Pause, ""), "already")
	require.Empty(t, pl.ok("a"), "taken in")
	require.Equal(t, stepDone, pl.status("a"))
	require.Zero(t, pl.in.due())
	require.Equal(t, []string{"b.do", "c.do"}, sends(pl.verb(Resume, "")))
	pl.verb(Pause, "")
	pl.ok("c")
	pl.later(time.Hour)
	require.True(t, pl.in.steps[1].doubt, "a timeout is noted")
	require.Equal(t, stepBetween, pl.status("b"))
	require.Zero(t, pl.in.due(), "and nothing is due")
	require.Equal(t, []string{"b.do"}, sends(pl.verb(Resume, "")))
	require.Contains(t, pl.refused(Resume, ""), "not paused")
	pl.verb(Pause, "")
	require.Empty(t, pl.no("b"))
	require.Equal(t, Undoing, pl.in.phase)
	require.Equal(t, []string{"b.undo", "c.undo"}, sends(pl.verb(Resume, "")))
}

func TestS35_APausedLocalStepIsDoneAfterTheResume(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, saga(with(localStep("a"), func(s *Step[order]) { s.Durable = true })))
	pl.start()
	pl.verb(Pause, "")
	require.Empty(t, pl.do(input{kind: inGo}))
	pl.later(time.Hour)
	require.Zero(t, pl.in.due())
	require.Equal(t, []effect{{kind: effectLocal, op: pl.op("a")}}, pl.verb(Resume, ""))
}

func TestS35_AVerbIsAppliedOnceAndIsInTheHistory(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, both())
	pl.start()
	v := verb{id: "v", name: Retry, actor: "ann", reason: strings.Repeat("long ", 100)}
	require.Equal(t, []string{"a.do"}, sends(pl.do(input{kind: inVerb, verb: v})))
	require.Empty(t, pl.do(input{kind: inVerb, verb: v}))
	last := pl.in.history[len(pl.in.history)-1]
	require.Equal(t, moveIgnored, last.what)
	var verbs []transition
	for _, tr := range pl.in.history {
		if tr.what == moveVerb {
			verbs = append(verbs, tr)
		}
	}
	require.Len(t, verbs, 1)
	require.Contains(t, verbs[0].note, "retry by ann: long")
	require.Len(t, verbs[0].note, maxNote)

	refused := verb{id: "w", name: Resume}
	require.Equal(t, []effectKind{effectRefuse}, kinds(pl.do(input{kind: inVerb, verb: refused})))
	pl.verb(Pause, "")
	out := pl.do(input{kind: inVerb, verb: refused})
	require.Equal(t, []effectKind{effectRefuse}, kinds(out), "what was refused is not applied later, and nobody is told that it was")
	require.Contains(t, out[0].refused, "it was refused before")
	require.True(t, pl.in.paused)
}

func TestS35_PurgeForgetsWhateverItIsDoing(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, both())
	require.Equal(t, []effectKind{effectRefuse}, kinds(pl.verb(Purge, "")), "there is none")
	require.Equal(t, "purge: there is no such saga", pl.out[0].refused)
	pl.start()
	require.Equal(t, []effectKind{effectForget}, kinds(pl.verb(Purge, "")))
	for _, phase := range []Phase{Early, Queued, Undoing, Parked, Quarantined, Done, Undone} {
		pl.in.phase, pl.in.before = phase, Running
		require.Equal(t, []effectKind{effectForget}, kinds(pl.verb(Purge, "")), phase)
	}
}

func TestS35_WhatMakesNoSenseIsRefused(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, paying())
	require.Contains(t, pl.refused(Cancel, ""), "no such saga")
	require.Zero(t, pl.in.phase)
	pl.occurs("payment.created")
	require.Contains(t, pl.refused(Cancel, ""), "not started")
	pl.start()
	require.Contains(t, pl.refused("dance", ""), "no such verb")
}
