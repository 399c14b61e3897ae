package saga

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Each row is a saga as its record is, and the sentence about it.
func TestS34_WhyIsOneSentence(t *testing.T) {
	t.Parallel()
	const t0 = 1_767_225_600_000 // 2026-01-01
	o := &Outline{Name: "trip", Version: 1, Steps: []OutlineStep{
		{Name: "reserve", Do: "call stock.reserve", Undo: "call stock.release"}, {Name: "pay", Do: "call bank.charge"}, {Name: "ship", Do: "local"},
	}}
	sent := transition{at: t0 + 10_000, what: moveSent, step: 1, attempt: 2}
	failed := transition{at: t0 + 5_000, what: moveFailed, step: 1, attempt: 1, note: "connection refused"}
	for name, row := range map[string]struct {
		in   instance
		want string
	}{
		"the outcome of an attempt": {
			instance{phase: Running, steps: []stepState{{status: stepDone}, {status: stepDoing, attempt: 2, began: t0, due: t0 + 40_000}}, history: []transition{failed, sent}},
			`"o-1" waits for the outcome of attempt 2 at step "pay" (call bank.charge) (the one before: connection refused), since 2026-01-01 00:00:10.000; it times out at 2026-01-01 00:00:40.000.`,
		},
		"no time limit": {
			instance{phase: Running, steps: []stepState{{status: stepDoing, attempt: 1, began: t0}}},
			`"o-1" waits for the outcome of attempt 1 at step "reserve" (call stock.reserve), since 2026-01-01 00:00:00.000, without a time limit.`,
		},
		"the next attempt": {
			instance{phase: Running, steps: []stepState{{status: stepDone}, {status: stepBetween, attempt: 1, began: t0, due: t0 + 9_000}}, history: []transition{failed}},
			`"o-1" waits to make attempt 2 at step "pay" (call bank.charge) (the one before: connection refused), since 2026-01-01 00:00:05.000; it begins at 2026-01-01 00:00:09.000.`,
		},
		"two at once": {
			instance{phase: Running, steps: []stepState{{}, {status: stepDoing, attempt: 1, began: t0}, {status: stepDoing, attempt: 1, began: t0}}},
			`"o-1" waits for the outcome of attempt 1 at step "pay" (call bank.charge), since 2026-01-01 00:00:00.000, without a time limit; and waits for the outcome of attempt 1 at step "ship" (local), since 2026-01-01 00:00:00.000, without a time limit.`,
		},
		"undoing, stuck and paused": {
			instance{
				phase: Undoing, stuck: true, paused: true, whyStep: 1, why: "no money",
				steps: []stepState{{status: stepUndoWait, attempt: 3, began: t0, due: t0 + 60_000}, {status: stepRejected}},
			},
			`"o-1" is stuck: it takes back what was done, because of step "pay": no money; it waits to make attempt 4 at the undoing of step "reserve" (call stock.release), since 2026-01-01 00:00:00.000; it begins at 2026-01-01 00:01:00.000; it is paused, so that no further attempt begins until it is resumed.`,
		},
		"parked": {
			instance{phase: Parked, before: Running, whyStep: 2, why: "no address", history: []transition{{at: t0 + 1000, what: moveParked, step: 2}}},
			`"o-1" is parked and waits for an operator, since 2026-01-01 00:00:01.000, because of step "ship": no address.`,
		},
		"quarantined": {
			instance{phase: Quarantined, whyStep: -1, why: "trip.saga.inbox/0@7: panic: boom", history: []transition{{at: t0 + 1000, what: moveQuarantined, step: -1}}},
			`"o-1" is quarantined and waits for an operator, since 2026-01-01 00:00:01.000, because: trip.saga.inbox/0@7: panic: boom.`,
		},
		"queued": {
			instance{phase: Queued, whyStep: -1},
			`"o-1" waits for a place among those that are active, since 2026-01-01 00:00:00.000.`,
		},
		"early": {
			instance{phase: Early, whyStep: -1, events: make([]waiting, 2)},
			`"o-1" has not started: 2 events wait for its start since 2026-01-01 00:00:00.000.`,
		},
		"done": {
			instance{phase: Done, whyStep: -1, ended: t0 + 2000},
			`"o-1" is done, since 2026-01-01 00:00:02.000.`,
		},
		"undone": {
			instance{phase: Undone, whyStep: 1, why: "no money", ended: t0 + 2000},
			`"o-1" was undone at 2026-01-01 00:00:02.000, because of step "pay": no money.`,
		},
		"events that wait": {
			instance{phase: Running, whyStep: -1, steps: []stepState{{status: stepDoing, attempt: 1, began: t0}}, events: make([]waiting, 1)},
			`"o-1" waits for the outcome of attempt 1 at step "reserve" (call stock.reserve), since 2026-01-01 00:00:00.000, without a time limit; 1 event waits for its time.`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := row.in
			in.id, in.version, in.began = "o-1", 1, t0
			got := snapshot("trip", &in, o).Reason()
			require.Equal(t, row.want, got.String())
			require.Equal(t, in.phase, got.Phase)
		})
	}
}

func TestS34_WhyHasWhatItSaysAsFieldsToo(t *testing.T) {
	t.Parallel()
	in := &instance{
		id: "o-1", phase: Running, whyStep: -1, began: epoch,
		steps:   []stepState{{status: stepDone}, {status: stepDoing, attempt: 2, began: epoch, due: epoch + 9}},
		history: []transition{{at: epoch + 1, what: moveTimedOut, step: 1, attempt: 1}, {at: epoch + 2, what: moveSent, step: 1, attempt: 2}},
	}
	r := snapshot("trip", in, nil).Reason()
	require.Equal(t, Reason{
		Saga: "trip", ID: "o-1", Phase: Running, For: "its steps", Since: time.UnixMilli(epoch + 2), Next: time.UnixMilli(epoch + 9),
		Steps: []StepReason{{Step: "step 2", Attempt: 2, Since: time.UnixMilli(epoch + 2), Next: time.UnixMilli(epoch + 9), Last: "it timed out"}},
	}, r)
	require.Equal(t, "a newer wherry's saga", Snapshot{ID: "a newer wherry's saga"}.Reason().ID)
}
