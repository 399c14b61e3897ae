package saga

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	hdr "github.com/wherry-go/wherry/internal/header"
)

// A Machine is one saga, run by hand: what an [Engine] decides, without Kafka, and
// without a clock. Whoever has it says what happens and when, and gets what the
// Engine would have sent. Package sagatest is made of it; tests are written with
// that.
//
// Each call of Start, Event, Reply, Tick, GoOn and Do is one record of an
// Engine's inbox, and goes the way that it goes there: the attempts at Local
// steps that it leads to are made in it, one after the other. Between two calls
// the saga is nothing but the bytes of its record in the state topic.
//
// A Machine is a value: a copy of it goes its own way. It is not safe for
// concurrent use.
type Machine[S any] struct {
	// Now is the time of what happens next. It must not go back.
	Now time.Time
	// Local makes an attempt at a Local step in place of what the Definition says,
	// which call does. What it returns must be of the type that the step's apply
	// takes. nil means call.
	Local func(ctx context.Context, op Op, s S, call func() (any, error)) (any, error)
	// Again says that what happens may have happened before, to a process that
	// died before it was committed: a Local step that fails now may have been done
	// then, and is undone.
	Again bool
	// EventTTL is that of [Engine]. 0 means 1 h.
	EventTTL time.Duration

	id      string
	shell   *shell
	outline *Outline
	record  []byte // what the state topic has of it; nil for nothing
	offset  int64  // of the next record of the inbox
}

// Effects are what one call of a [Machine] brought about, in the order in which it
// did, besides the saga's new state: what an Engine would have committed with it.
type Effects struct {
	// Sent are requests and events.
	Sent []Sent
	// GoOn says that Local steps wait until this is committed: GoOn is to be
	// called next.
	GoOn bool
	// Expired are events that have waited for too long, or are too many. They
	// become dead letters.
	Expired []*kgo.Record
	// Stuck are what Engine.OnStuck is told.
	Stuck []Stuck
	// Purged says that the saga is forgotten.
	Purged bool
}

// Sent is what a saga sends for an attempt at a step.
type Sent struct {
	Op Op
	// Record is what is produced, with its headers: the reply goes to partition 0
	// of the inbox.
	Record *kgo.Record
	// Value is what is in it, decoded.
	Value any
}

// NewMachine returns a saga that was not started yet.
func NewMachine[S any](d Definition[S], id string, now time.Time) (Machine[S], error) {
	p, err := compile(d)
	if err == nil {
		err = checkID(id)
	}
	if err != nil {
		return Machine[S]{}, err
	}
	p.byHand()
	s := &shell{name: p.name, inbox: inboxTopic(p.name), plans: map[int]*plan{p.version: p}, latest: p}
	s.profiles = profiles(s.plans)
	s.in = newInstruments(s, nil, nil, nil)
	o := p.outline()
	return Machine[S]{Now: now, id: id, shell: s, outline: &o}, nil
}

// with is a shell that handles one record by hand.
func (s *shell) with(eventTTL time.Duration, instead insteadOf) *shell {
	return &shell{
		name: s.name, inbox: s.inbox, plans: s.plans, latest: s.latest, profiles: s.profiles, in: s.in,
		maxActive: defaultMaxActive, maxEarly: defaultMaxEarly, gates: newBreakers(Gate{}), eventTTL: eventTTL,
		root: context.WithValue(context.Background(), byHandKey{}, instead),
	}
}

// insteadOf is [Machine].Local without the type of the state.
type insteadOf func(ctx context.Context, op Op, s any, call func() (any, error)) (any, error)

func (m *Machine[S]) instead() insteadOf {
	if m.Local == nil {
		return nil
	}
	return func(ctx context.Context, op Op, s any, call func() (any, error)) (any, error) {
		return m.Local(ctx, op, *s.(*S), call)
	}
}

// Start starts the saga, as [Engine.Start] does.
func (m *Machine[S]) Start(s S) (Effects, error) {
	p := m.shell.latest
	raw, err := p.encode(&s)
	if err != nil {
		return Effects{}, err
	}
	if raw == nil {
		raw = []byte{}
	}
	return m.handle(startRecord(m.shell.inbox, 0, m.id, raw, p.version, ""))
}

// Event is an event of a topic that the Definition starts with, or awaits: r is
// as it was read there, and is known again by its partition and offset. It is an
// error if it is about another saga.
func (m *Machine[S]) Event(r *kgo.Record) (Effects, error) {
	awaited, ok := routes(m.shell.plans)[r.Topic]
	if !ok {
		return Effects{}, fmt.Errorf("nothing of saga %s is started by %s, or awaits it", m.shell.name, r.Topic)
	}
	if err := awaited.about(m.id, r); err != nil {
		return Effects{}, err
	}
	return m.handle(eventRecord(m.shell.inbox, 0, m.id, r))
}

// Reply answers a call: v is of the type that the step's Method is answered with,
// nil for the zero value, or a [*reqreply.Error]. op may be of an attempt that is
// over.
func (m *Machine[S]) Reply(op Op, v any) (Effects, error) {
	a, err := m.act(op)
	if err != nil {
		return Effects{}, err
	}
	if a.kind != actCall {
		return Effects{}, fmt.Errorf("step %q is no Call, and gets no reply: %s", op.Step, a)
	}
	r, err := a.hand.answer(v)
	if err != nil {
		return Effects{}, fmt.Errorf("step %q: %w", op.Step, err)
	}
	r.Topic, r.Key = m.shell.inbox, []byte(m.id)
	hdr.Add(r, cmp.Or(a.profile.CorrelationID, hdr.CorrelationID), hdr.Op(op).CorrelationID(0))
	return m.handle(r)
}

// Tick has all done that is due at Now: see Next of [Machine.Snapshot].
func (m *Machine[S]) Tick() (Effects, error) {
	return m.handle(inboxRecord(m.shell.inbox, 0, m.id, kindTick))
}

// GoOn goes on after Effects that say so.
func (m *Machine[S]) GoOn() (Effects, error) {
	return m.handle(inboxRecord(m.shell.inbox, 0, m.id, kindGo))
}

// Do is what an operator asks for, see [Inspector.Do]: a [*VerbError] says that it
// was refused.
func (m *Machine[S]) Do(name VerbName, by By) (Effects, error) {
	if err := by.check(name); err != nil {
		return Effects{}, err
	}
	h, err := m.load(inboxRecord(m.shell.inbox, 0, m.id, kindVerb))
	if err != nil {
		return Effects{}, err
	}
	out, err := m.run(h, input{kind: inVerb, verb: verb{id: by.ID, name: name, actor: by.Actor, reason: by.Reason, step: by.Step, state: by.State}})
	if err == nil && h.refused != "" {
		err = &VerbError{Saga: m.shell.name, ID: m.id, Verb: name, Reason: h.refused}
	}
	return out, err
}

// handle takes in a record of the inbox, as [shell.handle] does.
func (m *Machine[S]) handle(r *kgo.Record) (Effects, error) {
	h, err := m.load(r)
	if err != nil {
		return Effects{}, err
	}
	if h.ended != nil {
		return Effects{}, h.over()
	}
	i, skip, err := h.input()
	if skip || err != nil {
		return Effects{}, err
	}
	return m.run(h, i)
}

func (m *Machine[S]) load(r *kgo.Record) (*handling, error) {
	r.Offset = m.offset
	m.offset++
	msg, err := readMessage(r, m.shell.profiles)
	if err != nil {
		return nil, err
	}
	h := &handling{
		shell: m.shell.with(m.EventTTL, m.instead()), message: msg, ctx: context.Background(), r: r, now: m.Now, before: m.record,
		index: &index{}, in: &instance{id: m.id, whyStep: -1}, plan: m.shell.latest,
	}
	h.index.Reset() // it is alone in its partition
	if m.record == nil {
		return h, nil
	}
	if h.in, err = decodeInstance(m.id, m.record); err != nil {
		return nil, err
	}
	if h.in.phase.Ended() {
		h.ended = &endedInfo{phase: h.in.phase, ended: h.in.ended, from: h.in.from, value: m.record}
	}
	return h, nil
}

// run gives the machine an input, makes the attempts at local steps that may be
// made before the commit, and keeps what the saga is then.
func (m *Machine[S]) run(h *handling, i input) (out Effects, err error) {
	fault := m.feed(h, &out, i)
	for len(h.locals) > 0 && fault == nil {
		now := h.locals
		if h.locals = nil; out.GoOn || len(out.Sent) > 0 || slices.ContainsFunc(now, func(e effect) bool { return e.durable }) {
			now = slices.DeleteFunc(now, func(e effect) bool { return e.durable || out.GoOn || len(out.Sent) > 0 })
			out.GoOn = true
		}
		if len(now) == 0 {
			break
		}
		var results []input // of one state
		for i := range now {
			var one []input
			if one, fault = h.shell.locals(h.ctx, h.plan, h.in, now[i:i+1]); fault != nil {
				break
			}
			results = append(results, one...)
		}
		for _, i := range results {
			if fault == nil {
				fault = m.feed(h, &out, i)
			}
		}
	}
	if fault != nil && !h.in.quarantine(h.now, h.why(fault)) {
		return Effects{}, fault
	}
	switch {
	case out.Purged:
		m.record = nil
	case h.ended == nil && h.in.phase != 0:
		m.record = encodeInstance(h.in)
	}
	return out, nil
}

// feed is [handling.feed].
func (m *Machine[S]) feed(h *handling, out *Effects, i input) error {
	world := h.env()
	world.again = m.Again
	effects, err := next(h.plan, h.in, i, world)
	for _, e := range effects {
		switch e.kind {
		case effectSend:
			a := h.plan.steps[e.step].act(e.op.Undo)
			address(e.record, &h.plan.steps[e.step], e.op, h.inbox, 0, h.now, e.timeout)
			v, _ := a.hand.sent(e.record) // what does not decode is not there
			out.Sent = append(out.Sent, Sent{Op: e.op, Record: e.record, Value: v})
		case effectLocal:
			h.locals = append(h.locals, e)
		case effectExpire:
			out.Expired = append(out.Expired, e.event.record())
		case effectRefuse:
			h.refused = e.refused
		case effectForget:
			out.Purged = true
		case effectStuck:
			out.Stuck = append(out.Stuck, e.stuck)
		}
	}
	return err
}

// act is the action that an op is an attempt at.
func (m *Machine[S]) act(op Op) (act, error) {
	i := m.shell.latest.index(op.Step)
	if i < 0 {
		return act{}, fmt.Errorf("saga %s has no step %q", m.shell.name, op.Step)
	}
	a := m.shell.latest.steps[i].act(op.Undo)
	if a.kind == actNone {
		return act{}, fmt.Errorf("step %q has no Undo", op.Step)
	}
	return a, nil
}

// Snapshot returns what the saga is now. One that was not started, or was purged,
// has the Phase 0.
func (m *Machine[S]) Snapshot() Snapshot {
	return snapshot(m.shell.name, m.now(), m.outline)
}

// Outline returns the Definition without its code.
func (m *Machine[S]) Outline() Outline { return *m.outline }

// State returns the saga's state, the zero one of a saga that was not started.
func (m *Machine[S]) State() (S, error) {
	s, err := stateOf(m.shell.latest, m.now())
	if err != nil {
		return *new(S), err
	}
	return *s.(*S), nil
}

func (m *Machine[S]) now() *instance {
	if m.record != nil {
		if in, err := decodeInstance(m.id, m.record); err == nil { // which encodeInstance wrote
			return in
		}
	}
	return &instance{id: m.id, whyStep: -1}
}
