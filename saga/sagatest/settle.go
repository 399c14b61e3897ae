package sagatest

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/saga"
)

// settle gives an attempt that is out its outcome.
func (r *run[S]) settle(a saga.Awaited) error {
	if a.Call {
		return r.settleCall(a)
	}
	return r.settleEvents(a)
}

func (r *run[S]) settleCall(a saga.Awaited) error {
	op, name := a.Op, label(a.Op)
	reply := func(v any) action[S] {
		return func(m *saga.Machine[S]) (saga.Effects, error) { return m.Reply(op, v) }
	}
	v := r.x.w.Replies[name]
	o := r.choose(op, r.options(op, OK, Refused, Failed, Lost, Late, Twice))
	r.books.settled(op, o)
	switch o {
	case Refused:
		return r.happen("refuse "+name, reply(errRefused))
	case Failed:
		return r.happen("fail "+name, reply(errFailed))
	case Late:
		r.late = append(r.late, late[S]{op, "reply " + name + ", late", reply(v)})
		fallthrough
	case Lost:
		r.lose(op)
		return nil
	case Twice:
		return r.twice("reply "+name, reply(v))
	default:
		return r.happen("reply "+name, reply(v))
	}
}

func (r *run[S]) lose(op saga.Op) {
	r.lost[attemptOf(op)] = true
	r.say("lose " + label(op))
}

// settleEvents ends an attempt with one of the events that it awaits.
func (r *run[S]) settleEvents(a saga.Awaited) error {
	op, name := a.Op, label(a.Op)
	var good, bad []saga.AwaitedEvent
	for _, e := range a.Events {
		if e.Failure {
			bad = append(bad, e)
		} else {
			good = append(good, e)
		}
	}
	of := []Outcome{OK, Refused, Lost, Late, Twice}
	if len(bad) == 0 {
		of = []Outcome{OK, Lost, Late, Twice}
	}
	o := r.choose(op, r.options(op, of...))
	from := good
	if o == Refused {
		from = bad
	}
	if o == Lost {
		r.books.settled(op, o)
		r.lose(op)
		return nil
	}
	e := from[r.c.pick(len(from))]
	rec, hint, err := r.event(e)
	if err != nil {
		return fmt.Errorf("step %q: %w%s", name, err, hint)
	}
	r.books.settled(op, o)
	what := fmt.Sprintf("event %s %s", e.Topic, text(rec.Value))
	come := func(m *saga.Machine[S]) (saga.Effects, error) {
		out, err := m.Event(rec)
		if err != nil {
			err = fmt.Errorf("step %q: %w%s", name, err, hint)
		}
		return out, err
	}
	switch o {
	case Late:
		r.late = append(r.late, late[S]{op, what + ", late", come})
		r.lose(op)
		return nil
	case Twice:
		return r.twice(what, come)
	default:
		return r.happen(what, come)
	}
}

// twice has the same record come twice; the second one must change nothing.
func (r *run[S]) twice(what string, do action[S]) error {
	if err := r.happen(what, do); err != nil {
		return err
	}
	was := r.m.Snapshot()
	if err := r.happen(what+" (twice)", do); err != nil {
		return err
	}
	is := r.m.Snapshot()
	for i := was.Moves; i < is.Moves; i++ {
		if t := is.History[len(is.History)-int(is.Moves-i)]; t.What != "ignored" { //nolint:gosec // a few
			return fmt.Errorf("%s, which came twice, did something the second time: %s", what, happened(t))
		}
	}
	if string(was.Raw) != string(is.Raw) {
		return fmt.Errorf("%s, which came twice, changed the state the second time", what)
	}
	return nil
}

// event makes an event of the World; hint is what to do if it does not fit.
func (r *run[S]) event(e saga.AwaitedEvent) (rec *kgo.Record, hint string, err error) {
	of, hint := e.Zero, "; World.Events has no Sample of "+e.Topic
	for _, s := range r.x.w.Events {
		if s.topic == e.Topic {
			of, hint = s.record, ""
		}
	}
	if rec, err = of(r.id); err != nil {
		return nil, hint, err
	}
	rec.Offset, rec.Timestamp = r.offset, r.m.Now
	r.offset++
	return rec, hint, nil
}
