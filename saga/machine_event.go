package saga

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"
)

const (
	maxWaiting      = 100 // events of one instance
	defaultEventTTL = time.Hour
)

func eventHash(topic string, partition int32, offset int64) uint64 {
	return hash(topic, strconv.Itoa(int(partition)), strconv.FormatInt(offset, 10))
}

func (w waiting) hash() uint64 { return eventHash(w.topic, w.partition, w.offset) }

// happens takes in an event, which may be what starts the saga.
func (m *machine) happens(i input) error {
	if m.in.phase == 0 || m.in.phase == Early {
		if _, ok := m.p.trigger(m.in.id, i.record); ok {
			return m.start(i)
		}
	}
	return m.event(newWaiting(i.record, m.now))
}

// event takes in an event: for a step in hand, or for one that is to come.
func (m *machine) event(w waiting) error {
	in := m.in
	if in.phase.Ended() {
		return nil
	}
	if slices.Contains(in.seen, w.hash()) || slices.ContainsFunc(in.events, func(o waiting) bool { return o.hash() == w.hash() }) {
		m.ignoreEvent(w, "again")
		return nil
	}
	if i, o, ok := m.awaitedBy(w); ok {
		if err := m.outcome(i, o, w); err != nil {
			return err
		}
		return m.advance()
	}
	switch {
	case !m.toCome(w):
		m.ignoreEvent(w, "for nobody")
	case m.e.full || len(in.events) >= maxWaiting:
		m.out = append(m.out, effect{kind: effectExpire, event: w})
		m.ignoreEvent(w, "too many wait")
	default:
		in.events = append(slices.Clip(in.events), w)
		m.expiry()
		if len(in.steps) > 0 {
			m.note(moveEvent, -1, 0, w.name())
		}
	}
	return nil
}

// awaitedBy returns the step in hand that an event ends, if there is one.
func (m *machine) awaitedBy(w waiting) (i int, o outcome, ok bool) {
	r, undo := w.record(), m.undoing()
	for i := range m.in.steps {
		if !m.inHand(i, undo) {
			continue
		}
		if o, ok := m.p.steps[i].act(undo).match(m.in.id, r); ok {
			return i, o, true
		}
	}
	return -1, o, false
}

func (m *machine) ignoreEvent(w waiting, why string) {
	if m.in.phase != 0 && m.in.phase != Early {
		m.ignore(-1, 0, w.name()+": "+why)
	}
}

func (w waiting) name() string { return fmt.Sprintf("%s/%d@%d", w.topic, w.partition, w.offset) }

// toCome reports whether a step that has not begun awaits an event.
func (m *machine) toCome(w waiting) bool {
	r := w.record()
	for i, ps := range m.p.steps {
		status := stepWaiting
		if len(m.in.steps) > 0 {
			status = m.in.steps[i].status
		}
		if !m.undoing() && status == stepWaiting {
			if _, ok := ps.do.match(m.in.id, r); ok {
				return true
			}
		}
		switch status {
		case stepWaiting, stepDoing, stepBetween, stepDone, stepUnknown:
			if _, ok := ps.undo.match(m.in.id, r); ok && !m.past() {
				return true
			}
		default:
		}
	}
	return false
}

// outcome ends a step in hand with an event.
func (m *machine) outcome(i int, o outcome, w waiting) error {
	var reason string
	if err := m.change(func(s any) (err error) {
		reason, err = o.apply(s, w.record())
		return err
	}); err != nil {
		return fmt.Errorf("step %q: event %s: %w", m.p.steps[i].name, w.name(), err)
	}
	m.remember(w.hash())
	if o.fails {
		m.rejected(i, reason)
	} else {
		m.done(i)
	}
	return nil
}

// waitingFor gives a step that has just begun the first of the events that
// waited for it.
func (m *machine) waitingFor(i int) error {
	for n, w := range m.in.events {
		if w.step != "" {
			continue
		}
		if o, ok := m.p.steps[i].act(m.undoing()).match(m.in.id, w.record()); ok {
			m.drop(n)
			return m.outcome(i, o, w)
		}
	}
	return nil
}

// drop takes the nth event out.
func (m *machine) drop(n int) {
	m.in.events = slices.Delete(slices.Clone(m.in.events), n, n+1)
	m.expiry()
}

// expiry says when the next event has waited long enough.
func (m *machine) expiry() {
	m.in.expires = 0
	for _, w := range m.in.events {
		if at := w.came + m.ttl(); w.step == "" && (m.in.expires == 0 || at < m.in.expires) {
			m.in.expires = at
		}
	}
}

func (m *machine) ttl() int64 { return cmp.Or(m.e.eventTTL, defaultEventTTL).Milliseconds() }

// expire drops the events that have waited long enough.
func (m *machine) expire() {
	if !m.over(m.in.expires) {
		return
	}
	for n := 0; n < len(m.in.events); {
		w := m.in.events[n]
		if w.step != "" || w.came+m.ttl() > m.now {
			n++
			continue
		}
		m.drop(n)
		m.out = append(m.out, effect{kind: effectExpire, event: w})
		m.ignoreEvent(w, "it has waited too long")
	}
	m.expiry()
	if m.in.phase == Early && len(m.in.events) == 0 {
		m.out = append(m.out, effect{kind: effectForget})
	}
}
