package saga

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
)

// Who asks again with the id of a verb, because the answer was lost, is told what
// became of it the first time.
func TestS35_AskingAgainIsAnsweredAsTheFirstTime(t *testing.T) {
	t.Parallel()
	ask := func(pl *play, name VerbName) []effect {
		pl.t.Helper()
		return pl.do(input{kind: inVerb, verb: verb{id: "ticket", name: name, actor: "ann"}})
	}
	pl := newPlay(t, saga(step("a")))
	pl.start()
	require.Empty(t, ask(pl, Complete))
	require.Equal(t, Done, pl.in.phase)
	moves := pl.in.moves
	require.Empty(t, ask(pl, Complete), "it was applied, though the saga has ended by it")
	require.Equal(t, moves, pl.in.moves)
	require.Contains(t, pl.refused(Complete, ""), "has ended", "another one is not")

	for name, row := range map[string]struct {
		steps []Step[order]
		verb  VerbName
		then  func(pl *play)
	}{
		"a resume that is refused, and then it is paused":  {[]Step[order]{step("a")}, Resume, func(pl *play) { pl.verb(Pause, "") }},
		"a retry that is refused, and then it makes sense": {[]Step[order]{{Name: "g", Parallel: []Step[order]{step("a"), step("b")}}}, Retry, func(pl *play) { pl.ok("a") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pl := newPlay(t, saga(row.steps...))
			pl.start()
			require.Equal(t, []effectKind{effectRefuse}, kinds(ask(pl, row.verb)))
			row.then(pl)
			before := encodeInstance(pl.in)
			out := ask(pl, row.verb)
			require.Equal(t, []effectKind{effectRefuse}, kinds(out))
			require.Contains(t, out[0].refused, "it was refused before")
			require.Equal(t, before, encodeInstance(pl.in))
			require.NotEqual(t, []effectKind{effectRefuse}, kinds(pl.verb(row.verb, "")), "with an id of its own it is applied")
		})
	}
}

// A definition that was edited under the version that sagas are in flight with:
// none of them goes on with another number of steps than it began with.
func TestS27_ADefinitionThatLostOrGotAStepIsTold(t *testing.T) {
	t.Parallel()
	began := saga(step("a"), step("b"), step("c"))
	for name, edited := range map[string]Definition[order]{
		"one fewer": saga(step("a"), step("b")),
		"one more":  saga(step("a"), step("b"), step("c"), step("d")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pl := newPlay(t, began)
			pl.start()
			pl.ok("a")
			whole := pl.p
			p, err := compile(edited)
			require.NoError(t, err)
			pl.p = p
			before := encodeInstance(pl.in)
			for _, i := range []input{
				{kind: inReply, op: Op{Saga: "orders", ID: "o-1", Step: "b", Attempt: 1}, record: answer("ok", "")},
				{kind: inTick},
				{kind: inGo},
				{kind: inEvent, record: happening("o-1", "x")},
				{kind: inVerb, verb: verb{name: Retry}},
				{kind: inVerb, verb: verb{name: Cancel}},
			} {
				require.Empty(t, pl.input(i))
				require.ErrorContains(t, pl.err, "it has 3 steps, and the Definition of version 1 has")
				require.Equal(t, before, encodeInstance(pl.in))
			}
			require.True(t, pl.in.quarantine(pl.e.now, pl.err.Error()))
			gone := *pl
			require.Equal(t, []effectKind{effectForget}, kinds(gone.verb(Purge, "")), "it can be forgotten")
			pl.p = whole
			pl.verb(Resume, "")
			require.Equal(t, []string{"c.do"}, sends(pl.ok("b")), "and goes on with what it began with")
		})
	}
}

// An undo that a shut gate holds is waited for no less than one that fails.
func TestS9_WhatAGateHoldsShowsAsStuckToo(t *testing.T) {
	t.Parallel()
	stuck := func(out []effect) (steps []string) {
		for _, e := range out {
			if e.kind == effectStuck {
				steps = append(steps, e.stuck.Step)
			}
		}
		return steps
	}
	down := func(pl *play) { // the gate asks for a second's patience each time
		pl.e.gate = func(int) time.Time { return pl.e.now.Add(time.Second) }
	}
	d := saga(step("a"), step("b"))
	d.StuckAfter = time.Minute

	pl := newPlay(t, d)
	pl.start()
	pl.ok("a")
	down(pl)
	require.Empty(t, sends(pl.no("b")), "the gate is shut before the first attempt to undo")
	require.Empty(t, stuck(pl.later(time.Minute-time.Millisecond)))
	require.Equal(t, []string{"a"}, stuck(pl.later(time.Millisecond)))
	require.True(t, pl.in.stuck)
	require.Empty(t, stuck(pl.later(time.Hour)), "once")
	pl.e.gate = nil
	require.Equal(t, []string{"a.undo"}, sends(pl.later(2*time.Second)))
	pl.ok("a")
	require.Equal(t, Undone, pl.in.phase)
	require.False(t, pl.in.stuck)

	pl = newPlay(t, d)
	pl.start()
	pl.ok("a")
	pl.no("b")
	down(pl)
	pl.fail("a")
	require.Equal(t, []string{"a"}, stuck(pl.later(time.Minute)), "a probe that failed")

	after := saga(Step[order]{Name: "p", Do: call("p.do"), Pivot: true}, Step[order]{Name: "b", Do: call("b.do")})
	after.StuckAfter = time.Minute
	pl = newPlay(t, after)
	pl.start()
	down(pl)
	pl.ok("p")
	require.Equal(t, []string{"b"}, stuck(pl.later(time.Minute)), "a step after the pivot")

	before := saga(step("a"))
	before.StuckAfter = time.Minute
	pl = newPlay(t, before)
	down(pl)
	pl.start()
	require.Empty(t, stuck(pl.later(time.Hour)), "a step before the pivot only waits")
}

// What a participant says is no line of the history.
func TestS36_ATimelineHasALineForATransition(t *testing.T) {
	t.Parallel()
	pl := newPlay(t, saga(step("a")))
	pl.in.id = "o-1\n        0s             ended: done"
	pl.start()
	pl.do(input{kind: inReply, op: pl.op("a"), record: answer("", `{"status":"error","code":"no","message":"none left\r\n      10s             ended: done\u001b[2J\u2028x"}`)})
	require.Equal(t, Undone, pl.in.phase)
	lines := strings.Split(strings.TrimSuffix(timeline(pl.p.names(), pl.in), "\n"), "\n")
	require.Len(t, lines, 1+len(pl.in.history))
	for _, l := range lines {
		require.NotContains(t, l, "\x1b")
		require.NotContains(t, l, "\r")
		require.NotContains(t, l, "\u2028")
	}
}

// The first that a process with the code again hears of a saga is that an
// operator has done its local step by hand: then that is not done too.
func TestS35_WhatAnOperatorSettlesIsNotDone(t *testing.T) {
	t.Parallel()
	for _, undo := range []bool{false, true} {
		for _, name := range []VerbName{Skip, Complete, Retry, Undo} {
			t.Run(fmt.Sprint(name, " of an undo ", undo), func(t *testing.T) {
				t.Parallel()
				pl := newPlay(t, saga(localStep("a"), localStep("b")))
				pl.start()
				if undo {
					if name == Undo {
						return // that is going on
					}
					pl.ran("a", nil)
					pl.ran("b", wherry.Permanent(errDown))
				}
				p := pl.p
				pl.p = nil
				pl.do(input{kind: inTick})
				pl.p = p
				require.True(t, pl.in.orphan())
				out := pl.verb(name, "")
				for _, e := range out {
					require.Equal(t, effectLocal, e.kind)
					out := pl.op(e.op.Step)
					require.Equal(t, []any{out.Undo, out.Attempt}, []any{e.op.Undo, e.op.Attempt}, "it is the attempt that is out")
				}
				require.Len(t, out, map[VerbName]int{Skip: 1, Complete: 1, Retry: 1, Undo: 1}[name]-map[bool]int{true: 1}[undo && name != Retry])
			})
		}
	}
}

// What comes for a saga that is quarantined, while a process without its code has
// it, is taken in when one has it that does.
func TestS27_WhatCameWithoutCodeForAQuarantinedSagaCounts(t *testing.T) {
	t.Parallel()
	for _, is := range []string{"ok", "no"} {
		for name, then := range map[string]input{
			"a tick": {kind: inTick}, "a resume": {kind: inVerb, verb: verb{name: Resume}}, "a retry": {kind: inVerb, verb: verb{name: Retry}},
		} {
			t.Run(is+", and then "+name, func(t *testing.T) {
				t.Parallel()
				pl := newPlay(t, saga(Step[order]{Name: "a", Do: emit("a.do", success("a.ok"), failure("a.no")), Undo: emit("a.undo")}))
				pl.start()
				require.True(t, pl.in.quarantine(pl.e.now, "poison"))
				p := pl.p
				pl.p = nil
				pl.occurs("a." + is)
				pl.p = p
				require.Len(t, pl.in.events, 1)
				if name == "a tick" { // when the event has waited for long
					pl.e.now = pl.e.now.Add(2 * time.Hour)
				}
				require.NotContains(t, kinds(pl.input(then)), effectExpire)
				require.NoError(t, pl.err)
				require.Empty(t, pl.in.events)
				if pl.in.phase == Quarantined {
					pl.verb(Resume, "")
				}
				require.Equal(t, map[string]Phase{"ok": Done, "no": Undone}[is], pl.in.phase)
			})
		}
	}
}
