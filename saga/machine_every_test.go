package saga

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/internal/raced"
	"github.com/wherry-go/wherry/retry"
)

// everything that may happen to a saga next, and the names of it.
func (pl *play) possible() (all []input) {
	in := pl.in
	if in.phase == 0 || in.phase == Early {
		all = append(all, input{kind: inStart, payload: []byte(`{}`)}, input{kind: inStart, payload: []byte(`{}`), queue: true})
	}
	all = append(all, input{kind: inTick}, input{kind: inGo}, input{kind: inAdmit})
	for _, name := range []VerbName{Cancel, Undo, Pause, Resume} {
		all = append(all, input{kind: inVerb, verb: verb{name: name}})
	}
	for i, ps := range pl.p.steps {
		for _, name := range []VerbName{Retry, Skip, Complete} {
			all = append(all, input{kind: inVerb, verb: verb{name: name, step: ps.name}})
		}
		if i >= len(in.steps) {
			continue
		}
		for _, undo := range []bool{false, true} {
			a := ps.act(undo)
			if a.kind == actNone {
				continue
			}
			for attempt := range min(int(in.steps[i].attempt), 2) {
				op := Op{Saga: "orders", ID: "o-1", Step: ps.name, Undo: undo, Attempt: int(in.steps[i].attempt) - attempt}
				switch a.kind {
				case actCall:
					for _, fault := range []string{"", `{"code":"no","message":"no"}`, `{"code":"failed","message":"down"}`} {
						all = append(all, input{kind: inReply, op: op, record: answer("ok", fault)})
					}
				case actLocal:
					for _, err := range []error{nil, errDown, ctxDeadline} {
						all = append(all, input{kind: inLocal, op: op, err: err, result: map[bool]any{false: "ok", true: struct{}{}}[undo]})
					}
				case actNone, actEmit:
				}
			}
		}
		for _, o := range append(slices.Clone(ps.do.outcomes), ps.undo.outcomes...) {
			all = append(all, input{kind: inEvent, record: happening("o-1", o.topic)})
		}
	}
	return all
}

func wording(i input) string {
	switch i.kind {
	case inVerb:
		return fmt.Sprintf("%s %s", i.verb.name, i.verb.step)
	case inReply:
		return fmt.Sprintf("reply to %v: %v", i.op, i.record.Headers)
	case inLocal:
		return fmt.Sprintf("local %v: %v", i.op, i.err)
	case inEvent:
		return "event " + i.record.Topic
	default:
		return fmt.Sprint("input ", i.kind)
	}
}

// sameness is what of a saga decides over what may come of it: all but the past.
func (pl *play) sameness() string {
	in := pl.in.again()
	rel := func(t int64) int64 {
		if t == 0 {
			return 0
		}
		return max(t-pl.e.now.UnixMilli(), -1)
	}
	var b strings.Builder
	fmt.Fprint(&b, in.phase, in.before, in.failing, in.paused, in.stuck, in.stage, in.whyStep, rel(in.deadline), rel(in.expires), len(in.events))
	for _, s := range in.steps {
		fmt.Fprint(&b, "|", s.status, s.doubt, min(s.attempt, 3), s.tries, rel(s.due), rel(s.stuckAt), s.began != 0)
	}
	for _, w := range in.events {
		fmt.Fprint(&b, w.topic, w.step)
	}
	return b.String()
}

// sound requires what holds of any saga, and of any step of it from what it was.
func (pl *play) sound(was *instance, i input, path []string) {
	in, p := pl.in, pl.p
	said := func() string {
		return fmt.Sprintf("%s\nwas %v %v\nis %v %v", strings.Join(append(path, wording(i)), "\n"), was.phase, statuses(was), in.phase, statuses(in))
	}
	if pl.err != nil {
		pl.t.Fatalf("error: %v\n%s", pl.err, said())
	}
	refused, undoes := false, false
	for _, e := range pl.out {
		refused = refused || e.kind == effectRefuse
		if e.kind != effectSend && e.kind != effectLocal {
			continue
		}
		undoes = undoes || e.op.Undo
		switch s := in.steps[e.step]; {
		case in.held() && was.held() && !was.orphan() && i.verb.name != Retry:
			pl.t.Fatalf("%v is asked for, of one that is held\n%s", e.op, said())
		case e.op.Undo && p.pivot >= 0 && was.doing() == Running && was.steps[p.pivot].status == stepDone:
			pl.t.Fatalf("%v is asked for after the pivot\n%s", e.op, said())
		case e.op.Undo && s.status != stepUndoing && s.status != stepUndone:
			pl.t.Fatalf("%v is asked for, and the step is %v\n%s", e.op, s.status, said())
		case !e.op.Undo && was.doing() == Undoing:
			pl.t.Fatalf("%v is asked for while it is undone\n%s", e.op, said())
		}
	}
	if refused && !was.orphan() && (in.phase != was.phase || !slices.Equal(in.steps, was.steps) || in.paused != was.paused) {
		pl.t.Fatalf("a refused verb changed something\n%s", said())
	}
	if was.phase.Ended() && (in.phase != was.phase || !slices.Equal(in.steps, was.steps) || len(pl.out) > 1) {
		pl.t.Fatalf("it had ended\n%s", said())
	}
	if held := in.phase == Parked || in.phase == Quarantined; !held && (in.before != 0 || in.beforeWhy != "" || in.beforeStep != 0) {
		pl.t.Fatalf("it is not held, and was %v before\n%s", in.before, said())
	}
	waits := false // for something that comes by itself, or from outside
	for n, s := range in.steps {
		ps := p.steps[n]
		out := s.status == stepDoing || s.status == stepUndoing
		waits = waits || out
		switch {
		case in.doing() == Undoing && (s.status == stepDoing || s.status == stepBetween):
			pl.t.Fatalf("%s is %v while it is undone\n%s", ps.name, s.status, said())
		case in.doing() == Running && (s.status == stepUndoing || s.status == stepUndoWait || s.status == stepUndone):
			pl.t.Fatalf("%s is %v while it is done\n%s", ps.name, s.status, said())
		case in.phase == Done && s.status != stepDone && s.status != stepSkipped:
			pl.t.Fatalf("%s is %v, and the saga is done\n%s", ps.name, s.status, said())
		case in.phase == Undone && (s.status == stepDone || s.status == stepUnknown) && ps.undoes() && len(was.steps) > 0 && was.doing() != Queued:
			pl.t.Fatalf("%s is %v, and the saga is undone\n%s", ps.name, s.status, said())
		case in.phase.Ended() && (out || s.due != 0 || s.stuckAt != 0):
			pl.t.Fatalf("%s is %v until %d, and the saga has ended\n%s", ps.name, s.status, s.due, said())
		case ps.stage > in.stage && s.status != stepWaiting && in.doing() == Running:
			pl.t.Fatalf("%s is %v before its stage\n%s", ps.name, s.status, said())
		}
	}
	if at := in.due(); !waits && at == 0 && (in.phase == Running || in.phase == Undoing) && !in.paused {
		pl.t.Fatalf("it waits for nothing\n%s", said())
	}
	if i.kind == inTick {
		if at := in.due(); at != 0 && at <= pl.e.now.UnixMilli() {
			pl.t.Fatalf("what is due is due again\n%s", said())
		}
	}
}

// Few steps, and all that can happen to them in any order, until nothing new
// comes of it or so many inputs were given.
func TestMachine_EveryOrderOfFewInputs(t *testing.T) {
	t.Parallel()
	pol := retry.Policy{Attempts: 2, Initial: time.Second, Max: time.Second}
	c := func(name string, change ...func(*Step[order])) Step[order] {
		s := with(step(name), func(s *Step[order]) { s.Retry = pol })
		for _, f := range change {
			f(&s)
		}
		return s
	}
	idem := func(s *Step[order]) { s.Idempotent = true }
	pivot := func(s *Step[order]) { s.Pivot, s.Undo, s.Idempotent = true, nil, true }
	pivotUndo := func(s *Step[order]) { s.Pivot = true }
	after := func(s *Step[order]) { s.Undo, s.Idempotent = nil, true }
	noUndo := func(s *Step[order]) { s.Undo, s.NoUndo = nil, true }
	group := func(all ...Step[order]) Step[order] { return Step[order]{Name: "g", Parallel: all} }
	emits := func(s *Step[order]) {
		s.Do, s.Undo = emit(s.Name, success(s.Name+".ok"), failure(s.Name+".no")), emit(s.Name+".undo", success(s.Name+".undone"))
	}
	local := func(s *Step[order]) { s.Do, s.Undo = localStep(s.Name).Do, localStep(s.Name).Undo }
	odd := func(s *Step[order]) { s.When = func(o order) bool { return len(o.Items)%2 == 1 } }
	for name, steps := range map[string][]Step[order]{
		"two":               {c("a"), c("b", idem)},
		"pivot":             {c("a"), c("p", pivot), c("b", after)},
		"pivot with undo":   {c("a"), c("p", pivotUndo), c("b", after)},
		"group":             {group(c("a"), c("b", idem)), c("c", noUndo)},
		"group after pivot": {c("p", pivot), group(c("a", after), c("b", after))},
		"events":            {c("a", emits), c("b", emits, idem)},
		"local":             {c("a", local), c("b", local, func(s *Step[order]) { s.Durable = true })},
		"when":              {c("a"), group(c("b", odd), c("d")), c("p", pivot, odd)},
	} {
		for _, deadline := range []time.Duration{0, 10 * time.Second} { // that of a step too
			t.Run(fmt.Sprint(name, " ", deadline), func(t *testing.T) {
				t.Parallel()
				d := saga(steps...)
				d.Deadline, d.StuckAfter = deadline, 5*time.Second
				n := everyOrder(t, d, fewer(2000))
				t.Log(n, "states")
			})
		}
	}
}

// fewer is a tenth where the race detector makes all ten times as slow.
func fewer(n int) int {
	if raced.On {
		return n / 10
	}
	return n
}

type visited struct {
	pl   play
	path []string
}

func everyOrder(t *testing.T, d Definition[order], most int) int {
	t.Helper()
	first := newPlay(t, d)
	seen := map[string]bool{first.sameness(): true}
	queue := []visited{{*first, nil}}
	for len(queue) > 0 && len(seen) < most {
		v := queue[0]
		queue = queue[1:]
		all := v.pl.possible()
		last := len(all)
		for n, i := range append(all, input{}, input{}) {
			pl := v.pl
			was := pl.in.again()
			switch n {
			case last: // an operator has to look at it
				pl.in = pl.in.again()
				if !pl.in.quarantine(pl.e.now, "poison") {
					continue
				}
				pl.out, pl.err = nil, nil
			case last + 1: // a process without its code
				p := pl.p
				pl.p = nil
				pl.input(input{kind: inTick})
				pl.p = p
			default:
				if due := pl.in.due(); i.kind == inTick && due > 0 {
					if at := time.UnixMilli(due).UTC(); at.After(pl.e.now) {
						pl.e.now = at
					}
				}
				pl.input(i)
				pl.sound(was, i, v.path)
			}
			key := pl.sameness()
			if seen[key] || pl.in.phase.Ended() && was.phase.Ended() {
				continue
			}
			seen[key] = true
			w := wording(i)
			if i.kind == 0 {
				w = fmt.Sprint("quarantine or no code ", n)
			}
			queue = append(queue, visited{pl, append(slices.Clip(v.path), w)})
		}
	}
	return len(seen)
}

// Whatever bytes are in a state topic: the machine comes to an end with them, with
// an error or without.
func TestMachine_AnyBytesOfAState(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(11, 12))
	d := saga(step("a"), Step[order]{Name: "g", Parallel: []Step[order]{step("b"), localStep("c")}}, Step[order]{Name: "p", Do: call("p.do"), Pivot: true}, Step[order]{Name: "d", Do: emit("d", success("d.ok"))})
	d.Deadline = time.Hour
	ends := map[bool]int{}
	for range fewer(2000) {
		pl := newPlay(t, d)
		pl.in = anyInstance(rng)
		pl.in.id, pl.in.raw, pl.in.before = "o-1", []byte(`{}`), []Phase{Queued, Running, Undoing}[rng.IntN(3)]
		if rng.IntN(4) > 0 {
			pl.in.steps = append(pl.in.steps, make([]stepState, len(pl.p.steps))...)[:len(pl.p.steps)]
		}
		if rng.IntN(2) > 0 {
			pl.in.stage = rng.IntN(5)
		}
		all := pl.possible()
		i := all[rng.IntN(len(all))]
		pl.input(i)
		ends[pl.err == nil]++
		if pl.err == nil {
			_, err := decodeInstance("o-1", encodeInstance(pl.in))
			require.NoError(t, err)
			_ = snapshot("orders", pl.in, nil).Reason().String()
			_ = snapshot("orders", pl.in, nil).Timeline()
			continue
		}
		in := pl.in.again()
		in.quarantine(pl.e.now, "x")
		encodeInstance(in)
	}
	require.Greater(t, ends[true], fewer(100))
	t.Log(ends)
}
