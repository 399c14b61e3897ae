package sagatest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/saga"
)

// A Saga is one saga under test, on its own clock. An expectation that does not hold
// ends the test at once, and the failure says what the saga waits for and all that
// has happened.
//
// Steps are given by name, and undoing a step by "undo " and its name. A Saga is for
// one goroutine.
type Saga[S any] struct {
	t testing.TB
	*player[S]
	offset int64                   // of the next event
	closed map[attempt]bool        // attempts that were answered, or lost (true)
	plans  map[string][]error      // of Local steps: what comes of the next attempts
	locals map[string]localFunc[S] // what is called instead
	// again is what came last, for Twice, and last what Crash takes back.
	again  *event[S]
	last   event[S]
	before moment[S]
	known  bool // the test knows of a quarantine
}

// attempt names one.
type attempt struct {
	step string
	undo bool
	n    int
}

func attemptOf(op saga.Op) attempt { return attempt{op.Step, op.Undo, op.Attempt} }

// event is something that happens, and its name.
type event[S any] struct {
	what string
	do   action[S]
}

// moment is what a crash falls back to.
type moment[S any] struct {
	m                 saga.Machine[S]
	sent, dead, stuck int
}

// New returns a saga of the given id that was not started yet: for what comes before
// its start, and to say what its Local steps do. A Definition with faults ends the
// test.
func New[S any](t testing.TB, d saga.Definition[S], id string) *Saga[S] {
	t.Helper()
	m, err := saga.NewMachine(d, id, epoch)
	if err != nil {
		t.Fatalf("sagatest: %v", err)
	}
	s := &Saga[S]{
		t: t, player: newPlayer(m, id, true), closed: map[attempt]bool{}, plans: map[string][]error{}, locals: map[string]localFunc[S]{},
	}
	s.m.Local = s.local
	t.Cleanup(func() {
		if snap := s.m.Snapshot(); snap.Phase == saga.Quarantined && !s.known && !t.Failed() {
			t.Errorf("%s", s.failure("the saga ended up quarantined, and the test did not ask for that with Is(saga.Quarantined)"))
		}
	})
	return s
}

// Start returns a saga that was started, as [saga.Engine.Start] does: New, and then
// [Saga.Start].
func Start[S any](t testing.TB, d saga.Definition[S], id string, state S) *Saga[S] {
	t.Helper()
	s := New(t, d, id)
	s.Start(state)
	return s
}

// Start starts the saga. A second start changes nothing, and ends the test if its
// state is a different one.
func (s *Saga[S]) Start(state S) {
	s.t.Helper()
	s.come("start"+value(state), func(m *saga.Machine[S]) (saga.Effects, error) { return m.Start(state) })
}

// Event delivers an event, under the saga's id as its key: it starts the saga, ends a
// step, or waits for its time. An event that is about another saga, or that the
// Definition does not know, ends the test.
func Event[S, T any](s *Saga[S], e wherry.Event[T], v T) {
	s.t.Helper()
	EventAt(s, e, s.id, v)
}

// EventAt is Event with another key, "" for none: for events whose By says which saga
// they are about.
func EventAt[S, T any](s *Saga[S], e wherry.Event[T], key string, v T) {
	s.t.Helper()
	r, err := e.Record(key, v)
	if err != nil {
		s.fail("%v", err)
	}
	s.Record(r)
}

// Record is Event for a record made by hand: one that does not decode, or has the
// headers of another language.
func (s *Saga[S]) Record(r *kgo.Record) {
	s.t.Helper()
	r.Offset, r.Timestamp = s.offset, s.m.Now
	s.offset++
	s.come(fmt.Sprintf("event %s %s", r.Topic, text(r.Value)), func(m *saga.Machine[S]) (saga.Effects, error) { return m.Event(r) })
}

// come has something come from outside.
func (s *Saga[S]) come(what string, do action[S]) {
	s.t.Helper()
	s.again = &event[S]{what, do}
	if err := s.happen(what, do); err != nil {
		s.fail("%s: %v", what, err)
	}
}

// happen has something happen, and what follows at once.
func (s *Saga[S]) happen(what string, do action[S]) error {
	for {
		s.before = moment[S]{s.m, len(s.sent), len(s.dead), len(s.stuck)}
		s.last = event[S]{what, do}
		out, err := s.play(what, do)
		if err != nil || !out.GoOn {
			return err
		}
		s.m.Again = false
		what, do = "go on", (*saga.Machine[S]).GoOn
	}
}

// Crash lets the process die before what it did last was committed, and another one
// do it again: Local steps are called once more, under the same [saga.Op], and one
// that fails then is undone, since it may have been done before. Nobody has seen what
// was sent meanwhile, since it was part of the transaction.
//
// What is done again is the last record of the inbox: what the test did last, or,
// where Local steps waited for a commit, the part that came after it.
func (s *Saga[S]) Crash() {
	s.t.Helper()
	if s.last.do == nil {
		s.fail("a Crash before anything has happened")
	}
	now := s.m.Now
	s.m = s.before.m
	s.m.Now = now
	s.sent, s.dead, s.stuck = s.sent[:s.before.sent], s.dead[:s.before.dead], s.stuck[:s.before.stuck]
	s.say("crash: what came last was not committed")
	s.m.Again = true
	err := s.happen(strings.TrimSuffix(s.last.what, again)+again, s.last.do)
	s.m.Again = false
	if err != nil {
		s.fail("%s, after a crash: %v", s.last.what, err)
	}
}

// again is behind what happens once more after a crash.
const again = " (again)"

// Twice delivers what came last (a start, a reply, an event) once more, as the same
// record.
func (s *Saga[S]) Twice() {
	s.t.Helper()
	if s.again == nil {
		s.fail("Twice before anything has come")
	}
	s.come(strings.TrimSuffix(s.again.what, " (twice)")+" (twice)", s.again.do)
}

// Local makes a Local step do something else than the Definition says; R is the type
// that its apply takes.
func Local[S, R any](s *Saga[S], step string, do func(ctx context.Context, s S) (R, error)) {
	s.t.Helper()
	s.localStep(step)
	s.locals[step] = func(ctx context.Context, _ saga.Op, state S, _ func() (any, error)) (any, error) {
		return do(ctx, state)
	}
}

// FailLocal ends the next attempts at a Local step with these errors, one after the
// other, without calling its function; a nil calls it. An error that is permanent
// (see [wherry.Permanent]) is a rejection, [context.DeadlineExceeded] an unknown
// outcome.
func (s *Saga[S]) FailLocal(step string, errs ...error) {
	s.t.Helper()
	s.localStep(step)
	s.plans[step] = append(s.plans[step], errs...)
}

// Calls returns the attempts that were made at a Local step, also those that were
// not committed.
func (s *Saga[S]) Calls(step string) (all []saga.Op) {
	s.t.Helper()
	s.localStep(step)
	for _, op := range s.calls {
		if label(op) == step {
			all = append(all, op)
		}
	}
	return all
}

// local is made in place of Local steps.
func (s *Saga[S]) local(ctx context.Context, op saga.Op, state S, call func() (any, error)) (any, error) {
	s.called(op)
	step := label(op)
	s.mu.Lock()
	do := s.locals[step]
	var planned error
	if plan := s.plans[step]; len(plan) > 0 {
		planned, s.plans[step] = plan[0], plan[1:]
	}
	s.mu.Unlock()
	switch {
	case planned != nil:
		return nil, planned
	case do != nil:
		return do(ctx, op, state, call)
	}
	return call()
}

// localStep ends the test where a step is not Local.
func (s *Saga[S]) localStep(text string) {
	s.t.Helper()
	step, undo := s.step(text)
	for _, o := range s.m.Outline().Steps {
		does := o.Do
		if undo {
			does = o.Undo
		}
		if o.Name == step && does != "local" {
			s.fail("%q is no Local step: %s", text, orNothing(does))
		}
	}
}

func orNothing(does string) string {
	if does == "" {
		return "there is nothing to do"
	}
	return "it does " + does
}

func (s *Saga[S]) step(text string) (step string, undo bool) {
	s.t.Helper()
	step, undo, err := s.parse(text)
	if err != nil {
		s.fail("%v", err)
	}
	return step, undo
}

// fail ends the test.
func (s *Saga[S]) fail(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s", s.failure(fmt.Sprintf(format, args...)))
}

// failure is what a test is told: what is wrong, where the saga is, and how it
// came there.
func (s *Saga[S]) failure(what string) string {
	return fmt.Sprintf("sagatest: %s\n\n%s\n\n%s", what, s.Why(), s.transcript())
}
