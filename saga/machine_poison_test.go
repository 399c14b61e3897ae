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
