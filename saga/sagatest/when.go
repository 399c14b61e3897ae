package sagatest

import (
	"fmt"
	"time"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/saga"
)

// Reply answers the attempt that is out at a [saga.Call]: v is of the type that its
// Method is answered with, nil for the zero value.
func (s *Saga[S]) Reply(step string, v any) {
	s.t.Helper()
	a := s.open(step)
	s.answer(a.Op, "reply "+step+value(v), v)
}

// Refuse answers the attempt that is out at a Call with a rejection: an
// [*reqreply.Error] with this code and message. See [saga.Called.Rejected] for the
// codes that are no rejections.
func (s *Saga[S]) Refuse(step, code, message string) {
	s.t.Helper()
	s.Fault(step, &reqreply.Error{Code: code, Message: message})
}

// Fail answers the attempt that is out at a Call as a participant does that gives up:
// with a failure, after which the step is tried again.
func (s *Saga[S]) Fail(step, message string) {
	s.t.Helper()
	s.Fault(step, &reqreply.Error{Code: string(wherry.CauseFailed), Message: message})
}

// Fault answers the attempt that is out at a Call with any error.
func (s *Saga[S]) Fault(step string, e *reqreply.Error) {
	s.t.Helper()
	a := s.open(step)
	s.answer(a.Op, fmt.Sprintf("refuse %s: %v", step, e), e)
}

// Lose loses the request, or the answer, of the attempt that is out at a step: nothing
// comes of it, until [Saga.Late]. Time does not go on by itself, see [Saga.Next]. If
// the saga would wait for ever, Lose ends the test.
func (s *Saga[S]) Lose(step string) {
	s.t.Helper()
	a := s.out(step)
	if _, ok := s.next(); !ok {
		s.fail("%s: nothing ends the wait if its answer is lost: give the step a Timeout, or the Definition a Deadline", step)
	}
	s.closed[attemptOf(a.Op)] = true
	s.say("lose " + step)
}

// Late delivers the answer to a Call that [Saga.Lose] lost, or that timed out: v is as
// for [Saga.Reply], or a [*reqreply.Error]. It answers the earliest attempt that was
// not answered.
func (s *Saga[S]) Late(step string, v any) {
	s.t.Helper()
	name, undo := s.step(step)
	for _, sent := range s.sent {
		op := sent.Op
		if op.Step != name || op.Undo != undo {
			continue
		}
		lost, answered := s.closed[attemptOf(op)]
		a, out := s.awaited(name, undo)
		if lost || !answered && (!out || attemptOf(a.Op) != attemptOf(op)) {
			s.answer(op, fmt.Sprintf("reply %s, late (attempt %d)%s", step, op.Attempt, value(v)), v)
			return
		}
	}
	s.fail("no answer of %s is late: each attempt was answered, or is waited for", step)
}

// answer has a reply come.
func (s *Saga[S]) answer(op saga.Op, what string, v any) {
	s.t.Helper()
	s.closed[attemptOf(op)] = false
	s.come(what, func(m *saga.Machine[S]) (saga.Effects, error) { return m.Reply(op, v) })
}

// out returns the attempt that is out at a step.
func (s *Saga[S]) out(step string) saga.Awaited {
	s.t.Helper()
	name, undo := s.step(step)
	a, ok := s.awaited(name, undo)
	if !ok {
		s.fail("no outcome of %s is waited for", step)
	}
	return a
}

// open is out, of a Call that was not lost.
func (s *Saga[S]) open(step string) saga.Awaited {
	s.t.Helper()
	a := s.out(step)
	switch {
	case !a.Call:
		s.fail("%s gets no reply: events end it, of %s", step, topics(a))
	case s.closed[attemptOf(a.Op)]:
		s.fail("%s: the answer to attempt %d was lost: it may come Late, or the attempt may time out with Next", step, a.Op.Attempt)
	}
	return a
}

// Advance lets time go by. What is due happens when it is due, in order, and not
// earlier: timeouts, further attempts, the deadline, the end of events that wait.
func (s *Saga[S]) Advance(d time.Duration) {
	s.t.Helper()
	end := s.m.Now.Add(d)
	for {
		at, ok := s.next()
		if !ok || at.After(end) {
			s.m.Now = end
			return
		}
		s.due(at)
	}
}

// Next lets time go by until something is due, which then happens. If nothing will
// ever be due, it ends the test.
func (s *Saga[S]) Next() {
	s.t.Helper()
	at, ok := s.next()
	if !ok {
		s.fail("nothing is due, however long one waits")
	}
	s.due(at)
}

func (s *Saga[S]) due(at time.Time) {
	s.t.Helper()
	was := s.m.Snapshot()
	s.m.Now = at
	if err := s.happen("time", (*saga.Machine[S]).Tick); err != nil {
		s.fail("at %v: %v", clock(at.Sub(epoch)), err)
	}
	if now := s.m.Snapshot(); now.Moves == was.Moves && now.Next.Equal(was.Next) && len(now.Early) == len(was.Early) {
		s.fail("what was due at %v did not happen: please report this", clock(at.Sub(epoch)))
	}
}

// Cancel is [saga.Cancel], with a reason.
func (s *Saga[S]) Cancel(reason string) {
	s.t.Helper()
	s.Do(saga.Cancel, saga.By{Reason: reason})
}

// Do applies a verb, as an operator does; by may be the zero By. It ends the test if
// the verb is refused.
func (s *Saga[S]) Do(verb saga.VerbName, by saga.By) {
	s.t.Helper()
	if err := s.Try(verb, by); err != nil {
		s.fail("%v", err)
	}
}

// Try is Do, but returns a [*saga.VerbError] if the verb is refused.
func (s *Saga[S]) Try(verb saga.VerbName, by saga.By) error {
	s.t.Helper()
	if by.Actor == "" {
		by.Actor = "the test"
	}
	if by.Reason == "" {
		by.Reason = "it says so"
	}
	what := string(verb)
	if by.Step != "" {
		what += " " + by.Step
	}
	return s.happen(what, func(m *saga.Machine[S]) (saga.Effects, error) { return m.Do(verb, by) })
}
