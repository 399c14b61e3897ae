package saga

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/retry"
)

// both are two steps at once between two others.
func both() Definition[order] {
	return saga(step("a"), Step[order]{Name: "both", Parallel: []Step[order]{step("b"), step("c")}}, step("d"))
}

func TestS10_AStageIsBegunAtOnceAndLeftWhenAllAreDone(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, both())
	pl.start()
	require.Equal(t, []string{"b.do", "c.do"}, sends(pl.ok("a")))
	require.Empty(t, pl.ok("c"))
	require.Equal(t, []string{"d.do"}, sends(pl.ok("b")))
	require.Equal(t, []string{"c.undo", "b.undo"}, reversed(sends(pl.no("d"))), "a stage is undone at once")
	require.Empty(t, pl.ok("b"))
	require.Equal(t, []string{"a.undo"}, sends(pl.ok("c")), "stages backwards")
	pl.ok("a")
	require.Equal(t, Undone, pl.in.phase)
}

func reversed(s []string) (out []string) {
	for _, v := range s {
		out = append([]string{v}, out...)
	}
	return out
}

// The others settle before anything is undone: what is out is waited for, what
// is between two attempts is not tried again.
func TestS10_SiblingsSettleBeforeAnythingIsUndone(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		settle func(pl *play) []effect // c
		undone []string                // of the stage
	}{
		"done":     {func(pl *play) []effect { return pl.ok("c") }, []string{"c.undo"}},
		"rejected": {func(pl *play) []effect { return pl.no("c") }, nil},
		"failed":   {func(pl *play) []effect { return pl.fail("c") }, nil},
		"unknown":  {func(pl *play) []effect { return pl.later(10 * time.Second) }, []string{"c.undo"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := both()
			d.Steps[1].Parallel[1].Idempotent = true // and yet not tried again
			pl := newPlay(t, d)
			pl.start()
			pl.ok("a")
			require.Empty(t, pl.no("b"))
			require.Equal(t, Running, pl.in.phase)
			out := row.settle(pl)
			require.Equal(t, Undoing, pl.in.phase)
			require.Equal(t, "b.do: sold-out: no more", pl.in.why)
			if row.undone != nil {
				require.Equal(t, row.undone, sends(out))
				out = pl.ok("c")
			}
			require.Equal(t, []string{"a.undo"}, sends(out))
		})
	}
	for name, doubt := range map[string]bool{"between attempts": false, "in doubt between attempts": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := both()
			d.Steps[1].Parallel[1].Idempotent = true
			d.Steps[1].Parallel[0].Timeout = time.Hour
			pl := newPlay(t, d)
			pl.start()
			pl.ok("a")
			if doubt {
				pl.later(10 * time.Second)
			} else {
				pl.fail("c")
			}
			require.Equal(t, stepBetween, pl.status("c"))
			out := pl.no("b")
			require.Equal(t, Undoing, pl.in.phase)
			if doubt {
				require.Equal(t, []string{"c.undo"}, sends(out))
			} else {
				require.Equal(t, []string{"a.undo"}, sends(out))
			}
		})
	}
}

func TestS10_WhenSkipsAStep(t *testing.T) {
	t.Parallel()
	gold := func(o order) bool { return o.Plan == "gold" }
	d := both()
	d.Steps[1].When = gold
	d.Steps[2].When = func(o order) bool { return len(o.Items) > 0 && o.Items[len(o.Items)-1] == "a ok" }
	pl := newPlay(t, d)
	pl.start()
	require.Equal(t, []string{"d.do"}, sends(pl.ok("a")), "a group is skipped, by the state of now")
	require.Equal(t, []stepStatus{stepDone, stepSkipped, stepSkipped, stepDoing}, statuses(pl.in))
	require.Equal(t, []string{"a.undo"}, sends(pl.no("d")), "what was skipped is not undone")

	d.Steps[1].When, d.Steps[1].Parallel[0].When = nil, gold
	pl = newPlay(t, d)
	pl.start()
	require.Equal(t, []string{"c.do"}, sends(pl.ok("a")), "one of a group is skipped")
	pl.ok("c")
	require.Equal(t, Done, pl.in.phase, "d is asked when it is reached")
}

func TestS11_TheDeadlineEndsTheStepInHand(t *testing.T) {
	t.Parallel()
	d := both()
	d.Deadline = time.Minute
	for i := range d.Steps[1].Parallel {
		d.Steps[1].Parallel[i].Timeout = time.Hour
	}
	d.Steps[1].Parallel[0].Retry = retry.Policy{Initial: time.Hour}
	pl := newPlay(t, d)
	pl.start()
	pl.ok("a")
	pl.fail("b")
	require.Empty(t, pl.later(time.Minute-time.Millisecond))
	require.Equal(t, []string{"c.undo"}, sends(pl.later(time.Millisecond)), "c is out, so it may be done; b is not")
	require.Equal(t, stepRejected, pl.status("b"))
	require.Contains(t, pl.in.why, "deadline")
	require.Equal(t, []string{"a.undo"}, sends(pl.ok("c")))
	pl.ok("a")
	require.Equal(t, Undone, pl.in.phase)
}

func TestS11_TheDeadlineDoesNothingWhenThePivotIsDone(t *testing.T) {
	t.Parallel()
	d := saga(step("a"), Step[order]{Name: "p", Do: call("p.do"), Pivot: true}, Step[order]{Name: "b", Do: call("b.do")})
	d.Deadline = time.Minute
	pl := newPlay(t, d)
	pl.start()
	pl.ok("a")
	pl.ok("p")
	require.Zero(t, pl.in.due())
	pl.e.now = pl.e.now.Add(time.Hour)
	require.Empty(t, pl.do(input{kind: inTick}))
	require.Equal(t, Running, pl.in.phase)
}

func TestS11_APivotThatIsOutOutlivesTheDeadline(t *testing.T) {
	t.Parallel()
	p := Step[order]{Name: "p", Do: call("p.do"), Pivot: true, Timeout: time.Hour, Idempotent: true}
	for name, answer := range map[string]func(pl *play) (Phase, []effect){
		"done":     func(pl *play) (Phase, []effect) { return Done, pl.ok("p") },
		"rejected": func(pl *play) (Phase, []effect) { return Undoing, pl.no("p") },
		"failed":   func(pl *play) (Phase, []effect) { return Undoing, pl.fail("p") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := saga(step("a"), p)
			d.Deadline = time.Minute
			pl := newPlay(t, d)
			pl.start()
			pl.ok("a")
			pl.later(30 * time.Minute)
			require.Equal(t, Running, pl.in.phase, "nobody knows on which side it is")
			require.Equal(t, stepDoing, pl.status("p"))
			phase, _ := answer(pl)
			require.Equal(t, phase, pl.in.phase)
		})
	}
}

func TestS12_ASuccessOfAnyAttemptSettlesTheStepInHand(t *testing.T) {
	t.Parallel()
	d := saga(step("a"), with(step("b"), func(s *Step[order]) { s.Idempotent = true }), step("c"))
	fresh := func(t *testing.T) (pl *play, first Op) {
		pl = newPlay(t, d)
		pl.start()
		pl.ok("a")
		first = pl.op("b")
		pl.later(11 * time.Second)
		require.Equal(t, 2, pl.op("b").Attempt)
		return pl, first
	}
	t.Run("the first's, while the second is out", func(t *testing.T) {
		t.Parallel()
		pl, first := fresh(t)
		require.Equal(t, []string{"c.do"}, sends(pl.okOp(first)))
		before := pl.in.again()
		for _, late := range []func(Op) []effect{pl.noOp, pl.failOp, pl.okOp} {
			require.Empty(t, late(Op{Saga: "orders", ID: "o-1", Step: "b", Attempt: 2}))
		}
		require.Equal(t, before.steps, pl.in.steps)
		require.Equal(t, before.raw, pl.in.raw, "and is not applied again")
		require.Equal(t, []string{"sent", "timed out", "sent", "done", "ignored"}, pl.moves("b"), "kept in the history, the same once")
	})
	t.Run("the first's, between two", func(t *testing.T) {
		t.Parallel()
		pl, first := fresh(t)
		pl.later(10 * time.Second)
		require.Equal(t, stepBetween, pl.status("b"))
		require.Equal(t, []string{"c.do"}, sends(pl.okOp(first)))
	})
	t.Run("but no failure of an earlier one", func(t *testing.T) {
		t.Parallel()
		pl, first := fresh(t)
		before := pl.in.again()
		require.Empty(t, pl.noOp(first))
		require.Empty(t, pl.failOp(first))
		require.Equal(t, before.steps, pl.in.steps)
		require.Equal(t, []string{"c.do"}, sends(pl.ok("b")))
	})
	t.Run("of an undo too", func(t *testing.T) {
		t.Parallel()
		pl, _ := fresh(t)
		pl.no("b")
		first := pl.op("b")
		require.True(t, first.Undo)
		pl.later(20 * time.Second)
		require.Greater(t, pl.op("b").Attempt, 1)
		require.Equal(t, []string{"a.undo"}, sends(pl.okOp(first)))
		require.Empty(t, pl.okOp(Op{Step: "b", Attempt: 1}), "what was to be done is no undo")
	})
	t.Run("of a step or a direction that is not there", func(t *testing.T) {
		t.Parallel()
		pl, _ := fresh(t)
		before := pl.in.again()
		require.Empty(t, pl.okOp(Op{Step: "b", Undo: true, Attempt: 1}))
		require.Empty(t, pl.okOp(Op{Step: "nobody", Attempt: 1}))
		require.Empty(t, pl.do(input{kind: inLocal, op: Op{Step: "b", Attempt: 2}}))
		require.Equal(t, before.steps, pl.in.steps)
	})
}

func TestS13_StateChangesOnlyInApplyAndAPanicLeavesItAsItWas(t *testing.T) {
	t.Parallel()
	bad := Step[order]{Name: "bad", Undo: Do(nothing), Do: Local(
		func(_ ctx, _ order) (string, error) { return "", nil },
		func(o *order, _ string) { o.add("half"); panic("boom") })}
	pl := newPlay(t, saga(localStep("a"), bad))
	pl.start()
	pl.ran("a", nil)
	before := pl.in.again()
	pl.input(input{kind: inLocal, op: pl.op("bad"), result: "x"})
	var e *wherry.RecordError
	require.ErrorAs(t, pl.err, &e)
	require.Equal(t, wherry.CausePanic, e.Cause)
	require.Contains(t, e.Stack, "TestS13")
	require.Equal(t, before, pl.in.again(), "rolled back, alone")
	require.Equal(t, []string{"first", "a ok"}, pl.state().Items)
}

func TestS20_TheKeyIsTheSameForEveryAttempt(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, saga(step("a"), step("b")))
	first := pl.start()[0].op
	require.Equal(t, Op{Saga: "orders", ID: "o-1", Step: "a", Attempt: 1}, first)
	pl.fail("a")
	second := pl.later(time.Second)[0].op
	first.Attempt = 2
	require.Equal(t, first, second, "the attempt alone tells them apart")
	pl.ok("a")
	undo := pl.no("b")[0].op
	require.Equal(t, Op{Saga: "orders", ID: "o-1", Step: "a", Undo: true, Attempt: 1}, undo)
}

func TestS24_AQueuedStartWaitsUntilItIsAdmitted(t *testing.T) {
	t.Parallel()
	d := saga(step("a"))
	d.Deadline = time.Minute
	pl := newPlay(t, d)
	require.Empty(t, pl.do(input{kind: inStart, payload: []byte(`{}`), queue: true}))
	require.Equal(t, Queued, pl.in.phase)
	require.Zero(t, pl.in.due())
	pl.e.now = pl.e.now.Add(time.Hour)
	require.Empty(t, pl.do(input{kind: inTick}))
	require.Equal(t, []string{"a.do"}, sends(pl.do(input{kind: inAdmit})))
	require.Equal(t, millis(pl.e.now.Add(10*time.Second)), pl.in.due())
	require.Empty(t, pl.do(input{kind: inAdmit}), "once")
	pl.later(time.Minute)
	require.Equal(t, Undoing, pl.in.phase, "its deadline counts from there")
}

func TestS24_TheGateHoldsCommandsAndCostsNoAttempt(t *testing.T) {
	t.Parallel()
	b := with(step("b"), func(s *Step[order]) {
		s.Idempotent, s.Retry = true, retry.Policy{Attempts: 2, Within: 30 * time.Second}
	})
	pl := newPlay(t, saga(step("a"), b))
	var shut, shutA time.Time // the gates
	pl.e.gate = func(step int) time.Time { return []time.Time{shutA, shut}[step] }
	pl.start()
	shut = pl.e.now.Add(time.Hour)
	require.Empty(t, pl.ok("a"), "b is held")
	require.Equal(t, stepBetween, pl.status("b"))
	require.Zero(t, pl.op("b").Attempt)
	require.Empty(t, pl.later(time.Hour-time.Millisecond))
	require.Equal(t, []string{"b.do"}, sends(pl.later(time.Millisecond)))
	for range 5 { // failures and timeouts while it is shut
		shut = pl.e.now.Add(time.Hour)
		require.Empty(t, pl.fail("b"))
		require.Equal(t, []string{"b.do"}, sends(pl.later(time.Hour)))
		shut = pl.e.now.Add(2 * time.Hour)
		require.Empty(t, pl.later(10*time.Second))
		require.True(t, pl.in.steps[1].doubt)
		require.Equal(t, []string{"b.do"}, sends(pl.later(2*time.Hour-10*time.Second)))
	}
	require.Equal(t, Running, pl.in.phase)
	require.Zero(t, pl.in.steps[1].tries)
	pl.fail("b")
	require.Equal(t, []string{"b.do"}, sends(pl.later(time.Second)))
	pl.fail("b")
	require.Equal(t, Undoing, pl.in.phase, "two attempts count")
	shutA = pl.e.now.Add(time.Hour)
	require.Empty(t, pl.ok("b"))
	require.Equal(t, stepUndoWait, pl.status("a"), "an undo is a command too: it waits for the gate")
	require.Equal(t, []string{"a.undo"}, sends(pl.later(time.Hour)))
}

func TestS26_WhatDoesNotDecodeOrPanicsIsAnErrorAndChangesNothing(t *testing.T) {
	t.Parallel()
	boom := func(order) string { panic("boom") }
	build := with(step("b"), func(s *Step[order]) { s.Do = Call(method{Topic: "b.do"}, boom, nil) })
	when := with(step("b"), func(s *Step[order]) { s.When = func(order) bool { panic("boom") } })
	refuses := with(step("b"), func(s *Step[order]) { s.Do = emit("b.do").Key(boom) })
	typed := with(step("b"), func(s *Step[order]) {
		s.Do = Call(numbers{Topic: "b.do"}, func(order) int { return 1 }, nil)
	})
	for name, row := range map[string]struct {
		b    Step[order]
		last func(pl *play) []effect
		says string
	}{
		"build panics":               {build, func(pl *play) []effect { return pl.input(okOf(pl, "a")) }, "boom"},
		"when panics":                {when, func(pl *play) []effect { return pl.input(okOf(pl, "a")) }, "boom"},
		"a key panics":               {refuses, func(pl *play) []effect { return pl.input(okOf(pl, "a")) }, "boom"},
		"a reply that is no number":  {typed, func(pl *play) []effect { pl.ok("a"); return pl.input(okOf(pl, "b")) }, "decoding int"},
		"an event that is no object": {with(step("b"), func(s *Step[order]) { s.Do = Await(success("b.done")) }), func(pl *play) []effect { pl.ok("a"); return pl.input(rubbish()) }, "b.done"},
		"a local that panicked": {localStep("b"), func(pl *play) []effect {
			pl.ok("a")
			return pl.input(input{kind: inLocal, op: pl.op("b"), err: &wherry.RecordError{Cause: wherry.CausePanic, Err: errDown}})
		}, "down"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pl := newPlay(t, saga(step("a"), row.b, step("c")))
			pl.start()
			out := row.last(pl)
			require.ErrorContains(t, pl.err, row.says)
			require.Empty(t, out)
			require.Equal(t, stepDone, pl.status("a"), "what came before is not lost")
			require.Contains(t, []stepStatus{stepWaiting, stepDoing}, pl.status("b"))
			require.Equal(t, []string{"first", "a ok"}, pl.state().Items)
			require.True(t, pl.in.quarantine(pl.e.now, "inbox/0@7: "+pl.err.Error()))
			require.Equal(t, Quarantined, pl.in.phase)
			require.Equal(t, Running, pl.in.before)
			require.Zero(t, pl.in.due(), "it waits for an operator")
			require.Empty(t, pl.do(input{kind: inTick}))
			require.Contains(t, pl.in.why, row.says)
			require.Equal(t, []string{"c.do"}, sends(pl.verb(Complete, "")))
			require.Equal(t, Running, pl.in.phase)
			require.Empty(t, pl.in.why)
		})
	}
}

type numbers = intMethod

func okOf(pl *play, step string) input {
	return input{kind: inReply, op: pl.op(step), record: answer(step+" ok", "")}
}

func rubbish() input {
	return input{kind: inEvent, record: &kgo.Record{Topic: "b.done", Key: []byte("o-1"), Value: []byte("[")}}
}

func TestS26_AStartOfWhichTheFirstStepIsPoisonHasStarted(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, saga(with(step("a"), func(s *Step[order]) { s.When = func(o order) bool { return o.Items[7] == "" } })))
	pl.input(input{kind: inStart, payload: []byte(`{"plan":"gold"}`)})
	require.ErrorContains(t, pl.err, "index out of range")
	require.Equal(t, Running, pl.in.phase)
	require.Equal(t, "gold", pl.state().Plan, "its state is not lost")
	require.True(t, pl.in.quarantine(pl.e.now, pl.err.Error()))
	pl.input(input{kind: inVerb, verb: verb{name: Resume}})
	require.Error(t, pl.err, "it is tried again")
	require.True(t, pl.in.quarantine(pl.e.now, pl.err.Error()))
	require.Empty(t, pl.verb(Skip, ""))
	require.Equal(t, Done, pl.in.phase)

	pl.in = &instance{id: "o-2"}
	pl.input(input{kind: inStart, payload: []byte(`rubbish`)})
	require.Error(t, pl.err)
	require.Equal(t, `rubbish`, string(pl.in.raw))
	require.True(t, pl.in.quarantine(pl.e.now, pl.err.Error()))
	require.Contains(t, pl.refused(Retry, "nobody"), "no step")
}

func TestS26_WhereThereIsNoSagaThereIsNothingToQuarantine(t *testing.T) {
	t.Parallel()
	for _, phase := range []Phase{0, Early, Done, Undone} {
		in := &instance{phase: phase}
		require.False(t, in.quarantine(time.Now(), "why"))
		require.Equal(t, &instance{phase: phase}, in)
	}
}

func TestS26_RepliesAreTakenInWhileItIsQuarantined(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, both())
	pl.start()
	pl.ok("a")
	require.True(t, pl.in.quarantine(pl.e.now, "poison"))
	require.Empty(t, pl.no("b"))
	require.Empty(t, pl.ok("c"))
	require.Equal(t, "poison", pl.in.why)
	require.Equal(t, []string{"c.undo"}, sends(pl.verb(Resume, "")))
	require.True(t, strings.HasPrefix(pl.in.why, "b.do: sold-out"), pl.in.why)
}
