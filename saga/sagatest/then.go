package sagatest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/saga"
)

// Asked ends the test unless the saga waits for the outcomes of exactly these steps:
// they were sent, and are not settled. Local steps are not among them.
func (s *Saga[S]) Asked(steps ...string) {
	s.t.Helper()
	for _, step := range steps {
		s.step(step)
	}
	var out []string
	for _, a := range s.m.Awaited() {
		out = append(out, label(a.Op))
	}
	want := slices.Sorted(slices.Values(steps))
	if slices.Sort(out); !slices.Equal(out, want) {
		s.fail("want asked: %s\nbut asked: %s", list(want), list(out))
	}
}

// Request returns what was sent last for a step, a request or an event, as the type
// that its Method or Event has.
//
//	req := sagatest.Request[ReserveReq](s, "reserve")
func Request[T, S any](s *Saga[S], step string) T {
	s.t.Helper()
	name, undo := s.step(step)
	for _, sent := range slices.Backward(s.sent) {
		if sent.Op.Step != name || sent.Op.Undo != undo {
			continue
		}
		v, ok := sent.Value.(T)
		if !ok {
			s.fail("%s sends a %T, and the test wants a %T", step, sent.Value, v)
		}
		return v
	}
	s.fail("nothing was sent for %s", step)
	panic("unreachable")
}

// Emitted returns the events of a topic that were sent, in order.
func Emitted[S, T any](s *Saga[S], e wherry.Event[T]) (all []T) {
	s.t.Helper()
	for _, sent := range s.sent {
		if sent.Record.Topic != e.Topic {
			continue
		}
		v, err := e.Decode(sent.Record)
		if err != nil {
			s.fail("%v", err)
		}
		all = append(all, v)
	}
	return all
}

// Sent returns all that was sent, in order.
func (s *Saga[S]) Sent() []saga.Sent { return slices.Clone(s.sent) }

// Expired returns the topics of the events that became dead letters, because they
// have waited for too long.
func (s *Saga[S]) Expired() (topics []string) {
	for _, l := range s.dead {
		topics = append(topics, l.topic)
	}
	return topics
}

// Stuck ends the test unless operators were told that a step is stuck.
func (s *Saga[S]) Stuck(step string) {
	s.t.Helper()
	name, _ := s.step(step)
	if !slices.Contains(s.stuck, name) {
		s.fail("nobody was told that %s is stuck: it is after the Definition's StuckAfter", step)
	}
}

// Done ends the test unless the saga has ended well.
func (s *Saga[S]) Done() {
	s.t.Helper()
	s.Is(saga.Done)
}

// Undone ends the test unless the saga has ended with everything undone; because, if
// given, is the step that was the reason.
func (s *Saga[S]) Undone(because ...string) {
	s.t.Helper()
	s.Is(saga.Undone)
	s.because(because)
}

// Parked ends the test unless the saga waits for an operator; because, if given, is
// the step that is the reason.
func (s *Saga[S]) Parked(because ...string) {
	s.t.Helper()
	s.Is(saga.Parked)
	s.because(because)
}

func (s *Saga[S]) because(steps []string) {
	s.t.Helper()
	for _, step := range steps {
		s.step(step)
		if got := s.m.Snapshot().Step; got != step {
			s.fail("want %s because of step %q\nbut it is because of %q", s.Phase(), step, got)
		}
	}
}

// Is ends the test unless the saga is in a phase.
func (s *Saga[S]) Is(want saga.Phase) {
	s.t.Helper()
	s.known = s.known || want == saga.Quarantined
	if got := s.Phase(); got != want {
		s.fail("want the saga to be %v\nbut it is %v", phase(want), phase(got))
	}
}

// phase is its name, also of 0.
func phase(p saga.Phase) string {
	if p == 0 {
		return "not started"
	}
	return p.String()
}

// Phase is the saga's phase, 0 before it was started and after it was purged.
func (s *Saga[S]) Phase() saga.Phase { return s.m.Snapshot().Phase }

// State is the saga's state, as its Codec reads it back.
func (s *Saga[S]) State() S {
	s.t.Helper()
	state, err := s.m.State()
	if err != nil {
		s.fail("its state: %v", err)
	}
	return state
}

// Snapshot is all that is known of the saga, with its history.
func (s *Saga[S]) Snapshot() saga.Snapshot { return s.m.Snapshot() }

// Elapsed is how much time has gone by since the test began.
func (s *Saga[S]) Elapsed() time.Duration { return s.m.Now.Sub(epoch) }

// Why says what the saga waits for, in a sentence.
func (s *Saga[S]) Why() string {
	snap := s.m.Snapshot()
	if snap.Phase == 0 {
		return fmt.Sprintf("%q was not started.", s.id)
	}
	return snap.Reason().String()
}

// Transcript is all that has happened so far.
func (s *Saga[S]) Transcript() string { return s.transcript() }

func list(steps []string) string {
	if len(steps) == 0 {
		return "nothing"
	}
	return strings.Join(steps, ", ")
}

// topics are those of the events that end an attempt.
func topics(a saga.Awaited) string {
	var all []string
	for _, e := range a.Events {
		all = append(all, e.Topic)
	}
	return strings.Join(all, ", ")
}
