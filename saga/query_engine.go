package saga

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/reqreply"
)

// signalled is the partition that a signal is said to come from: none.
const signalled = -1

// How Wait asks again: each waitFor, since the owner may be another one by then,
// and after a pause where nobody could have it wait.
const (
	waitFor   = 10 * time.Second
	waitPause = time.Second
)

// inspector is what asks for e, which never fails for want of one: Run says
// what is wrong with an Engine, and so does a call.
func (e *Engine[S]) inspector() *Inspector {
	s, err := e.shell()
	if err != nil {
		return &Inspector{faults: err}
	}
	return s.inspector
}

// Get returns a saga as it is now, or as it ended, up to Retention ago. It asks the
// saga's owner through its inbox, so a start that was acknowledged before is seen.
// It returns [ErrNotFound] if there is no such saga, an [*EndedError] if it has ended
// and its last record cannot be found, and [reqreply.ErrNoResponder], at once, if no
// Engine runs. Without a deadline in ctx it waits 30 s for an answer.
//
// If the state does not decode, or its version is not among Definitions, Get returns
// an Instance without State and an error.
func (e *Engine[S]) Get(ctx context.Context, id string) (Instance[S], error) {
	s, err := e.inspector().Get(ctx, id)
	if err != nil {
		return Instance[S]{Snapshot: s}, err
	}
	return e.instance(s)
}

// Wait waits until a saga has ended, and returns its state: with a nil error if it is
// Done, and with an [*AbortError] if it was undone. A saga that is parked,
// quarantined or paused has not ended: Wait goes on until ctx is done. It also goes
// on while no Engine runs, or the owner changes. Its other errors are those of
// [Engine.Get]; a saga that was not started yet, by [Engine.Start] or its event, is
// [ErrNotFound].
func (e *Engine[S]) Wait(ctx context.Context, id string) (state S, err error) {
	s, err := e.inspector().wait(ctx, id)
	if err != nil {
		return state, err
	}
	in, err := e.instance(s)
	if err == nil && s.Phase == Undone {
		err = &AbortError{Saga: s.Saga, ID: s.ID, Step: s.Step, Err: errors.New(s.Why)}
	}
	return in.State, err
}

// wait asks until the saga has ended.
func (i *Inspector) wait(ctx context.Context, id string) (Snapshot, error) {
	for {
		once, cancel := context.WithTimeout(ctx, waitFor)
		s, err := i.get(once, question{ID: id, Wait: true})
		cancel()
		pause := false
		switch {
		case err == nil && s.Phase != 0:
			return s, nil
		case ctx.Err() != nil:
			return s, fmt.Errorf("waiting for saga %s %q: %w", i.Name, id, context.Cause(ctx))
		case err == nil, errors.Is(err, reqreply.ErrNoResponder), errors.Is(err, reqreply.ErrBusy):
			pause = true
		case !errors.Is(err, context.DeadlineExceeded):
			return s, err
		}
		if !pause {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(waitPause/2 + rand.N(waitPause)): //nolint:gosec // so that not all ask at once
		}
	}
}

// Why returns what a saga waits for, as [Engine.Get] finds it: its String is one
// plain sentence.
func (e *Engine[S]) Why(ctx context.Context, id string) (Reason, error) {
	return e.inspector().Why(ctx, id)
}

// List ranges over the sagas that match a Filter, as [Inspector.List] does; a state
// that does not decode comes as an error with its Instance.
func (e *Engine[S]) List(ctx context.Context, f Filter) iter.Seq2[Instance[S], error] {
	return func(yield func(Instance[S], error) bool) {
		for s, err := range e.inspector().List(ctx, f) {
			in := Instance[S]{Snapshot: s}
			if err == nil {
				in, err = e.instance(s)
			}
			if !yield(in, err) {
				return
			}
		}
	}
}

// Count returns how many sagas there are, as [Inspector.Count] does.
func (e *Engine[S]) Count(ctx context.Context) (Counts, error) { return e.inspector().Count(ctx) }

// instance decodes the state.
func (e *Engine[S]) instance(s Snapshot) (Instance[S], error) {
	in := Instance[S]{Snapshot: s}
	sh, err := e.shell()
	if err != nil || s.Phase == Early {
		return in, err
	}
	p := sh.plans[s.Version]
	if p == nil {
		return in, fmt.Errorf("saga %s: %q is of version %d, which is none of Definitions", s.Saga, s.ID, s.Version)
	}
	state, err := p.decode(s.Raw)
	if err != nil {
		return in, fmt.Errorf("saga %s: %q: %w", s.Saga, s.ID, err)
	}
	in.State = *state.(*S)
	return in, nil
}

// Signal tells a saga about an event as if it had been read from event's topic: it
// starts the saga, or ends the step that awaits it, or waits for its time. No other
// consumer of the topic sees it. Signal returns nil when the event is in the saga's
// inbox, acknowledged; each call is an event of its own. If a Definition has a By for
// the topic, that must give id for v: otherwise it is an error. It works without Run,
// as [Engine.Start] does.
func Signal[S, T any](ctx context.Context, e *Engine[S], id string, event wherry.Event[T], v T) error {
	s, err := e.shell()
	if err == nil {
		err = checkID(id)
	}
	var to *routed
	if err == nil {
		if to = routes(s.plans)[event.Topic]; to == nil {
			err = fmt.Errorf("no Definition has a trigger or an outcome of topic %q", event.Topic)
		}
	}
	var r *kgo.Record
	if err == nil {
		r, err = event.Record(id, v)
	}
	if err == nil {
		// Unlike any event that was read, and any other signal: those of one place
		// are one event.
		r.Key, r.Partition, r.Offset = []byte(id), signalled, rand.Int64() //nolint:gosec // it guards nothing
		err = to.about(id, r)
	}
	if err == nil {
		err = s.signal(ctx, id, r)
	}
	if err != nil {
		return fmt.Errorf("signalling saga %q: %w", id, err)
	}
	return nil
}

func (s *shell) signal(ctx context.Context, id string, r *kgo.Record) error {
	n, err := s.partitions(ctx)
	if err != nil {
		return err
	}
	return s.tell(ctx, eventRecord(s.inbox, partitionOf(id, n), id, r))
}

// clients is what a shell has for those who ask.
func (s *shell) clients(caller *reqreply.Caller) (err error) {
	var known []Outline
	for _, p := range s.plans {
		known = append(known, p.outline())
	}
	s.inspector = &Inspector{Client: s.client, Name: s.name, Caller: caller, Topics: s.spec, Logger: s.log, known: known}
	s.desk, err = newDesk(s.name, known)
	return err
}

// publishOutlines writes the Outlines into the state topic. They are for people:
// where it fails that is logged.
func (s *shell) publishOutlines(ctx context.Context) {
	for _, o := range s.inspector.known {
		r, err := o.record()
		if err == nil {
			err = s.tell(ctx, r)
		}
		if err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "saga: the outline of the definition was not written, so the command shows no names of steps", "version", o.Version, "error", err)
		}
	}
}

// answer, answered and settled are what the owner tells clients.
func (s *shell) answer(ctx context.Context, r *kgo.Record, in *instance, ended *endedInfo) error {
	return s.desk.answer(ctx, r, in, ended)
}

func (s *shell) answered(ctx context.Context, r *kgo.Record, _ *instance, refused string) error {
	return s.desk.answerVerb(ctx, r, refused)
}

func (s *shell) settled(ctx context.Context, in *instance) error { return s.desk.settled(ctx, in) }

// unreadable is what becomes of an input for a saga whose record cannot be read, or
// not now: who asks is told, and it can be purged.
func (s *shell) unreadable(ctx context.Context, r *kgo.Record, m message, fault error) error {
	if e, ok := errors.AsType[*wherry.RecordError](fault); !ok || e.Cause != wherry.CauseUndecodable || m.kind != kindQuery && m.kind != kindVerb {
		return fault
	}
	if v, err := readVerb(r); m.kind == kindVerb && err == nil && v.name == Purge {
		if err := s.table.Delete(ctx, m.id); err != nil {
			return err
		}
		return s.desk.answerVerb(ctx, r, "")
	}
	return s.desk.unreadable(ctx, r, m.kind, fault)
}
