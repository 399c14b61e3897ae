package saga

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/retry"
)

func TestS5_DoneGoesOnToTheNextStepAndTheEnd(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, saga(step("reserve"), step("pay")))
	require.Equal(t, []string{"reserve.do"}, sends(pl.start()))
	require.Equal(t, []string{"pay.do"}, sends(pl.ok("reserve")))
	require.Empty(t, pl.ok("pay"))
	require.Equal(t, Done, pl.in.phase)
	require.Equal(t, []string{"first", "reserve ok", "pay ok"}, pl.state().Items)
	require.Zero(t, pl.in.due())
	require.Equal(t, pl.e.now.UnixMilli(), pl.in.ended)
}

func TestS5_AnEmissionWithoutOutcomesIsDoneWhenItIsSent(t *testing.T) {
	t.Parallel()
	told := Step[order]{Name: "tell", NoUndo: true, Do: emit("order.told").Key(func(order) string { return "k" })}
	pl := newPlay(t, saga(told, with(told, func(s *Step[order]) { s.Name, s.Do = "shout", emit("order.shouted") })))
	out := pl.start()
	require.Equal(t, []string{"order.told", "order.shouted"}, sends(out))
	require.Equal(t, "k", string(out[0].record.Key))
	require.Equal(t, "o-1", string(out[1].record.Key), "the saga's id, unless told")
	require.Equal(t, Done, pl.in.phase)
}

func TestS5_LocalStepsAreDoneOneAfterTheOther(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, saga(localStep("a"), with(localStep("b"), func(s *Step[order]) { s.Durable, s.Timeout = true, time.Minute })))
	out := pl.start()
	require.Equal(t, []effect{{kind: effectLocal, op: pl.op("a")}}, out)
	out = pl.ran("a", nil)
	require.Equal(t, []effect{{kind: effectLocal, step: 1, op: pl.op("b"), durable: true, timeout: time.Minute}}, out)
	out = pl.do(input{kind: inGo})
	require.Equal(t, []effect{{kind: effectLocal, step: 1, op: pl.op("b"), timeout: time.Minute}}, out, "what was decided is committed")
	require.Empty(t, pl.ran("b", nil))
	require.Equal(t, Done, pl.in.phase)
	require.Equal(t, []string{"first", "a ok", "b ok"}, pl.state().Items)
	require.Empty(t, pl.do(input{kind: inGo}), "and once only")
}

// A local attempt that was lost, though what asks for it is in the log, is made
// again.
func TestS5_ATickHasALocalStepDoneThatWasLost(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, saga(with(localStep("a"), func(s *Step[order]) { s.Durable = true })))
	pl.start()
	require.Empty(t, pl.later(59*time.Second))
	out := pl.later(time.Second)
	require.Equal(t, []effect{{kind: effectLocal, op: pl.op("a")}}, out)
	require.Equal(t, 1, out[0].op.Attempt)
}

// What follows an outcome, before the pivot and after it: the table of S5 to S8.
func TestS5_S6_S7_S8_TheTableOfOutcomes(t *testing.T) {
	t.Parallel()
	const (
		before = "before" // step "b" of a, b
		pivot  = "pivot"  // step "b" of a, b (pivot)
		after  = "after"  // step "b" of a, p (pivot), b
	)
	outcomes := map[string]func(pl *play){
		"done":     func(pl *play) { pl.ok("b") },
		"rejected": func(pl *play) { pl.no("b") },
		"failed":   func(pl *play) { pl.fail("b") },
		"unknown":  func(pl *play) { pl.later(10 * time.Second) },
	}
	for _, row := range []struct {
		where      string
		outcome    string
		idempotent bool
		undo       bool
		phase      Phase
		status     stepStatus
	}{
		{before, "done", false, true, Done, stepDone},
		{before, "rejected", false, true, Undoing, stepRejected},
		{before, "failed", false, true, Running, stepBetween},
		{before, "unknown", true, true, Running, stepBetween},
		{before, "unknown", false, true, Undoing, stepUndoing}, // this step too
		{before, "unknown", true, false, Running, stepBetween},
		{pivot, "done", true, false, Done, stepDone},
		{pivot, "rejected", true, false, Undoing, stepRejected},
		{pivot, "failed", true, false, Running, stepBetween},
		{pivot, "unknown", true, false, Running, stepBetween},
		{pivot, "unknown", false, true, Undoing, stepUndoing},
		{after, "done", true, false, Done, stepDone},
		{after, "rejected", true, false, Parked, stepRejected},
		{after, "failed", true, false, Running, stepBetween},
		{after, "unknown", true, false, Running, stepBetween},
	} {
		t.Run(fmt.Sprintf("%s the pivot/%s/idempotent %v/undo %v", row.where, row.outcome, row.idempotent, row.undo), func(t *testing.T) {
			t.Parallel()
			b := with(step("b"), func(s *Step[order]) {
				s.Idempotent, s.Pivot = row.idempotent, row.where == pivot
				if !row.undo {
					s.Undo, s.NoUndo = nil, true
				}
			})
			steps := []Step[order]{step("a")}
			if row.where == after {
				steps = append(steps, Step[order]{Name: "p", Do: call("p.do"), Pivot: true})
			}
			pl := newPlay(t, saga(append(steps, b)...))
			pl.start()
			pl.ok("a")
			if row.where == after {
				pl.ok("p")
			}
			outcomes[row.outcome](pl)
			require.Equal(t, row.phase, pl.in.phase)
			require.Equal(t, row.status, pl.status("b"))
			if row.phase == Undoing {
				if row.status != stepUndoing {
					require.Equal(t, stepUndoing, pl.status("a"), "in reverse")
					return
				}
				require.Equal(t, stepDone, pl.status("a"), "this step first")
				require.Equal(t, []string{"a.undo"}, sends(pl.ok("b")))
			}
		})
	}
}

func TestS6_RejectedUndoesWhatWasDoneInReverse(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, saga(step("a"), with(step("b"), func(s *Step[order]) { s.Undo, s.NoUndo = nil, true }), step("c"), step("d")))
	pl.start()
	for _, s := range []string{"a", "b", "c"} {
		pl.ok(s)
	}
	require.Equal(t, []string{"c.undo"}, sends(pl.no("d")))
	require.Equal(t, 3, pl.in.whyStep)
	require.Equal(t, "d.do: sold-out: no more", pl.in.why)
	require.Equal(t, []string{"a.undo"}, sends(pl.ok("c")), "b has nothing to take back")
	require.Empty(t, pl.ok("a"))
	require.Equal(t, Undone, pl.in.phase)
	require.Equal(t, []stepStatus{stepUndone, stepDone, stepUndone, stepRejected}, statuses(pl.in))
	require.Zero(t, pl.in.due())
}

func statuses(in *instance) (all []stepStatus) {
	for _, s := range in.steps {
		all = append(all, s.status)
	}
	return all
}

func TestS6_ALocalStepsPermanentErrorIsARejection(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, saga(localStep("a"), localStep("b")))
	pl.start()
	pl.ran("a", nil)
	out := pl.ran("b", wherry.Permanent(errDown))
	undoOp := Op{Saga: "orders", ID: "o-1", Step: "a", Undo: true, Done: true, Attempt: 1}
	require.Equal(t, []effect{{kind: effectLocal, op: undoOp, durable: true, timeout: time.Minute}}, out, "an undo waits for the commit")
	require.True(t, out[0].op.Undo)
	require.Equal(t, []effectKind{effectLocal}, kinds(pl.do(input{kind: inGo})))
	pl.ran("a", nil)
	require.Equal(t, Undone, pl.in.phase)
}

func TestS6_RejectedAfterThePivotParksUntilAnOperatorDecides(t *testing.T) {
	t.Parallel()
	ship := with(step("ship"), func(s *Step[order]) { s.Undo, s.Idempotent = nil, true })
	d := saga(Step[order]{Name: "pay", Do: call("pay.do"), Pivot: true}, ship, Step[order]{Name: "bye", Do: emit("bye")})
	for verb, end := range map[VerbName]func(pl *play, out []effect){
		Skip:     func(_ *play, out []effect) { require.Equal(t, []string{"bye"}, sends(out)) },
		Complete: func(_ *play, out []effect) { require.Equal(t, []string{"bye"}, sends(out)) },
		Retry: func(pl *play, out []effect) {
			require.Equal(t, []string{"ship.do"}, sends(out))
			require.Equal(t, 2, pl.op("ship").Attempt)
			require.Equal(t, []string{"bye"}, sends(pl.ok("ship")))
		},
	} {
		t.Run(string(verb), func(t *testing.T) {
			t.Parallel()
			pl := newPlay(t, d)
			pl.start()
			pl.ok("pay")
			pl.no("ship")
			require.Equal(t, Parked, pl.in.phase)
			require.Equal(t, Running, pl.in.before)
			require.Equal(t, 1, pl.in.whyStep)
			require.Zero(t, pl.in.due())
			require.Contains(t, pl.refused(Cancel, ""), "can only go forward")
			require.Contains(t, pl.refused(Resume, ""), "retry, skip or complete it")
			end(pl, pl.verb(verb, ""))
			require.Equal(t, Done, pl.in.phase)
			require.Empty(t, pl.in.why)
		})
	}
}

func TestS7_FailedIsTriedAgainByThePolicyAndThenCountsAsRejected(t *testing.T) {
	t.Parallel()
	b := with(step("b"), func(s *Step[order]) { s.Retry = retry.Policy{Attempts: 3, Initial: 2 * time.Second} })
	pl := newPlay(t, saga(step("a"), b))
	pl.start()
	pl.ok("a")
	pl.fail("b")
	require.Empty(t, pl.later(2*time.Second-time.Millisecond))
	require.Equal(t, []string{"b.do"}, sends(pl.later(time.Millisecond)))
	require.Equal(t, 2, pl.op("b").Attempt)
	pl.fail("b")
	require.Empty(t, pl.later(4*time.Second-time.Millisecond))
	require.Equal(t, []string{"b.do"}, sends(pl.later(time.Millisecond)))
	require.Equal(t, []string{"a.undo"}, sends(pl.fail("b")))
	require.Equal(t, stepRejected, pl.status("b"))
	require.Equal(t, "exhausted after 3 attempts: b.do: failed: down", pl.in.why)
	require.Equal(t, []string{"sent", "failed", "sent", "failed", "sent", "failed", "gave up"}, pl.moves("b"))
}

func TestS7_AfterThePivotItIsTriedForEverWithCappedWaits(t *testing.T) {
	t.Parallel()
	rules := []retry.Rule{{If: func(error) bool { return true }, GiveUp: true}}
	for name, p := range map[string]retry.Policy{
		"attempts": {Attempts: 1}, "within": {Within: time.Second}, "rules": {Rules: rules}, "nothing": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := with(step("b"), func(s *Step[order]) { s.Undo, s.Idempotent, s.Retry = nil, true, p })
			d := saga(Step[order]{Name: "p", Do: call("p.do"), Pivot: true}, b)
			pl := newPlay(t, d)
			pl.start()
			pl.ok("p")
			for n := range 200 {
				pl.fail("b")
				wait := pl.in.steps[1].due - pl.e.now.UnixMilli()
				require.Equal(t, min(time.Second<<min(n, 10), time.Minute).Milliseconds(), wait)
				require.Equal(t, []string{"b.do"}, sends(pl.later(time.Duration(wait)*time.Millisecond)))
			}
			require.Equal(t, Running, pl.in.phase)
			require.True(t, pl.in.stuck)
			pl.ok("b")
			require.Equal(t, Done, pl.in.phase)
			require.False(t, pl.in.stuck)
		})
	}
}

func TestS8_UnknownIsTriedAgainWhereThatIsSafe(t *testing.T) {
	t.Parallel()
	b := with(step("b"), func(s *Step[order]) { s.Idempotent, s.Retry = true, retry.Policy{Attempts: 2} })
	pl := newPlay(t, saga(step("a"), b))
	pl.start()
	pl.ok("a")
	require.Empty(t, pl.later(10*time.Second))
	require.True(t, pl.in.steps[1].doubt)
	require.Equal(t, []string{"b.do"}, sends(pl.later(time.Second)))
	require.Equal(t, []string{"b.undo"}, sends(pl.later(10*time.Second)), "it may be done, so it is undone too")
	require.Equal(t, []string{"a.undo"}, sends(pl.ok("b")))
}

func TestS8_ARejectionAfterADoubtIsNoRelief(t *testing.T) {
	t.Parallel()
	b := with(step("b"), func(s *Step[order]) { s.Idempotent = true })
	pl := newPlay(t, saga(step("a"), b))
	pl.start()
	pl.ok("a")
	pl.later(11 * time.Second)
	require.Equal(t, []string{"b.undo"}, sends(pl.no("b")))
	require.Equal(t, []string{"a.undo"}, sends(pl.ok("b")))
}

func TestS8_ALocalStepThatTookTooLongIsUnknown(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, saga(localStep("a"), with(localStep("b"), func(s *Step[order]) { s.Timeout = time.Second })))
	pl.start()
	pl.ran("a", nil)
	pl.ran("b", fmt.Errorf("dialing: %w", context.DeadlineExceeded))
	require.Equal(t, stepUndoing, pl.status("b"))
}

func TestS8_APivotThatMayBeDoneIsAskedForEver(t *testing.T) {
	t.Parallel()
	p := with(step("p"), func(s *Step[order]) {
		s.Undo, s.Idempotent, s.Pivot, s.Retry = nil, true, true, retry.Policy{Attempts: 2}
	})
	d := saga(step("a"), p)
	d.Deadline = time.Minute
	pl := newPlay(t, d)
	pl.start()
	pl.ok("a")
	for range 20 {
		pl.later(10 * time.Second) // no answer
		require.Equal(t, Running, pl.in.phase)
		pl.later(time.Minute)
	}
	require.Contains(t, pl.refused(Undo, ""), "may be done")
	out := pl.ok("p")
	require.Empty(t, out)
	require.Equal(t, Done, pl.in.phase, "the deadline was over, but the pivot was done")
	require.Empty(t, pl.in.why)
}

func TestS8_APivotInDoubtThatIsRejectedIsUndone(t *testing.T) {
	t.Parallel()
	p := with(step("p"), func(s *Step[order]) { s.Undo, s.Idempotent, s.Pivot = nil, true, true })
	pl := newPlay(t, saga(step("a"), p))
	pl.start()
	pl.ok("a")
	pl.later(11 * time.Second)
	require.Equal(t, []string{"a.undo"}, sends(pl.no("p")))
}

func TestS9_AnUndoIsTriedForEverAndShowsAsStuck(t *testing.T) {
	t.Parallel()
	a := with(step("a"), func(s *Step[order]) { s.Retry = retry.Policy{Attempts: 1, Max: 5 * time.Second} })
	d := saga(a, step("b"))
	d.StuckAfter = time.Minute
	pl := newPlay(t, d)
	pl.start()
	pl.ok("a")
	pl.no("b")
	first := pl.e.now
	var stuck []effect
	for n := range 30 {
		switch n % 3 {
		case 0:
			pl.fail("a")
		case 1:
			pl.no("a")
		}
		out := pl.later(15 * time.Second) // or no answer
		for _, e := range out {
			if e.kind == effectStuck {
				stuck = append(stuck, e)
				i := slices.IndexFunc(pl.in.history, func(tr transition) bool { return tr.what == moveStuck })
				require.Equal(t, first.Add(time.Minute), time.UnixMilli(pl.in.history[i].at).UTC(), "not before, and at once")
			}
		}
		require.Equal(t, Undoing, pl.in.phase)
		require.NotEmpty(t, pl.refused(Cancel, ""), "it is shielded")
		if pl.status("a") == stepUndoWait {
			pl.later(5 * time.Second)
		}
	}
	require.Len(t, stuck, 1)
	got := stuck[0].stuck
	require.Equal(t, []any{"o-1", "a", first}, []any{got.ID, got.Step, got.Since.UTC()})
	require.NotEmpty(t, got.Err)
	require.True(t, pl.in.stuck)
	pl.ok("a")
	require.Equal(t, Undone, pl.in.phase)
	require.False(t, pl.in.stuck)
}

func TestS9_AnUndoWithoutATimeoutIsAskedAgainAfterAMinute(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, saga(with(step("a"), func(s *Step[order]) { s.Timeout = 0 }), step("b")))
	pl.start()
	pl.ok("a")
	pl.no("b")
	require.Empty(t, pl.later(time.Minute))
	require.Equal(t, []string{"a.undo"}, sends(pl.later(time.Second)))
}

func TestS7_WaitsAreSpreadByWhatIsTheSameAgain(t *testing.T) {
	t.Parallel()
	wait := func(id string) int64 {
		pl := newPlay(t, saga(with(step("a"), func(s *Step[order]) { s.Retry = retry.Policy{Initial: 10 * time.Second, Jitter: 0.5} })))
		pl.in.id = id
		pl.start()
		pl.fail("a")
		return pl.in.steps[0].due - pl.e.now.UnixMilli()
	}
	waits := map[int64]bool{}
	for i := range 100 {
		id := fmt.Sprint("o-", i)
		w := wait(id)
		require.Equal(t, w, wait(id))
		require.GreaterOrEqual(t, w, int64(5000))
		require.LessOrEqual(t, w, int64(15000))
		waits[w/1000] = true
	}
	require.Len(t, waits, 10, "all over the second half of the wait to the first of the next")
}
