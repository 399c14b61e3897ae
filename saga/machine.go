package saga

import (
	"fmt"
	"hash/fnv"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/wherry-go/wherry"
)

// machine is one call of next.
type machine struct {
	p   *plan
	in  *instance
	e   env
	now int64
	out []effect
	// kept and sent are what an error falls back to.
	kept instance
	sent int
	// adopted: it had no code until now.
	adopted bool
	// lifted: it was parked or quarantined until now.
	lifted bool
}

// next changes an instance by an input, and returns what is to be done; it is a
// function of its arguments alone. A new instance has only an id. Where its
// phase is 0 afterwards there is nothing to be stored. p is nil for a version
// without code: the saga is parked, and what comes for it is kept.
//
// An error is for quarantine: an input or a state that does not decode, or a
// panic of a user's function, a [*wherry.RecordError] with its stack. What could
// not be done has then changed nothing: neither an input that cannot be read,
// nor the begin of the next stage. But an input that was taken in stays so (a
// start has started, a step is done), and the effects that come with an error
// are as good as others.
func next(p *plan, in *instance, i input, e env) (out []effect, err error) {
	m := &machine{p: p, in: in, e: e, now: e.now.UnixMilli()}
	m.keep()
	if err = m.guarded(i); err != nil {
		m.fallBack()
	}
	// What was settled meanwhile, by an operator say, is not done any more.
	return slices.DeleteFunc(m.out, func(e effect) bool {
		return e.kind == effectLocal && (!m.isOut(e.step) || e.op != m.op(e.step))
	}), err
}

// keep makes now what an error falls back to. What is not cloned is only
// appended to.
func (m *machine) keep() {
	steps := m.kept.steps[:0]
	steps = append(steps, m.in.steps...)
	m.kept, m.sent = *m.in, len(m.out)
	m.kept.steps = steps
}

func (m *machine) fallBack() {
	*m.in, m.out = m.kept, m.out[:m.sent]
	m.in.state, m.in.dirty = nil, false
}

func (m *machine) guarded(i input) (err error) {
	defer func() {
		if p := recover(); p != nil {
			cause, ok := p.(error)
			if !ok {
				cause = fmt.Errorf("%v", p)
			}
			err = &wherry.RecordError{Cause: wherry.CausePanic, Err: fmt.Errorf("panic: %w", cause), Stack: string(debug.Stack())}
		}
	}()
	if m.p == nil {
		m.withoutCode(i)
		return nil
	}
	switch err := m.fits(); {
	case err == nil:
		if err := m.adopt(); err != nil {
			return err
		}
	case i.kind != inVerb || i.verb.name != Purge:
		return err
	}
	if err := m.take(i); err != nil {
		return err
	}
	return m.in.seal(m.p)
}

// fits says where the plan cannot be that which the saga began with.
func (m *machine) fits() error {
	switch n := len(m.in.steps); {
	case m.in.stage < 0 || m.in.stage > len(m.p.stages):
		return fmt.Errorf("its record is damaged: it is in stage %d of %d", m.in.stage, len(m.p.stages))
	case n > 0 && n != len(m.p.steps):
		return fmt.Errorf("it has %d steps, and the Definition of version %d has %d now: register the one that it began with, and give that which was changed a Version of its own", n, m.in.version, len(m.p.steps))
	}
	return nil
}

func (m *machine) take(i input) error {
	if m.in.phase == 0 {
		return m.first(i)
	}
	switch i.kind {
	case inStart:
		return m.start(i)
	case inAdmit:
		if m.in.phase == Queued {
			return m.run()
		}
	case inReply:
		return m.reply(i)
	case inEvent:
		return m.happens(i)
	case inLocal:
		return m.local(i)
	case inTick:
		return m.tick()
	case inGo:
		m.reissue()
	case inVerb:
		return m.verb(i.verb)
	}
	return nil
}

// first is an input for what is not there.
func (m *machine) first(i input) error {
	switch i.kind {
	case inStart:
		return m.start(i)
	case inEvent:
		m.in.whyStep = -1
		if err := m.happens(i); err != nil || m.in.phase != 0 {
			return err
		}
		if len(m.in.events) > 0 {
			m.in.phase, m.in.began = Early, m.now
		}
	case inVerb:
		m.refuse(i.verb, "there is no such saga")
	case inAdmit, inReply, inLocal, inTick, inGo:
	}
	return nil
}

// start begins the saga, if it has not begun.
func (m *machine) start(i input) error {
	in := m.in
	if in.phase != 0 && in.phase != Early {
		if !in.phase.Ended() {
			m.ignore(-1, 0, "a start: it has begun already")
		}
		return nil
	}
	raw := i.payload
	if i.record != nil {
		var err error
		if raw, err = m.firstState(i); err != nil {
			return err
		}
	}
	in.version, in.raw, in.from, in.trace = m.p.version, raw, payloadHash(raw), i.trace
	in.began, in.stage, in.whyStep = m.now, 0, -1
	in.steps = make([]stepState, len(m.p.steps))
	m.note(moveStarted, -1, 0, "")
	if i.queue {
		in.phase = Queued
		m.note(moveQueued, -1, 0, "")
		return nil
	}
	return m.run()
}

func (m *machine) firstState(i input) ([]byte, error) {
	t, ok := m.p.trigger(m.in.id, i.record)
	if !ok {
		return nil, &wherry.RecordError{Cause: wherry.CauseUndecodable, Err: fmt.Errorf("no trigger of %s starts saga %q with a record of %s", m.p.name, m.in.id, i.record.Topic)}
	}
	m.remember(eventHash(i.record.Topic, i.record.Partition, i.record.Offset))
	s, err := t.first(i.record)
	if err != nil {
		return nil, err
	}
	return m.p.encode(s)
}

// run begins the first stage.
func (m *machine) run() error {
	m.in.phase = Running
	if m.p.deadline > 0 {
		m.in.deadline = m.after(m.p.deadline)
	}
	return m.advance()
}

// held reports whether no attempt may begin.
func (in *instance) held() bool {
	return in.paused || in.phase == Parked || in.phase == Quarantined
}

// doing is the phase, also of one that is parked or quarantined.
func (in *instance) doing() Phase {
	if in.phase == Parked || in.phase == Quarantined {
		return in.before
	}
	return in.phase
}

// hold parks or quarantines.
func (m *machine) hold(phase Phase, step int, why string) {
	m.in.hold(phase, step, why)
	what := moveParked
	if phase == Quarantined {
		what = moveQuarantined
	}
	m.note(what, step, 0, why)
}

func (in *instance) hold(phase Phase, step int, why string) {
	if in.phase != Parked && in.phase != Quarantined {
		in.before, in.beforeStep, in.beforeWhy = in.phase, in.whyStep, in.why
	}
	in.phase, in.whyStep, in.why = phase, step, clip(why, maxWhy)
}

// release is the opposite of hold.
func (in *instance) release() {
	in.phase, in.whyStep, in.why = in.before, in.beforeStep, in.beforeWhy
	in.before, in.beforeStep, in.beforeWhy = 0, 0, ""
}

// quarantine holds the instance until an operator has looked: why names the
// input. It reports false where there is no saga yet, or none any more: then
// the input is a dead letter, and no more.
func (in *instance) quarantine(now time.Time, why string) bool {
	if in.phase == 0 || in.phase == Early || in.phase.Ended() {
		return false
	}
	m := &machine{in: in, now: now.UnixMilli()}
	m.hold(Quarantined, -1, why)
	return true
}

// end is the end of the saga.
func (m *machine) end(phase Phase) {
	in := m.in
	in.phase, in.ended, in.deadline = phase, m.now, 0
	in.paused, in.failing, in.stuck = false, false, false
	for i := range in.steps {
		in.steps[i].due, in.steps[i].stuckAt = 0, 0
	}
	for _, w := range in.events { // nobody will ask for them
		m.out = append(m.out, effect{kind: effectExpire, event: w})
	}
	in.events, in.expires = nil, 0
	m.note(moveEnded, -1, 0, phase.String())
}

// note adds a line to the history.
func (m *machine) note(what move, step int, attempt int32, note string) {
	in := m.in
	in.moves++
	if len(in.history) >= maxHistory {
		in.history = in.history[len(in.history)-maxHistory+1:]
	}
	in.history = append(in.history, transition{at: m.now, what: what, step: step, attempt: attempt, note: clip(note, maxNote)})
}

// ignore notes an input that changes nothing, but not the same one twice
// running.
func (m *machine) ignore(step int, attempt int32, note string) {
	if n := len(m.in.history); n > 0 {
		if l := m.in.history[n-1]; l.what == moveIgnored && l.step == step && l.attempt == attempt && l.note == clip(note, maxNote) {
			return
		}
	}
	m.note(moveIgnored, step, attempt, note)
}

const (
	maxNote = 200
	maxWhy  = 1000
	maxSeen = 16
)

// clip cuts a text to n bytes, between characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// after is a time from now, never earlier.
func (m *machine) after(d time.Duration) int64 { return millis(m.e.now.Add(d)) }

// hash is FNV-1a of the texts, each with its end.
func hash(texts ...string) uint64 {
	h := fnv.New64a()
	for _, t := range texts {
		_, _ = h.Write([]byte(t))
		_, _ = h.Write([]byte{0})
	}
	return h.Sum64()
}

// payloadHash is that of [instance].from.
func payloadHash(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b)
	return h.Sum64()
}

// remember notes that a thing was taken in.
func (m *machine) remember(h uint64) {
	if slices.Contains(m.in.seen, h) {
		return
	}
	m.in.seen = append(m.in.seen, h)
	if n := len(m.in.seen); n > maxSeen {
		m.in.seen = m.in.seen[n-maxSeen:]
	}
}

// state returns the state, decoded.
func (m *machine) state() (any, error) {
	if m.in.state == nil {
		s, err := m.p.decode(m.in.raw)
		if err != nil {
			return nil, &wherry.RecordError{Cause: wherry.CauseUndecodable, Err: err}
		}
		m.in.state = s
	}
	return m.in.state, nil
}

// change calls a user's function that may change the state.
func (m *machine) change(f func(s any) error) error {
	s, err := m.state()
	if err != nil {
		return err
	}
	m.in.dirty = true
	return f(s)
}

// seal encodes the state, if it was changed. next has done so.
func (in *instance) seal(p *plan) error {
	if !in.dirty {
		return nil
	}
	raw, err := p.encode(in.state)
	if err != nil {
		return fmt.Errorf("encoding the state: %w", err)
	}
	in.raw, in.dirty = raw, false
	return nil
}
