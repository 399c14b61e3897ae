package saga

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
)

// handle takes in a record of the inbox. All that comes of it is staged: it is
// committed together with the offset, or not at all.
func (s *shell) handle(ctx context.Context, r *kgo.Record) error {
	m, err := readMessage(r, s.profiles)
	if err != nil {
		return &wherry.RecordError{Cause: wherry.CauseUndecodable, Err: fmt.Errorf("inbox record: %w", err)}
	}
	x := s.clock.of(r.Partition)
	if x == nil {
		return errTaken
	}
	if m.kind == kindSweep {
		return s.forgetEnded(ctx, x, r.Offset, m.swept)
	}
	if at := partitionOf(m.id, s.places.known.Load()); at != r.Partition {
		return forward(ctx, r, m.id, at)
	}
	h := &handling{shell: s, ctx: ctx, r: r, message: m, index: x, now: time.Now()}
	if err := h.load(); err != nil {
		return s.unreadable(ctx, r, m, err)
	}
	ctx, end := s.in.handling(ctx, h)
	h.ctx = ctx
	if err = h.do(); err != nil {
		x.release(m.id) // if it had a place
	}
	end(err)
	return err
}

// errTaken is of a record whose partition was taken away meanwhile: it does not
// count.
var errTaken = errors.New("the partition was taken away")

// forward sends on a record that a foreign producer put into another partition
// than its saga's.
func forward(ctx context.Context, r *kgo.Record, id string, partition int32) error {
	to := &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers}
	if to.Key == nil {
		to.Key = []byte(id)
	}
	wherry.ToPartition(to, partition)
	return wherry.Publish(ctx, to)
}

// handling is one input being handled.
type handling struct {
	*shell
	message
	ctx   context.Context //nolint:containedctx // of the call
	r     *kgo.Record
	index *index
	now   time.Time

	before []byte    // the saga's record, nil without one
	in     *instance // the saga; new where there is none
	plan   *plan     // nil where its version has no code
	second bool      // perhaps it was handled before
	ended  *endedInfo

	locals  []effect // to be run
	sent    bool     // something was sent, or waits for the commit
	forget  bool
	refused string // why a verb was
	stucks  []Stuck
	fault   error // of the last input of the machine
}

// load reads what is known of the saga.
func (h *handling) load() (err error) {
	value, ok, err := h.table.Get(h.ctx, h.id)
	if err != nil {
		return err
	}
	if !ok {
		h.ended = h.index.lookupEnded(h.id, h.r.Offset)
		h.in, h.plan = &instance{id: h.id, whyStep: -1}, h.latest
		if h.ended != nil {
			h.in.phase = h.ended.phase // for verbs
		}
		if h.ended != nil && h.kind == kindVerb {
			if was, err := decodeInstance(h.id, h.ended.value); err == nil {
				h.in.seen = was.seen // the one that ended it may be asked for again
			}
		}
		return nil
	}
	h.before = value
	if h.in, err = decodeInstance(h.id, value); err != nil {
		return &wherry.RecordError{Cause: wherry.CauseUndecodable, Err: err}
	}
	if h.in.phase.Ended() { // not committed yet
		h.ended = &endedInfo{phase: h.in.phase, ended: h.in.ended, from: h.in.from, value: value}
	}
	if h.plan = h.plans[h.in.version]; h.in.phase == Early {
		h.plan = h.latest
	}
	return nil
}

func (h *handling) do() error {
	if h.kind == kindQuery {
		in := h.in
		if h.before == nil || h.ended != nil {
			in = nil
		}
		return h.answer(h.ctx, h.r, in, h.ended)
	}
	if h.ended != nil && h.kind != kindVerb {
		return h.over()
	}
	i, skip, err := h.input()
	if skip || err != nil {
		return err
	}
	if h.second = h.handledBefore(); h.ctx.Err() != nil {
		return context.Cause(h.ctx)
	}
	h.feed(i)
	if err := h.work(); err != nil {
		return err
	}
	return h.keep()
}

// over is an input of a saga that has ended.
func (h *handling) over() error {
	if h.kind == kindStart {
		return h.again(h.ended.from)
	}
	h.shell.in.stray(h.ctx, h.kind)
	return nil
}

// again is a start of a saga that was started with from.
func (h *handling) again(from uint64) error {
	if from == payloadHash(h.r.Value) {
		return nil
	}
	return wherry.Permanent(fmt.Errorf("saga %q was started before, with another state", h.id))
}

// input makes an input for the machine. skip says that there is nothing to be
// done.
func (h *handling) input() (i input, skip bool, err error) {
	begun := h.before != nil && h.in.phase != Early
	switch h.kind {
	case kindStart:
		if begun {
			return i, true, h.again(h.in.from)
		}
		if h.version > h.latest.version {
			return i, true, wherry.Permanent(fmt.Errorf("saga %q is of version %d, and this engine knows %d at most: run the newer one, and replay the dead letter", h.id, h.version, h.latest.version))
		}
		i = input{kind: inStart, payload: h.r.Value, queue: h.full(false), trace: traceparentOf(h.r)}
	case kindEvent:
		i = input{kind: inEvent, record: h.record}
		if !begun {
			if _, ok := h.plan.trigger(h.id, h.record); ok {
				i = input{kind: inStart, record: h.record, queue: h.full(false), trace: traceparentOf(h.r)}
			}
		}
	case kindReply:
		h.op.Saga = h.name
		if !begun {
			h.shell.in.stray(h.ctx, h.kind)
		}
		return input{kind: inReply, op: h.op, record: h.r}, !begun, nil
	case kindTick:
		i.kind = inTick
		if due := h.in.due(); due > 0 && due <= h.now.UnixMilli() {
			h.shell.in.late(h.ctx, h.now.Sub(time.UnixMilli(due)))
		}
		skip = h.before == nil
	case kindGo:
		i.kind, skip = inGo, !begun
	case kindAdmit:
		i.kind = inAdmit
		skip = !begun || h.in.phase != Queued || h.full(true)
	case kindVerb:
		i.kind = inVerb
		if i.verb, err = readVerb(h.r); err != nil {
			err = &wherry.RecordError{Cause: wherry.CauseUndecodable, Err: err}
		}
	case kindQuery, kindSweep: // see do and handle
	}
	return i, skip, err
}

// full reports whether there is no place for one more active saga, which has
// waited for it or starts now.
func (h *handling) full(waited bool) bool { return !h.index.reserve(h.id, h.maxActive, waited) }

// env is the world of now.
func (h *handling) env() env {
	return env{
		now: h.now, eventTTL: h.eventTTL, again: h.second,
		full: h.kind == kindEvent && h.index.waiting(h.id)+len(h.in.events) >= h.maxEarly,
		gate: func(step int) time.Time { return h.gates.until(stepKey{h.in.version, step}, h.now) },
	}
}

// feed gives the machine an input, and takes what comes of it.
func (h *handling) feed(i input) {
	if h.fault != nil {
		return
	}
	moves := h.in.moves
	out, err := next(h.plan, h.in, i, h.env())
	h.moved(moves)
	for _, e := range out {
		if err := h.take(e); err != nil {
			h.fault = err
			return
		}
	}
	h.fault = err
}

// moved tells gates and metrics of the transitions since so many.
func (h *handling) moved(before uint64) {
	n := min(int(h.in.moves-before), len(h.in.history)) //nolint:gosec // a few
	for _, t := range h.in.history[len(h.in.history)-n:] {
		h.shell.in.moved(h.ctx, t.what)
		answered := false
		switch t.what {
		case moveDone, moveRejected, moveUndone:
			answered = true
		case moveFailed, moveTimedOut, moveUndoFailed:
		default:
			continue
		}
		if t.step < 0 {
			continue
		}
		shut, was := h.gates.report(stepKey{h.in.version, t.step}, answered, h.now)
		if shut != was && h.plan != nil && t.step < len(h.plan.steps) {
			h.log.WarnContext(h.ctx, "saga: the gate of a step has changed", "step", h.plan.steps[t.step].name, "shut", shut, "why", t.note)
		}
	}
}

// take does what an effect asks for, or puts it aside.
func (h *handling) take(e effect) error {
	switch e.kind {
	case effectSend:
		address(e.record, &h.plan.steps[e.step], e.op, h.inbox, h.r.Partition, h.now, e.timeout)
		h.shell.in.carry(h.ctx, e.record, h.in.trace)
		h.sent = true
		return wherry.Publish(h.ctx, e.record)
	case effectLocal:
		h.locals = append(h.locals, e)
	case effectExpire:
		return h.expire(e.event)
	case effectRefuse:
		h.refused = e.refused
	case effectForget:
		h.forget = true
	case effectStuck:
		h.stucks = append(h.stucks, e.stuck)
	}
	return nil
}

// expire makes a dead letter of an event that waited for too long.
func (h *handling) expire(w waiting) error {
	of := w.record()
	l := dlq.Letter{
		Topic: of.Topic, Partition: of.Partition, Offset: of.Offset, Timestamp: time.UnixMilli(w.came),
		Key: of.Key, Value: of.Value, Headers: of.Headers, Group: wherry.GroupFrom(h.ctx), Failed: h.now,
		Cause: wherry.CauseExpired, Error: fmt.Sprintf("saga %s %q did not come to await it", h.name, h.id),
	}
	r, err := l.Encode(deadTopic(h.name))
	if err != nil {
		return err
	}
	return wherry.Publish(h.ctx, r)
}

// work runs local steps until there are none that may run now. Those that must
// wait for the commit go on with a record in the same transaction.
func (h *handling) work() error {
	for len(h.locals) > 0 && h.fault == nil {
		var now []effect
		waits := false
		for _, e := range h.locals {
			if e.durable || h.sent {
				waits = true
			} else {
				now = append(now, e)
			}
		}
		h.locals = nil
		if waits {
			r := inboxRecord(h.inbox, h.r.Partition, h.id, kindGo)
			wherry.ToPartition(r, h.r.Partition)
			if err := wherry.Publish(h.ctx, r); err != nil {
				return err
			}
			h.sent = true
		}
		if len(now) == 0 {
			return nil
		}
		h.index.past.begin(h.id, h.r.Offset)
		results, fault := h.shell.locals(h.ctx, h.plan, h.in, now)
		if cause := context.Cause(h.ctx); cause != nil {
			return cause // nothing of it counts
		}
		h.fault, h.now = fault, time.Now()
		for _, i := range results {
			h.feed(i)
		}
	}
	return nil
}
