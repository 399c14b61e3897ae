package saga

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
	for name, is := range map[string][2]bool{
		"between attempts": {false, false}, "in doubt between attempts": {true, false},
		"between, and another is out": {false, true}, "in doubt, and another is out": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			doubt, third := is[0], is[1]
			d := both()
			if third {
				x := with(step("x"), func(s *Step[order]) { s.Timeout = time.Hour })
				d.Steps[1].Parallel = []Step[order]{d.Steps[1].Parallel[0], d.Steps[1].Parallel[1], x}
				d.Steps[1].Parallel[0], d.Steps[1].Parallel[2] = d.Steps[1].Parallel[2], d.Steps[1].Parallel[0]
			}
			d.Steps[1].Parallel[1].Idempotent = true
			for _, i := range []int{0, len(d.Steps[1].Parallel) - 1} {
				if i != 1 {
					d.Steps[1].Parallel[i].Timeout = time.Hour
				}
			}
			pl := newPlay(t, d)
			pl.start()
			pl.ok("a")
			if doubt {
				pl.later(10 * time.Second)
			} else {
				pl.fail("c")
			}
			require.Equal(t, stepBetween, pl.status("c"))
			if third {
				require.Empty(t, pl.no("b"))
				require.NotEqual(t, stepBetween, pl.status("c"), "it is settled at once, though x is out")
				require.Empty(t, pl.later(time.Minute))
				pl.no("x")
				require.Equal(t, Undoing, pl.in.phase)
				return
			}
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
	require.Equal(t, Op{Saga: "orders", ID: "o-1", Step: "a", Undo: true, Done: true, Attempt: 1}, undo)
}

// Local steps that do not wait for the commit may have been done before a crash,
// and end otherwise when they are done again.
func TestS19_WhatWasPerhapsDoneBeforeACrashIsUndone(t *testing.T) {
	t.Parallel()
	d := saga(localStep("a"), localStep("b"), localStep("c"), with(localStep("d"), func(s *Step[order]) { s.Durable = true }), localStep("e"))
	undone := func(pl *play) (all []string) {
		for pl.in.phase == Undoing {
			for _, e := range pl.do(input{kind: inGo}) {
				all = append(all, e.op.Step)
				require.True(t, e.op.Undo)
				pl.ran(e.op.Step, nil)
			}
		}
		require.Equal(t, Undone, pl.in.phase)
		return all
	}
	for name, row := range map[string]struct {
		again  bool
		err    error
		undone []string
	}{
		"refused":                 {false, wherry.Permanent(errDown), []string{"a"}},
		"refused after a crash":   {true, wherry.Permanent(errDown), []string{"c", "b", "a"}},
		"failed":                  {false, errDown, []string{"a"}},
		"failed after a crash":    {true, errDown, []string{"c", "b", "a"}},
		"too long after a crash":  {true, context.DeadlineExceeded, []string{"c", "b", "a"}},
		"too long, and no crash ": {false, context.DeadlineExceeded, []string{"b", "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pl := newPlay(t, d)
			pl.start()
			pl.ran("a", nil)
			pl.e.again = row.again
			pl.ran("b", row.err)
			for pl.e.again = false; pl.in.phase == Running; pl.ran("b", row.err) {
				pl.later(10 * time.Second)
			}
			require.Equal(t, row.undone, undone(pl), "but not what waited for a commit")
		})
	}
	pl := newPlay(t, d)
	pl.start()
	pl.e.again = true
	pl.ran("a", nil)
	pl.e.again = false
	pl.ran("b", nil)
	pl.ran("c", wherry.Permanent(errDown))
	require.Equal(t, []string{"b", "a"}, undone(pl), "a success is one")
}

// The same, where the first to handle it again is a process that has no code for
// it: what it parks is in doubt when there is code again, and is undone if the saga
// is refused or cancelled then.
func TestS19_DoubtOutlivesAProcessWithoutTheCode(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		for _, cancel := range []bool{false, true} {
			t.Run(fmt.Sprintf("handled before %v, cancelled %v", again, cancel), func(t *testing.T) {
				t.Parallel()
				pl := newPlay(t, saga(localStep("a"), localStep("b"), localStep("c"), with(localStep("d"), func(s *Step[order]) { s.Durable = true })))
				pl.start()
				pl.ran("a", nil)
				p := pl.p
				pl.p, pl.e.again = nil, again
				pl.do(input{kind: inTick})
				pl.p, pl.e.again = p, false
				decoded, err := decodeInstance(pl.in.id, encodeInstance(pl.in))
				require.NoError(t, err)
				require.Equal(t, again, decoded.haunted)
				if cancel {
					pl.verb(Cancel, "")
				}
				if pl.in.phase != Undoing {
					pl.do(input{kind: inTick})
					pl.ran("b", wherry.Permanent(errDown))
				}
				var undone []string
				for pl.in.phase == Undoing {
					for _, e := range pl.do(input{kind: inGo}) {
						undone = append(undone, e.op.Step)
						pl.ran(e.op.Step, nil)
					}
				}
				require.Equal(t, Undone, pl.in.phase)
				require.Equal(t, map[bool][]string{false: {"a"}, true: {"c", "b", "a"}}[again], undone)
			})
		}
	}
}

// And where a step that would have waited for the commit was left out before the
// crash, what came after it too.
func TestS19_WhatWasPerhapsDoneBehindAStepThatIsLeftOutIsUndone(t *testing.T) {
	t.Parallel()
	asks := with(step("b"), func(s *Step[order]) { s.When = func(order) bool { return false } })
	pl := newPlay(t, saga(localStep("a"), asks, localStep("c"), step("d"), localStep("e")))
	pl.start()
	pl.e.again = true
	pl.ran("a", wherry.Permanent(errDown))
	var undone []string
	for pl.e.again = false; pl.in.phase == Undoing; {
		for _, e := range pl.do(input{kind: inGo}) {
			undone = append(undone, e.op.Step)
			pl.ran(e.op.Step, nil)
		}
	}
	require.Equal(t, Undone, pl.in.phase)
	require.Equal(t, []string{"c", "a"}, undone, "but not what came after one that has no When")
}

// A Durable step waits for the commit, and its siblings do not.
func TestS19_WhatWasPerhapsDoneBesideADurableStepIsUndone(t *testing.T) {
	t.Parallel()
	durable := with(localStep("b"), func(s *Step[order]) { s.Durable = true })
	pl := newPlay(t, saga(localStep("a"), Step[order]{Name: "g", Parallel: []Step[order]{durable, localStep("c")}}, localStep("d")))
	pl.start()
	pl.e.again = true
	pl.ran("a", wherry.Permanent(errDown))
	pl.e.again = false
	var undone []string
	for pl.in.phase == Undoing {
		for _, e := range pl.do(input{kind: inGo}) {
			undone = append(undone, e.op.Step)
			pl.ran(e.op.Step, nil)
		}
	}
	require.Equal(t, []string{"c", "a"}, undone)
}

func TestS19_ALocalPivotWaitsForWhatWasBeforeIt(t *testing.T) {
	t.Parallel()
	p := Step[order]{Name: "p", Do: Do(nothing), Pivot: true}
	pl := newPlay(t, saga(localStep("a"), p))
	require.False(t, pl.start()[0].durable)
	require.True(t, pl.ran("a", nil)[0].durable)
	pl = newPlay(t, saga(p))
	require.False(t, pl.start()[0].durable, "there is nothing")
}

// It is the same where such a step is cut off, or not even begun this time.
func TestS19_ALocalStepThatIsNotTriedAgainAfterACrashIsInDoubt(t *testing.T) {
	t.Parallel()
	slow := with(localStep("b"), func(s *Step[order]) { s.Retry = retry.Policy{Initial: time.Minute} })
	for name, run := range map[string]func(t *testing.T, again bool) *play{
		"by the deadline": func(t *testing.T, again bool) *play {
			d := saga(slow)
			d.Deadline = time.Minute
			pl := newPlay(t, d)
			pl.start()
			pl.ran("b", errDown)
			pl.e.now, pl.e.again = pl.e.now.Add(time.Minute), again
			pl.do(input{kind: inTick})
			return pl
		},
		"by the gate": func(t *testing.T, again bool) *play {
			pl := newPlay(t, saga(step("a"), slow))
			pl.start()
			pl.e.gate = func(int) time.Time { return pl.e.now.Add(time.Hour) }
			pl.e.again = again
			pl.ok("a")
			pl.e.again, pl.e.gate = false, nil
			pl.verb(Cancel, "")
			return pl
		},
		"by a sibling": func(t *testing.T, again bool) *play {
			pl := newPlay(t, saga(Step[order]{Name: "g", Parallel: []Step[order]{with(step("a"), func(s *Step[order]) { s.Timeout = 2 * time.Minute }), slow}}))
			pl.start()
			pl.do(input{kind: inGo})
			pl.ran("b", errDown)
			pl.e.now, pl.e.again = pl.e.now.Add(2*time.Minute), again // both are due
			pl.do(input{kind: inTick})
			return pl
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, stepRejected, run(t, false).status("b"))
			require.Equal(t, stepUndoing, run(t, true).status("b"))
		})
	}
}
