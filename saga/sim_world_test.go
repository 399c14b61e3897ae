package saga

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/retry"
)

// dice are bytes of the fuzzer, and when they are used up a generator.
type dice struct {
	b   []byte
	rng *rand.Rand
}

func (d *dice) n(n int) int {
	if len(d.b) > 0 {
		v := int(d.b[0])
		d.b = d.b[1:]
		return v % n
	}
	return d.rng.IntN(n)
}

// percent is true that often.
func (d *dice) percent(n int) bool { return d.n(100) < n }

// participant is who does and undoes one step: it answers every attempt of one
// key alike once it has done it or refused it, and refuses to do what was
// undone before (S30).
type participant struct {
	applied, undone, refuses bool
	answers                  map[Op]string // what it said to an attempt
}

// packet is on its way: a request to a participant, or an input of the saga.
type packet struct {
	request bool
	op      Op
	sure    bool // never lost: an emission without outcomes
	i       input
	words   string
}

// watched is what was seen of a step from outside, by which the machine is judged.
type watched struct {
	sent      map[int]time.Time // attempts to do it
	doubt     map[int]bool      // attempts that nobody answered in time, or that were cut
	no        map[int]bool      // attempts that were answered with no in time
	ok        bool              // a success came, or an operator said so
	done      bool              // and the machine took it so
	undoSent  bool
	undoAcked bool
	lastDo    int
	lastUndo  int
	free      time.Time // before this no further attempt may begin
	retried   bool      // an operator had it tried again
	touched   bool      // an operator passed it by: nothing is known of it
	unasked   bool      // it was done before anybody asked
	haunted   bool      // after a crash it did not succeed
	held      bool      // a gate was shut, so attempts do not count
}

func (s *watched) inDoubt() bool {
	for _, is := range s.doubt {
		if is {
			return true
		}
	}
	return false
}

// world is one saga with all that is around it, driven by dice.
type world struct {
	t     testing.TB
	d     *dice
	def   Definition[order]
	pl    *play
	net   []packet
	again *packet // what was read and not committed
	parts []participant
	steps []watched
	shut  []time.Time
	calm  bool
	log   []string
	verbs int
}

const simStart = 1_700_000_000_000

func newWorld(t testing.TB, d *dice) *world {
	w := &world{t: t, d: d, def: randomDefinition(d)}
	p, err := compile(w.def)
	if err != nil {
		w.fatal("the definition: %v", err)
	}
	w.pl = &play{t: t, p: p, in: &instance{id: "o-1"}, e: env{now: time.UnixMilli(simStart).UTC()}}
	w.parts, w.steps, w.shut = make([]participant, len(p.steps)), make([]watched, len(p.steps)), make([]time.Time, len(p.steps))
	for i := range p.steps {
		w.parts[i] = participant{refuses: d.percent(12), answers: map[Op]string{}}
		w.steps[i] = watched{sent: map[int]time.Time{}, doubt: map[int]bool{}, no: map[int]bool{}}
	}
	w.pl.e.gate = func(step int) time.Time { return w.shut[step] }
	return w
}

// randomDefinition has one to five stages, a pivot or none, and steps of all kinds.
func randomDefinition(d *dice) Definition[order] {
	def := Definition[order]{Name: "orders", StuckAfter: time.Minute}
	if d.percent(40) {
		def.Deadline = time.Duration(20+d.n(100)) * time.Second
	}
	stages := 1 + d.n(5)
	pivot := d.n(stages + 2)
	for n := range stages {
		name := fmt.Sprint("s", n)
		if n != pivot && d.percent(30) {
			g := Step[order]{Name: name}
			for m := range 2 + d.n(2) {
				g.Parallel = append(g.Parallel, randomStep(d, fmt.Sprint(name, "-", m), false, n > pivot))
			}
			def.Steps = append(def.Steps, g)
			continue
		}
		def.Steps = append(def.Steps, randomStep(d, name, n == pivot, n > pivot))
	}
	return def
}

func randomStep(d *dice, name string, pivot, after bool) Step[order] {
	s := Step[order]{
		Name: name, Pivot: pivot, Timeout: time.Duration(5+d.n(10)) * time.Second, Idempotent: after || d.percent(50),
		Retry: retry.Policy{Attempts: 1 + d.n(3), Initial: time.Duration(1+d.n(3)) * time.Second, Max: 20 * time.Second},
	}
	if d.percent(10) {
		s.When = func(o order) bool { return len(o.Items)%2 == 0 }
	}
	var undo Action[order]
	switch d.n(4) {
	case 0, 1:
		s.Do, undo = call(name+".do"), call(name+".undo")
	case 2:
		s.Do, undo = emit(name+".do", success(name+".ok"), failure(name+".no")), emit(name+".undo")
		if d.percent(50) {
			undo = emit(name+".undo", success(name+".undone"))
		}
	default:
		l := localStep(name)
		s.Do, undo, s.Durable = l.Do, l.Undo, d.percent(30)
	}
	switch {
	case after:
	case pivot && d.percent(60):
		s.Idempotent = true
	default:
		s.Undo = undo
	}
	return s
}

func (w *world) fatal(format string, args ...any) {
	w.t.Helper()
	for _, l := range w.log {
		w.t.Log(l)
	}
	w.t.Log(w.def.Shape())
	w.t.Log(timeline(w.pl.p.names(), w.pl.in))
	w.t.Fatalf(format, args...)
}

func (w *world) say(format string, args ...any) {
	if len(w.log) < 2000 {
		w.log = append(w.log, fmt.Sprintf("%v "+format, append([]any{w.pl.e.now.Sub(time.UnixMilli(simStart))}, args...)...))
	}
}

// take puts the ith packet into hand.
func (w *world) take(i int) packet {
	p := w.net[i]
	w.net = slices.Delete(w.net, i, i+1)
	return p
}

// serve has a participant handle a request.
func (w *world) serve(p packet) {
	i := w.pl.p.index(p.op.Step)
	said := w.handle(i, p.op, w.d.percent(20) && !w.calm)
	w.say("%s of %v: %s", w.pl.p.steps[i].act(p.op.Undo).topic, p.op, said)
	a := w.pl.p.steps[i].act(p.op.Undo)
	if a.sendsOnly() {
		return
	}
	if a.kind == actEmit {
		topic := map[string]string{"ok": p.op.Step + ".ok", "no": p.op.Step + ".no"}[said]
		if p.op.Undo && said == "ok" {
			topic = p.op.Step + ".undone"
		}
		if topic == "" || p.op.Undo && said == "no" {
			return // it says nothing at all
		}
		w.net = append(w.net, packet{op: p.op, i: input{kind: inEvent, op: p.op, record: happening("o-1", topic)}, words: said})
		return
	}
	fault := map[string]string{"ok": "", "no": `{"code":"no","message":"no"}`, "failed": `{"code":"failed","message":"down"}`}[said]
	w.net = append(w.net, packet{op: p.op, i: input{kind: inReply, op: p.op, record: answer("ok", fault)}, words: said})
}

// handle is what a participant says, and does.
func (w *world) handle(i int, op Op, fails bool) string {
	part := &w.parts[i]
	if said, ok := part.answers[op]; ok && (said != "ok" || !fails) {
		return said
	}
	said := "ok"
	switch {
	case op.Undo && fails && !w.pl.p.steps[i].undo.sendsOnly():
		said = "failed"
	case op.Undo:
		part.undone = true
	case part.undone:
		said = "no" // it comes too late
	case part.applied:
	case part.refuses:
		said = "no"
	case fails:
		said = "failed"
	default:
		part.applied = true
	}
	part.answers[op] = said
	return said
}

// runLocal does a local step; how it ends is an input.
func (w *world) runLocal(e effect) (i input, words string) {
	i = input{kind: inLocal, op: e.op, result: "ok"}
	if e.op.Undo {
		i.result = struct{}{}
	}
	words = w.handle(e.step, e.op, w.d.percent(20) && !w.calm)
	delete(w.parts[e.step].answers, e.op) // it may be run again
	switch {
	case words == "no":
		i.err = wherry.Permanent(errDown)
	case words == "failed":
		i.err = errDown
	case !w.calm && w.d.percent(8):
		i.err, words = fmt.Errorf("late: %w", ctxDeadline), "unknown"
	}
	return i, words
}
