package saga

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
)

// paying awaits what others do.
func paying() Definition[order] {
	pay := Step[order]{
		Name: "pay", Do: emit("order.created", success("payment.created"), failure("payment.failed")),
		Undo: emit("order.cancelled"), Timeout: time.Minute,
	}
	return saga(step("a"), pay, Step[order]{Name: "ship", NoUndo: true, Do: Await(success("ship.done"))})
}

func TestS23_AnEventEndsTheStepThatAwaitsIt(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, paying())
	pl.start()
	require.Equal(t, []string{"order.created"}, sends(pl.ok("a")))
	require.Empty(t, pl.do(input{kind: inEvent, record: happening("o-2", "payment.created")}), "of another saga")
	require.Equal(t, stepDoing, pl.status("pay"))
	require.Empty(t, pl.occurs("payment.created", "is", "good"))
	require.Equal(t, stepDoing, pl.status("ship"))
	require.Contains(t, pl.state().Items, "payment.created:good")
	pl.occurs("ship.done")
	require.Equal(t, Done, pl.in.phase)
}

func TestS23_AFailureRejectsTheStep(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, paying())
	pl.start()
	pl.ok("a")
	require.Equal(t, []string{"a.undo"}, sends(pl.occurs("payment.failed", "why", "no money")), "and is not undone itself")
	require.Equal(t, "no money", pl.in.why)
}

func TestS23_AnEventBeforeItsStepWaitsForIt(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, paying())
	pl.start()
	pl.occurs("ship.done", "is", "first")
	pl.occurs("ship.done", "is", "second")
	pl.occurs("payment.created")
	require.Len(t, pl.in.events, 3)
	require.Equal(t, []string{"order.created"}, sends(pl.ok("a")), "what was awaited is sent all the same")
	require.Equal(t, Done, pl.in.phase)
	require.Equal(t, []string{"first", "a ok", "payment.created:", "ship.done:first"}, pl.state().Items, "in the order in which they came")
	require.Equal(t, []effectKind{effectSend, effectExpire}, kinds(pl.out), "nobody will ask for the second any more")
}

func TestS23_AnEventBeforeItsSagaWaitsForIt(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, paying())
	require.Empty(t, pl.occurs("other.topic"))
	require.Zero(t, pl.in.phase, "for nobody: nothing is stored")
	require.Empty(t, pl.occurs("payment.created"))
	require.Equal(t, Early, pl.in.phase)
	require.Equal(t, millis(pl.e.now.Add(time.Hour)), pl.in.due())
	pl.e.now = pl.e.now.Add(time.Minute)
	pl.start()
	require.Equal(t, pl.e.now.UnixMilli(), pl.in.began)
	pl.ok("a")
	require.Equal(t, stepDone, pl.status("pay"))
}

func TestS23_WhatWaitedTooLongExpires(t *testing.T) {
	t.Parallel()
	t.Run("before its saga", func(t *testing.T) {
		t.Parallel()
		pl := newPlay(t, paying())
		pl.e.eventTTL = time.Minute
		pl.occurs("payment.created")
		require.Empty(t, pl.later(time.Minute-time.Millisecond))
		out := pl.later(time.Millisecond)
		require.Equal(t, []effectKind{effectExpire, effectForget}, kinds(out))
		require.Equal(t, "payment.created", out[0].event.record().Topic)
		require.EqualValues(t, 3, out[0].event.partition)
	})
	t.Run("before its step", func(t *testing.T) {
		t.Parallel()
		d := paying()
		d.Steps[0].Timeout = 0
		pl := newPlay(t, d)
		pl.start()
		pl.occurs("payment.created")
		pl.e.now = pl.e.now.Add(time.Minute)
		pl.occurs("ship.done")
		require.Equal(t, []effectKind{effectExpire}, kinds(pl.later(time.Hour-time.Minute)))
		require.Len(t, pl.in.events, 1)
		require.Equal(t, []effectKind{effectExpire}, kinds(pl.later(time.Minute)))
		require.Zero(t, pl.in.due())
		require.Equal(t, []string{"order.created"}, sends(pl.ok("a")))
		require.Equal(t, stepDoing, pl.status("pay"))
	})
	t.Run("too many", func(t *testing.T) {
		t.Parallel()
		pl := newPlay(t, paying())
		for range maxWaiting {
			require.Empty(t, pl.occurs("payment.created"))
		}
		out := pl.occurs("payment.created", "is", "last")
		require.Equal(t, []effectKind{effectExpire}, kinds(out))
		require.JSONEq(t, `{"is":"last"}`, string(out[0].event.value))
		require.Len(t, pl.in.events, maxWaiting)
		pl.in, pl.e.full = &instance{id: "o-1"}, true
		require.Equal(t, []effectKind{effectExpire}, kinds(pl.occurs("payment.created")), "in the partition")
		require.Zero(t, pl.in.phase)
	})
}

func TestS23_AnEventThatComesTwiceCountsOnce(t *testing.T) {
	t.Parallel()
	twice := func(name string) Step[order] {
		return Step[order]{Name: name, NoUndo: true, Do: Await(success("tick"))}
	}
	pl := newPlay(t, saga(step("a"), twice("b"), twice("c")))
	pl.start()
	r := happening("o-1", "tick")
	pl.do(input{kind: inEvent, record: r})
	pl.do(input{kind: inEvent, record: r})
	require.Len(t, pl.in.events, 1, "it waits already")
	pl.ok("a")
	pl.do(input{kind: inEvent, record: r})
	require.Equal(t, stepDoing, pl.status("c"), "it was taken in already")
	require.Equal(t, moveIgnored, pl.in.history[len(pl.in.history)-1].what)
	pl.occurs("tick")
	require.Equal(t, Done, pl.in.phase)
}

func TestS23_AnEventOfAStepThatIsOverIsIgnored(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, paying())
	pl.start()
	pl.ok("a")
	pl.occurs("payment.created")
	before := pl.in.again()
	require.Empty(t, pl.occurs("payment.failed"))
	require.Equal(t, before.steps, pl.in.steps)
	require.Empty(t, pl.in.events)
	require.Contains(t, pl.in.history[len(pl.in.history)-1].note, "for nobody")
}

func TestS23_AnUndoMayAwaitAnEvent(t *testing.T) {
	t.Parallel()
	a := Step[order]{Name: "a", Do: call("a.do"), Undo: emit("cancel", success("cancelled"), failure("not.cancelled"))}
	pl := newPlay(t, saga(a, step("b")))
	pl.start()
	pl.ok("a")
	require.Equal(t, []string{"cancel"}, sends(pl.no("b")))
	pl.occurs("not.cancelled", "why", "no time")
	require.Equal(t, stepUndoWait, pl.status("a"))
	require.Equal(t, []string{"cancel"}, sends(pl.later(time.Second)))
	pl.occurs("cancelled")
	require.Equal(t, Undone, pl.in.phase)
}

func TestS22_ATriggerStartsASagaOnce(t *testing.T) {
	t.Parallel()
	d := paying()
	d.Start = []Trigger[order]{On(wherry.Event[map[string]string]{Topic: "order.placed"}, func(got map[string]string) order {
		return order{Plan: got["plan"]}
	}).By(func(got map[string]string) string { return got["id"] })}
	for name, kind := range map[string]inputKind{"as a start": inStart, "as an event": inEvent} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pl := newPlay(t, d)
			pl.occurs("payment.created")
			r := happening("a key", "order.placed", "id", "o-1", "plan", "gold")
			require.Equal(t, []string{"a.do"}, sends(pl.do(input{kind: kind, record: r})))
			require.Equal(t, "gold", pl.state().Plan)
			before := pl.in.again()
			require.Empty(t, pl.do(input{kind: kind, record: r}))
			require.Empty(t, pl.do(input{kind: kind, record: happening("a key", "order.placed", "id", "o-1", "plan", "lead")}), "two events of one id")
			require.Empty(t, pl.start())
			require.Equal(t, before.steps, pl.in.steps)
			require.Equal(t, "gold", pl.state().Plan)
		})
	}
	pl := newPlay(t, d)
	pl.do(input{kind: inEvent, record: happening("", "order.placed", "id", "o-1"), queue: true, trace: "00-1"})
	require.Equal(t, Queued, pl.in.phase)
	require.Equal(t, "00-1", pl.in.trace)

	pl = newPlay(t, d)
	pl.input(input{kind: inStart, record: happening("o-1", "order.placed", "id", "o-7")})
	require.ErrorContains(t, pl.err, "o-1")
	require.Zero(t, pl.in.phase)
}

func TestS25_ASecondStartIsNotedOnce(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, paying())
	pl.start()
	for range 3 {
		require.Empty(t, pl.do(input{kind: inStart, payload: []byte(`{"plan":"other"}`)}))
	}
	require.EqualValues(t, 3, pl.in.moves)
	require.Equal(t, []string{"first"}, pl.state().Items)
}

func TestS27_WithoutCodeItIsParkedAndLosesNothing(t *testing.T) {
	t.Parallel()
	d := both()
	d.Steps = append(d.Steps, Step[order]{Name: "e", NoUndo: true, Do: Await(success("e.done"))})
	d.Version = 3
	pl := newPlay(t, d)
	pl.start()
	pl.ok("a")
	replies := map[string]Op{"b": pl.op("b"), "c": pl.op("c")}
	code := pl.p
	pl.p = nil
	require.Empty(t, pl.do(input{kind: inTick}))
	require.Equal(t, Parked, pl.in.phase)
	require.Contains(t, pl.in.why, "no code for version 3")
	require.Zero(t, pl.in.due(), "nobody could do anything")
	for _, step := range []string{"b", "c"} {
		require.Empty(t, pl.do(input{kind: inReply, op: replies[step], record: answer(step+" ok", "")}))
	}
	require.Empty(t, pl.occurs("e.done"))
	require.Len(t, pl.in.events, 3)
	require.Equal(t, []effectKind{effectRefuse}, kinds(pl.verb(Skip, "b")))
	require.Equal(t, Parked, pl.in.phase)

	pl.p = code
	require.Equal(t, []string{"d.do"}, sends(pl.verb(Resume, "")))
	require.Equal(t, Running, pl.in.phase)
	require.Empty(t, pl.in.why)
	require.Equal(t, []string{"first", "a ok", "b ok", "c ok"}, pl.state().Items)
	pl.ok("d")
	require.Equal(t, Done, pl.in.phase)
}

func TestS27_WithCodeAgainTimersAndLocalStepsGoOn(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, saga(with(localStep("a"), func(s *Step[order]) { s.Durable = true }), step("b")))
	code := pl.p
	pl.start()
	pl.p = nil
	pl.do(input{kind: inGo})
	require.Equal(t, Parked, pl.in.phase)
	pl.p = code
	require.Equal(t, []effectKind{effectLocal}, kinds(pl.do(input{kind: inTick})), "any input will do")
	require.Equal(t, []string{"b.do"}, sends(pl.ran("a", nil)))

	pl.p = nil
	pl.do(input{kind: inTick})
	pl.e.now = pl.e.now.Add(time.Hour)
	require.Equal(t, []effectKind{effectForget}, kinds(pl.verb(Purge, "")))
	pl.p = code
	pl.do(input{kind: inTick})
	require.Equal(t, Undoing, pl.in.phase, "b has timed out")
}

func TestS27_AQuarantinedOneKeepsWhatCameWithoutCode(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, saga(step("a"), step("b")))
	pl.start()
	op, code := pl.op("a"), pl.p
	require.True(t, pl.in.quarantine(pl.e.now, "poison"))
	pl.p = nil
	pl.do(input{kind: inReply, op: op, record: answer("a ok", "")})
	require.Equal(t, Quarantined, pl.in.phase)
	pl.p = code
	require.Empty(t, pl.do(input{kind: inTick}))
	require.Equal(t, []string{"b.do"}, sends(pl.verb(Resume, "")))
}

func TestS27_AStateOfOldIsReadByUpcast(t *testing.T) {
	t.Parallel()
	d := saga(step("a"))
	d.Upcast = func(b []byte) ([]byte, error) {
		if string(b) == "v0" {
			return []byte(`{"plan":"old"}`), nil
		}
		if string(b) == "bad" {
			return nil, errors.New("not of ours")
		}
		return b, nil
	}
	pl := newPlay(t, d)
	pl.do(input{kind: inStart, payload: []byte("v0")})
	require.Equal(t, "v0", string(pl.in.raw), "what is not changed is not written anew")
	pl.ok("a")
	require.JSONEq(t, `{"plan":"old","items":["a ok"]}`, string(pl.in.raw))

	pl.in = &instance{id: "o-2"}
	pl.input(input{kind: inStart, payload: []byte("bad")})
	require.ErrorContains(t, pl.err, "not of ours")
}

// What was kept may begin a step that takes another thing that was kept.
func TestS27_WhatWasKeptIsTakenInInItsOrder(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, paying())
	pl.start()
	op, code := pl.op("a"), pl.p
	pl.p = nil
	for _, is := range []string{"first", "second"} {
		pl.occurs("ship.done", "is", is)
	}
	pl.do(input{kind: inReply, op: op, record: answer("a ok", "")})
	pl.occurs("payment.created")
	pl.occurs("ship.done", "is", "third")
	pl.p = code
	require.Equal(t, []string{"order.created"}, sends(pl.verb(Resume, "")))
	require.Equal(t, Done, pl.in.phase)
	require.Equal(t, []string{"first", "a ok", "payment.created:", "ship.done:first"}, pl.state().Items)
}
