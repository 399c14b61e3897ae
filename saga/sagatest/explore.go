package sagatest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/saga"
)

// explorer runs a saga again and again, each time with other choices.
type explorer[S any] struct {
	m     saga.Machine[S] // not started; each run has a copy
	start S
	w     World[S]
	runs  int
	left  bool // there were more combinations
	ends  map[string]int
}

// chooser makes the choices of one run: the first ones are given, the others are
// the first option, or random.
type chooser struct {
	faults int // how many may be chosen yet
	picks  []int
	among  []int // how many options each choice had
	random *rand.Rand
	chosen []string // what was not as usual, for people
}

// pick chooses among n options, of which the first is the usual one.
func (c *chooser) pick(n int) int {
	i := len(c.among)
	c.among = append(c.among, n)
	switch {
	case c.random != nil:
		if n > 1 && c.random.IntN(3) == 0 {
			return c.random.IntN(n)
		}
		return 0
	case i < len(c.picks):
		return c.picks[i]
	}
	c.picks = append(c.picks, 0)
	return 0
}

// next makes the choices of the next run, in order.
func (c *chooser) next() (picks []int, ok bool) {
	for i := len(c.picks) - 1; i >= 0; i-- {
		if c.picks[i]+1 < c.among[i] {
			return append(slices.Clone(c.picks[:i]), c.picks[i]+1), true
		}
	}
	return nil, false
}

// explore makes every run of up to so many faults, those with fewer first.
func (x *explorer[S]) explore(faults, most int) (failure error) {
	for allowed := range faults + 1 {
		var picks []int
		for ok := true; ok; {
			if x.runs >= most {
				x.left = true
				return nil
			}
			c := &chooser{faults: allowed, picks: picks}
			if err := x.one(c, allowed == faults); err != nil {
				return x.explain(&chooser{faults: allowed, picks: c.picks}, err)
			}
			picks, ok = c.next()
		}
		if allowed < faults {
			x.runs = 0 // they come again
		}
	}
	return nil
}

// maxFaults is how many there are in a run at random.
const maxFaults = 12

func (x *explorer[S]) random(seeds int) (failure error) {
	for seed := range seeds {
		c := func() *chooser {
			return &chooser{faults: maxFaults, random: rand.New(rand.NewPCG(uint64(seed), 0))} //nolint:gosec // it is to be the same each time
		}
		if err := x.one(c(), true); err != nil {
			return x.explain(c(), err)
		}
	}
	return nil
}

// one makes one run.
func (x *explorer[S]) one(c *chooser, counts bool) error {
	x.runs++
	r, err := x.run(c, false)
	if err == nil && counts {
		x.ends[r.m.Snapshot().Phase.String()]++
	}
	return err
}

// explain makes a run that failed once more, and tells it.
func (x *explorer[S]) explain(c *chooser, fault error) error {
	r, again := x.run(c, true)
	if again == nil || again.Error() != fault.Error() {
		fault = fmt.Errorf("%w\n(in a second run it did not come again: the Definition's functions are not pure, or share something)", fault)
	}
	what := "when all goes well"
	if len(c.chosen) > 0 {
		what = "with " + strings.Join(c.chosen, ", then ")
	}
	return fmt.Errorf("%w\n%s\n\n%s", fault, what, r.transcript())
}

// check finds what a World has that the Definition does not.
func (x *explorer[S]) check() error {
	p := newPlayer(x.m, x.w.ID, false)
	var faults []error
	look := func(step string) {
		if _, _, err := p.parse(step); err != nil {
			faults = append(faults, err)
		}
	}
	for step := range x.w.Replies {
		look(step)
	}
	for step := range x.w.Results {
		look(step)
	}
	for step := range x.w.Never {
		look(step)
	}
	return errors.Join(faults...)
}

// run is one life of the saga.
type run[S any] struct {
	*player[S]
	x      *explorer[S]
	c      *chooser
	offset int64
	lost   map[attempt]bool
	late   []late[S] // to come when their attempt is over
	books  books
	locals error // what cannot be answered
}

// late is what comes of an attempt when it is over.
type late[S any] struct {
	op   saga.Op
	what string
	do   action[S]
}

// maxSteps bounds the inputs of a run: what takes more does not end.
const maxSteps = 2000

func (x *explorer[S]) run(c *chooser, write bool) (*run[S], error) {
	r := &run[S]{player: newPlayer(x.m, x.w.ID, write), x: x, c: c, lost: map[attempt]bool{}, books: newBooks(x.m.Outline())}
	r.m.Local = r.local
	err := r.happen("start"+value(x.start), func(m *saga.Machine[S]) (saga.Effects, error) { return m.Start(x.start) })
	for n := 0; err == nil && !r.over(); n++ {
		if n == maxSteps {
			return r, fmt.Errorf("after %d inputs the saga has not ended", n)
		}
		err = r.step()
	}
	for len(r.late) > 0 && err == nil {
		err = r.deliver(0)
	}
	if err == nil {
		err = r.end()
	}
	return r, err
}

func (r *run[S]) over() bool {
	p := r.m.Snapshot().Phase
	return p.Ended() || p == saga.Parked
}

// step has the next thing happen.
func (r *run[S]) step() error {
	awaited := r.m.Awaited()
	for i, l := range r.late {
		if !slices.ContainsFunc(awaited, func(a saga.Awaited) bool { return attemptOf(a.Op) == attemptOf(l.op) }) {
			return r.deliver(i)
		}
	}
	open := slices.DeleteFunc(awaited, func(a saga.Awaited) bool { return r.lost[attemptOf(a.Op)] })
	if len(open) > 0 {
		return r.settle(open[r.c.pick(len(open))])
	}
	at, ok := r.next()
	if !ok {
		return fmt.Errorf("the saga waits for ever: give the step a Timeout, or the Definition a Deadline, or say in World.Never that it is never Lost\n%s", r.m.Snapshot().Reason())
	}
	r.m.Now = at
	return r.happen("time", (*saga.Machine[S]).Tick)
}

func (r *run[S]) deliver(i int) error {
	l := r.late[i]
	r.late = slices.Delete(r.late, i, i+1)
	r.books.settled(l.op, OK)
	return r.happen(l.what, l.do)
}

// happen has something happen, and what follows, and looks at it.
func (r *run[S]) happen(what string, do action[S]) error {
	for {
		out, err := r.once(what, do)
		if err != nil {
			return err
		}
		for _, sent := range out.Sent {
			if err := r.books.asked(sent.Op); err != nil {
				return err
			}
			if !slices.ContainsFunc(r.m.Awaited(), func(a saga.Awaited) bool { return attemptOf(a.Op) == attemptOf(sent.Op) }) {
				r.books.settled(sent.Op, OK) // it is only sent
			}
		}
		snap := r.m.Snapshot()
		if snap.Phase == saga.Quarantined {
			return fmt.Errorf("the saga is quarantined: %s", snap.Why)
		}
		if err := r.always(); err != nil {
			return err
		}
		if !out.GoOn {
			return nil
		}
		what, do = "go on", (*saga.Machine[S]).GoOn
	}
}

// once is play; where Local steps are made, the process may die before that is
// committed, and all is done again.
func (r *run[S]) once(what string, do action[S]) (saga.Effects, error) {
	m, sent, calls, steps := r.m, len(r.sent), len(r.calls), slices.Clone(r.books.steps)
	out, err := r.play(what, do)
	if err = cmp.Or(err, r.locals); err != nil || len(r.calls) == calls || r.c.faults == 0 || r.c.pick(2) == 0 {
		return out, err
	}
	r.c.faults--
	r.c.chosen = append(r.c.chosen, "a crash after "+label(r.calls[len(r.calls)-1]))
	r.say("crash: what came last was not committed")
	r.m, r.sent = m, r.sent[:sent]
	r.books.crash(steps)
	r.m.Again = true
	out, err = r.play(what+again, do)
	r.m.Again = false
	return out, cmp.Or(err, r.locals)
}

func (r *run[S]) always() error {
	if r.x.w.Always == nil {
		return nil
	}
	s, err := r.m.State()
	if err == nil {
		err = r.x.w.Always(s)
	}
	if err != nil {
		return fmt.Errorf("World.Always: %w", err)
	}
	return nil
}

// end looks at how it ended.
func (r *run[S]) end() error {
	snap := r.m.Snapshot()
	if err := r.books.end(snap); err != nil {
		return err
	}
	if r.x.w.Ends == nil {
		return nil
	}
	s, err := r.m.State()
	if err == nil {
		err = r.x.w.Ends(End[S]{Phase: snap.Phase, State: s, Done: r.books.standing()})
	}
	if err != nil {
		return fmt.Errorf("World.Ends, of a saga that is %v: %w", snap.Phase, err)
	}
	return nil
}

// options are the outcomes that an attempt may have now, the usual one first.
func (r *run[S]) options(op saga.Op, of ...Outcome) []Outcome {
	never := r.x.w.Never[label(op)]
	of = slices.DeleteFunc(of, func(o Outcome) bool { return slices.Contains(never, o) })
	if r.c.faults == 0 && len(of) > 1 {
		of = of[:1]
	}
	return of
}

// choose chooses one of them.
func (r *run[S]) choose(op saga.Op, of []Outcome) Outcome {
	if len(of) == 0 {
		return OK
	}
	o := of[r.c.pick(len(of))]
	if o != of[0] {
		r.c.faults--
		r.c.chosen = append(r.c.chosen, fmt.Sprintf("%s %s", label(op), o))
	}
	return o
}

var (
	errRefused = &reqreply.Error{Code: "refused", Message: "the world says no"}
	errFailed  = &reqreply.Error{Code: string(wherry.CauseFailed), Message: "the world is down"}
)

// local is what the World has Local steps do.
func (r *run[S]) local(_ context.Context, op saga.Op, _ S, _ func() (any, error)) (any, error) {
	r.called(op)
	if err := r.books.asked(op); err != nil {
		r.locals = err
	}
	of := []Outcome{OK, Refused, Failed, Lost}
	if op.Undo {
		of = []Outcome{OK, Failed, Lost}
	}
	o := r.choose(op, r.options(op, of...))
	r.books.settled(op, o)
	switch o {
	case Refused:
		return nil, wherry.Permanent(errors.New("the world says no"))
	case Failed:
		return nil, errors.New("the world is down")
	case Lost:
		return nil, context.DeadlineExceeded
	default:
		return r.x.w.Results[label(op)], nil
	}
}
