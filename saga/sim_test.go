package saga

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/internal/raced"
)

var ctxDeadline = context.DeadlineExceeded

// called is one call of the machine: what was given, and what came of it.
type called struct {
	i      input
	words  string
	moves  []transition
	fails  bool // the stage was to be undone already
	locals []effect
	sends  []packet
}

// give is the engine: it hands an input to the machine, runs what is local, and
// commits all that came of it, unless it crashes first.
func (w *world) give(p packet) {
	before := w.pl.in.again()
	calls := []called{w.next(p.i, p.words)}
	locals, sends := calls[0].locals, calls[0].sends
	goOn := false
	for len(locals) > 0 {
		l := locals[0]
		locals = locals[1:]
		if l.durable || len(sends) > 0 {
			goOn = true
			continue
		}
		c := w.next(w.runLocal(l))
		calls = append(calls, c)
		locals, sends = append(locals, c.locals...), append(sends, c.sends...)
	}
	if !w.calm && w.d.percent(5) {
		w.say("crash, and nothing of it is committed")
		w.pl.in, w.again = before, &p
		return
	}
	for _, c := range calls {
		w.judge(c.i, c.words)
		for _, tr := range c.moves {
			switch {
			case tr.what == moveDeadline:
				w.cut()
			case tr.step >= 0:
				w.move(tr)
				if tr.what == moveSent && c.fails && tr.step != w.pl.p.pivot {
					w.fatal("%s is tried, and its stage is to be undone", w.pl.p.steps[tr.step].name)
				}
				c.fails = (c.fails || w.endsStage(tr)) && (tr.what != moveDone || tr.step != w.pl.p.pivot)
			}
		}
	}
	w.net = append(w.net, sends...)
	if goOn {
		w.net = append(w.net, packet{i: input{kind: inGo}, sure: true})
	}
}

// giveAgain is that of what was not committed.
func (w *world) giveAgain() {
	p := *w.again
	w.again, w.pl.e.again = nil, true
	w.give(p)
	w.pl.e.again = false
}

// next calls the machine.
func (w *world) next(i input, words string) called {
	w.say("> %v %v %s", i.kind, i.op, words)
	in := w.pl.in.again()
	moves, fails := in.moves, in.failing
	p := w.pl.p
	if !w.calm && in.phase != 0 && in.phase != Early && i.kind != inVerb && i.kind != inLocal && w.d.percent(2) {
		w.say("without code")
		p = nil
		for i := range w.steps {
			w.steps[i].haunted = w.steps[i].haunted || w.pl.e.again && in.doing() == Running && w.pl.p.steps[i].do.kind == actLocal
		}
	}
	out, err := next(p, in, i, w.pl.e)
	if err != nil {
		w.fatal("the machine: %v", err)
	}
	w.pl.in = in
	for i := range in.steps { // what is handled again for another reason, a cancel say, does so too
		w.steps[i].haunted = w.steps[i].haunted || w.pl.e.again && in.steps[i].doubt && w.pl.p.steps[i].do.kind == actLocal
	}
	c := called{i: i, words: words, fails: fails}
	n := int(in.moves - moves)
	if n > len(in.history) {
		w.fatal("%d transitions at once", n)
	}
	c.moves = in.history[len(in.history)-n:]
	for _, e := range out {
		switch e.kind {
		case effectSend:
			c.sends = append(c.sends, packet{request: true, op: e.op, sure: w.pl.p.steps[e.step].act(e.op.Undo).sendsOnly()})
		case effectLocal:
			c.locals = append(c.locals, e)
		case effectRefuse, effectExpire, effectStuck:
		case effectForget:
			if in.phase != Early {
				w.fatal("it is forgotten")
			}
			w.pl.in = &instance{id: in.id}
		}
		w.say("    %v %v %s", e.kind, e.op, e.refused)
	}
	w.say("  = %v %v", w.pl.in.phase, statuses(w.pl.in))
	return c
}

// judge takes down what an input tells of a step, before what came of it.
func (w *world) judge(i input, words string) {
	now, step := w.pl.e.now, w.pl.p.index(i.op.Step)
	if step < 0 || i.kind != inReply && i.kind != inEvent && i.kind != inLocal {
		return
	}
	s := &w.steps[step]
	s.haunted = s.haunted || i.kind == inLocal && w.pl.e.again && words != "ok"
	current := i.op.Attempt == s.lastDo || i.kind == inEvent
	switch {
	case i.op.Undo && words == "ok":
		s.undoAcked = true
	case i.op.Undo: // see move
	case words == "ok":
		s.ok = true
	case words == "unknown":
		s.doubt[i.op.Attempt] = true
	case current && !s.doubt[s.lastDo] && !s.no[s.lastDo]:
		s.no[s.lastDo] = true
		if !s.undoSent { // when the next attempt to undo may come has nothing to do with it
			s.free = now.Add(w.pl.p.steps[step].retry.Initial)
		}
	}
}

func (w *world) move(tr transition) {
	s, ps, now := &w.steps[tr.step], w.pl.p.steps[tr.step], w.pl.e.now
	attempt := int(tr.attempt)
	switch tr.what {
	case moveSent:
		switch {
		case s.undoSent:
			w.fatal("%s is done after its undo began", ps.name)
		case now.Before(s.free) && !s.retried:
			w.fatal("attempt %d at %s is early: %v before %v", attempt, ps.name, now, s.free)
		case attempt != s.lastDo+1:
			w.fatal("attempt %d at %s follows %d", attempt, ps.name, s.lastDo)
		case s.lastDo > 0 && !s.no[s.lastDo] && !s.doubt[s.lastDo] && !s.retried:
			w.fatal("attempt %d at %s, and the one before is out", attempt, ps.name)
		case !w.endless(tr.step) && attempt > ps.retry.Attempts && !s.retried && !s.held:
			w.fatal("attempt %d at %s, of %d", attempt, ps.name, ps.retry.Attempts)
		case !w.endless(tr.step) && s.inDoubt() && !ps.again() && !s.retried:
			w.fatal("%s is not idempotent and tried again in doubt", ps.name)
		}
		s.lastDo, s.sent[attempt] = attempt, now
		s.free = time.Time{}
	case moveDone:
		if !s.ok && !ps.do.sendsOnly() {
			w.fatal("%s is done, and nobody said so", ps.name)
		}
		s.done = true
	case moveTimedOut:
		if at := s.sent[attempt]; ps.do.kind != actLocal && now.Sub(at) < ps.timeout {
			w.fatal("attempt %d at %s timed out after %v", attempt, ps.name, now.Sub(at))
		}
		s.doubt[attempt] = true
		s.free = now.Add(ps.retry.Initial)
	case moveUndoing:
		w.undoing(tr.step, attempt)
	case moveUndone:
		if ps.undo.sendsOnly() {
			s.undoAcked = true
		}
	case moveUndoFailed:
		s.free = now.Add(ps.retry.Initial)
	default:
	}
}

// endsStage reports whether after a transition a stage is only to settle.
func (w *world) endsStage(tr transition) bool {
	ps := w.pl.p.steps[tr.step]
	switch tr.what {
	case moveRejected, moveGaveUp:
	case moveTimedOut:
		if ps.again() {
			return false
		}
	default:
		return false
	}
	return !w.endless(tr.step)
}

// cut is the end of all that is out: nobody knows what became of it.
func (w *world) cut() {
	for _, s := range w.steps {
		for a := range s.sent {
			s.doubt[a] = s.doubt[a] || !s.no[a]
		}
	}
}

// endless reports whether a step is tried for ever by its place.
func (w *world) endless(i int) bool {
	p := w.pl.p
	return p.pivot >= 0 && (p.steps[i].stage > p.steps[p.pivot].stage || i == p.pivot && !p.steps[i].undoes() && (w.steps[i].inDoubt() || w.steps[i].haunted))
}

func (w *world) undoing(i, attempt int) {
	s, p := &w.steps[i], w.pl.p
	mayBe := s.done || s.touched || s.retried || p.steps[i].do.kind == actLocal
	for a := range s.sent {
		mayBe = mayBe || !s.no[a]
	}
	switch {
	case !mayBe:
		w.fatal("%s is undone, and is known not to be done", p.steps[i].name)
	case p.pivot >= 0 && (p.steps[i].stage > p.steps[p.pivot].stage || w.steps[p.pivot].done):
		w.fatal("%s is undone after the pivot", p.steps[i].name)
	case attempt > 1 && w.pl.e.now.Before(s.free) && !s.retried:
		w.fatal("attempt %d to undo %s is early", attempt, p.steps[i].name)
	}
	for j, other := range w.steps {
		if p.steps[j].stage > p.steps[i].stage && other.undoSent && !other.undoAcked && !other.touched {
			w.fatal("%s is undone before %s is", p.steps[i].name, p.steps[j].name)
		}
	}
	s.undoSent, s.lastUndo = true, attempt
}

// chaos is one thing that may happen.
func (w *world) chaos() {
	d := w.d
	if w.again != nil {
		w.giveAgain()
		return
	}
	switch n := d.n(100); {
	case n < 55 && len(w.net) > 0:
		w.deliver(d.n(len(w.net)))
	case n < 60 && len(w.net) > 0: // double
		w.net = append(w.net, w.net[d.n(len(w.net))])
	case n < 66 && len(w.net) > 0: // lose
		if i := d.n(len(w.net)); !w.net[i].sure {
			w.say("lost: %v", w.take(i).op)
		}
	case n < 78:
		w.tick()
	case n < 84: // nothing is due, and nothing comes of it
		w.pl.e.now = w.pl.e.now.Add(time.Duration(d.n(3000)) * time.Millisecond)
		w.idle()
	case n < 88:
		i := d.n(len(w.shut))
		w.shut[i] = w.pl.e.now.Add(time.Duration(d.n(60)) * time.Second)
		w.steps[i].held = true
	case n < 90:
		w.give(packet{i: input{kind: inStart, payload: []byte(`{}`)}})
	case n < 96:
		w.operate()
	case n < 98:
		w.unasked()
	case n < 99 && !w.keeps():
		w.pl.in = w.pl.in.again()
		w.pl.in.quarantine(w.pl.e.now, "poison")
	}
}

// unasked is an event that nobody has asked for yet.
func (w *world) unasked() {
	i := w.d.n(len(w.parts))
	part, s, ps := &w.parts[i], &w.steps[i], w.pl.p.steps[i]
	if ps.do.kind != actEmit || part.refuses || part.undone {
		return
	}
	part.applied, s.unasked = true, true
	op := Op{Step: ps.name}
	w.net = append(w.net, packet{op: op, i: input{kind: inEvent, op: op, record: happening("o-1", ps.name+".ok")}, words: "ok"})
}

func (w *world) deliver(i int) {
	p := w.take(i)
	if p.request {
		w.serve(p)
		return
	}
	w.give(p)
}

// tick lets time go by until something is due.
func (w *world) tick() {
	if due := w.pl.in.due(); due > 0 {
		if at := time.UnixMilli(due).UTC(); at.After(w.pl.e.now) {
			w.pl.e.now = at.Add(time.Duration(w.d.n(2)*w.d.n(500)) * time.Millisecond)
		}
		w.give(packet{i: input{kind: inTick}})
	}
}

// idle gives a tick that nothing waits for.
func (w *world) idle() {
	if due := w.pl.in.due(); due > 0 && due <= w.pl.e.now.UnixMilli() || w.keeps() || w.pl.in.haunted {
		return
	}
	in := w.pl.in.again()
	out, err := next(w.pl.p, in, input{kind: inTick}, w.pl.e)
	if err != nil || len(out) > 0 || string(encodeInstance(in)) != string(encodeInstance(w.pl.in)) {
		w.fatal("a tick that is early changes something: %v %v", out, err)
	}
}

// keeps reports whether any input has more to it: what came without code.
func (w *world) keeps() bool {
	return w.pl.in.orphan() || w.pl.in.phase == Quarantined && len(w.pl.in.events) > 0 || slices.ContainsFunc(w.pl.in.events, func(w waiting) bool { return w.step != "" })
}

// operate is an operator who does as they please.
func (w *world) operate() {
	names := []VerbName{Cancel, Retry, Skip, Complete, Undo, Pause, Resume}
	name := names[w.d.n(len(names))]
	if w.d.percent(40) {
		name = Resume
	}
	w.verb(name, w.pl.p.names()[w.d.n(len(w.pl.p.steps))])
}

func (w *world) verb(name VerbName, step string) {
	w.verbs++
	if name == Undo && w.keeps() {
		return // what is kept comes first, and the world does not see that
	}
	w.say("operator: %s %s", name, step)
	in := w.pl.in.again()
	v := input{kind: inVerb, verb: verb{id: strconv.Itoa(w.verbs), name: name, step: step, actor: "ann"}}
	out, err := next(w.pl.p, in, v, w.pl.e)
	if err != nil {
		w.fatal("verb %s: %v", name, err)
	}
	refused := slices.ContainsFunc(out, func(e effect) bool { return e.kind == effectRefuse })
	if i := w.pl.p.index(step); !refused {
		s := &w.steps[i]
		switch name {
		case Retry:
			s.retried = true
		case Undo:
			w.cut()
		case Skip:
			s.touched = true
		case Complete: // it is done by hand
			n := len(in.history) - 1
			for in.history[n].what != moveVerb {
				n--
			}
			if in.history[n+1].what == moveUndone { // to undo it may come of what was kept
				w.parts[i].undone, s.undoAcked = true, true
			} else {
				w.parts[i].applied, s.ok = true, true
			}
		default:
		}
	}
	w.give(packet{i: v})
}

// settle is when all go right again: the saga must come to its end.
func (w *world) settle() {
	w.calm = true
	clear(w.shut)
	if w.again != nil {
		w.giveAgain()
	}
	for range 2000 {
		in := w.pl.in
		switch {
		case in.phase.Ended() && len(w.net) == 0:
			return
		case len(w.net) > 0:
			w.deliver(w.d.n(len(w.net)))
		case in.phase == 0 || in.phase == Early:
			w.give(packet{i: input{kind: inStart, payload: []byte(`{}`)}})
		case in.phase == Queued:
			w.give(packet{i: input{kind: inAdmit}})
		case in.paused || in.phase == Quarantined || in.orphan():
			w.verb(Resume, w.pl.p.steps[0].name)
		case in.phase == Parked:
			w.verb([]VerbName{Skip, Complete}[w.d.n(2)], w.pl.p.steps[in.whyStep].name)
		case in.due() > 0:
			w.tick()
		default: // an operator asks again for what was lost, and has no timeout
			w.fatal("it waits for nothing: %v", statuses(in))
		}
	}
	w.fatal("it does not end: %v", statuses(w.pl.in))
}

// verdict looks at what the participants have.
func (w *world) verdict() {
	for i, ps := range w.pl.p.steps {
		part, s := w.parts[i], w.steps[i]
		if s.touched || s.unasked && !s.done {
			continue
		}
		switch w.pl.in.phase {
		case Done:
			if part.undone {
				w.fatal("%s is undone, and the saga is done", ps.name)
			}
			if st := w.pl.in.steps[i].status; !part.applied && st != stepSkipped {
				w.fatal("%s is %v, and nobody has done it", ps.name, st)
			}
		case Undone:
			if part.applied && ps.undoes() && !part.undone {
				w.fatal("%s was done, and is not undone", ps.name)
			}
			if part.applied && i == w.pl.p.pivot && !ps.undoes() {
				w.fatal("the pivot %s was done, and the saga is undone", ps.name)
			}
		default:
			w.fatal("it ends %v", w.pl.in.phase)
		}
	}
}

func simulate(t testing.TB, d *dice) Phase {
	w := newWorld(t, d)
	w.net = append(w.net, packet{i: input{kind: inStart, payload: []byte(`{}`), queue: d.percent(10)}, sure: true})
	for range d.n(3) {
		w.unasked()
	}
	for range 20 + d.n(60) {
		w.chaos()
	}
	w.settle()
	w.verdict()
	return w.pl.in.phase
}

// Any order, loss and doubling of inputs, crashes, operators and gates: every
// run ends as it may, as the participants see it too.
func TestMachine_Simulation(t *testing.T) {
	t.Parallel()
	ends, seeds := map[Phase]int{}, 10_000
	if raced.On {
		seeds /= 10
	}
	for seed := range uint64(seeds) {
		ends[simulate(t, &dice{rng: rand.New(rand.NewPCG(seed, 1))})]++
		if t.Failed() {
			t.Fatal("seed ", seed)
		}
	}
	t.Log(ends)
	require.Greater(t, ends[Done], seeds/10)
	require.Greater(t, ends[Undone], seeds/10)
}

func FuzzMachine(f *testing.F) {
	for seed := range uint64(20) {
		b := make([]byte, 200)
		rng := rand.New(rand.NewPCG(seed, 2))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		simulate(t, &dice{b: b, rng: rand.New(rand.NewPCG(uint64(len(b)), 3))})
	})
}
