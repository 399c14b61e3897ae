package saga

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wherry-go/wherry/retry"
)

// past reports whether the pivot is behind: the saga goes forward only.
func (m *machine) past() bool {
	if m.p.pivot < 0 || len(m.in.steps) == 0 {
		return false
	}
	s := m.in.steps[m.p.pivot].status
	return m.in.stage > m.p.steps[m.p.pivot].stage || s == stepDone || s == stepSkipped
}

// onTheEdge reports whether a step is a pivot of which nobody knows whether it
// is done, and which cannot be undone.
func (m *machine) onTheEdge(i int) bool {
	return i >= 0 && i == m.p.pivot && !m.p.steps[i].undoes() && m.in.steps[i].doubt
}

// forever reports whether a step is tried until it is done.
func (m *machine) forever(i int) bool {
	return m.undoing() || m.p.beyond(i) || m.onTheEdge(i)
}

// done is the success of a step, doing or undoing.
func (m *machine) done(i int) {
	what, status := moveDone, stepDone
	if m.undoing() {
		what, status = moveUndone, stepUndone
	}
	m.note(what, i, m.in.steps[i].attempt, "")
	if status == stepDone {
		m.in.steps[i].doubt = false
	}
	m.settle(i, status)
	if i == m.p.pivot && status == stepDone {
		m.in.deadline = 0
		if m.in.failing { // it was too late
			m.in.failing = false
			m.because(-1, "")
		}
	}
}

func (m *machine) settle(i int, status stepStatus) {
	st := &m.in.steps[i]
	st.status, st.due, st.stuckAt = status, 0, 0
	if m.in.stuck {
		m.in.stuck = slices.ContainsFunc(m.in.steps, func(s stepState) bool { return s.stuckAt > 0 && s.stuckAt <= m.now })
	}
}

// rejected is a no for good.
func (m *machine) rejected(i int, why string) {
	if m.undoing() {
		m.undoFailed(i, errors.New(why))
		return
	}
	m.note(moveRejected, i, m.in.steps[i].attempt, why)
	m.giveUp(i, why)
}

// giveUp ends a step that is not done and will not be, or may be done.
func (m *machine) giveUp(i int, why string) {
	if m.p.beyond(i) {
		m.settle(i, stepRejected)
		m.park(i, why)
		return
	}
	m.notDone(i)
	m.fail(i, why)
}

// notDone settles a step that is to be undone if it may be done.
func (m *machine) notDone(i int) {
	status := stepRejected
	if m.in.steps[i].doubt {
		status = stepUnknown
	}
	m.settle(i, status)
}

// haunt casts doubt on a local step that does not succeed now, where the input
// may have been handled before and not been committed: perhaps it succeeded
// then, and with it the local steps after it that would not wait for the commit.
func (m *machine) haunt(i int) {
	if !m.e.again || m.undoing() || m.p.steps[i].do.kind != actLocal {
		return
	}
	m.in.steps[i].doubt = true
	m.hauntFrom(m.p.steps[i].stage + 1)
}

// hauntFrom casts doubt on the local steps of a stage and of those after it, up to
// the first that surely waited for a commit: none begins beside what is sent, and
// none after one that is Durable. What has a When may have been left out.
func (m *machine) hauntFrom(stage int) {
	for _, st := range m.p.stages[stage:] {
		surely := func(is func(*planStep) bool) bool {
			return st.when == nil && slices.ContainsFunc(st.steps, func(i int) bool { return m.p.steps[i].when == nil && is(&m.p.steps[i]) })
		}
		if surely(func(ps *planStep) bool { return ps.do.kind != actLocal }) {
			return
		}
		for _, i := range st.steps {
			m.in.steps[i].doubt = m.in.steps[i].doubt || m.p.steps[i].do.kind == actLocal && !m.p.steps[i].durable
		}
		if surely(func(ps *planStep) bool { return ps.durable }) {
			return
		}
	}
}

func (m *machine) park(i int, why string) {
	if m.in.phase != Quarantined && m.in.phase != Parked {
		m.hold(Parked, i, why)
	}
}

// fail has the stage in hand settle, and then all be undone.
func (m *machine) fail(i int, why string) {
	if m.in.failing {
		return
	}
	m.in.failing = true
	m.because(i, why)
}

// because says why the saga fails; one that is held has a reason of its own.
func (m *machine) because(i int, why string) {
	step, text := &m.in.whyStep, &m.in.why
	if m.in.phase == Parked || m.in.phase == Quarantined {
		step, text = &m.in.beforeStep, &m.in.beforeWhy
	}
	*step, *text = i, clip(why, maxWhy)
}

// failed is the end of an attempt that did nothing.
func (m *machine) failed(i int, err error) {
	if m.undoing() {
		m.undoFailed(i, err)
		return
	}
	m.note(moveFailed, i, m.in.steps[i].attempt, err.Error())
	m.again(i, err)
}

func (m *machine) undoFailed(i int, err error) {
	m.note(moveUndoFailed, i, m.in.steps[i].attempt, err.Error())
	m.again(i, err)
}

var errNoAnswer = errors.New("no answer in time")

// timedOut is the end of an attempt whose outcome is not known.
func (m *machine) timedOut(i int) {
	st := &m.in.steps[i]
	if m.undoing() {
		m.undoFailed(i, errNoAnswer)
		return
	}
	st.doubt = true
	m.note(moveTimedOut, i, st.attempt, "")
	if m.forever(i) || m.p.steps[i].again() {
		m.again(i, errNoAnswer)
		return
	}
	m.giveUp(i, errNoAnswer.Error())
}

// again says when the next attempt at a step begins, if there is one.
func (m *machine) again(i int, err error) {
	st, ps := &m.in.steps[i], &m.p.steps[i]
	shut := m.shut(i)
	if shut > 0 && !m.in.failing {
		m.wait(i, max(m.after(m.pause(i, forever(ps.retry), err)), shut))
		st.began = 0 // it costs no attempt
		m.patience(i)
		return
	}
	if m.forever(i) {
		st.tries++
		m.patience(i)
		m.wait(i, max(m.after(m.pause(i, forever(ps.retry), err)), shut))
		return
	}
	if m.in.failing {
		m.giveUp(i, err.Error())
		return
	}
	st.tries++
	policy := ps.retry
	policy.Jitter = 0
	elapsed := time.Duration(m.now-st.began) * time.Millisecond
	if _, cause := policy.Next(int(st.tries), elapsed, err); cause != "" {
		why := err.Error()
		if st.tries > 1 {
			why = fmt.Sprintf("%s after %d attempts: %s", cause, st.tries, why)
		}
		m.note(moveGaveUp, i, st.attempt, why)
		m.giveUp(i, why)
		return
	}
	m.wait(i, m.after(m.pause(i, ps.retry, err)))
}

// patience says when a step that is tried until it is done is stuck: also where
// a gate holds it, for that is how an operator hears of it.
func (m *machine) patience(i int) {
	if st := &m.in.steps[i]; st.stuckAt == 0 && m.forever(i) {
		st.stuckAt = m.after(m.p.stuckAfter)
	}
}

// wait puts a step between two attempts.
func (m *machine) wait(i int, due int64) {
	st := &m.in.steps[i]
	if m.undoing() {
		if st.status != stepUndoing && st.status != stepUndoWait {
			*st = stepState{doubt: st.doubt}
		}
		st.status = stepUndoWait
	} else {
		st.status = stepBetween
	}
	st.due = due
}

// shut is until when the gate holds a step, 0 if it does not.
func (m *machine) shut(i int) int64 {
	if m.e.gate == nil {
		return 0
	}
	if t := m.e.gate(i); t.After(m.e.now) {
		return millis(t)
	}
	return 0
}

// defaultMaxWait caps the waits of what is tried for ever.
const defaultMaxWait = time.Minute

// forever is a policy without an end, its waits capped.
func forever(p retry.Policy) retry.Policy {
	p.Max = cmp.Or(p.Max, max(defaultMaxWait, p.Initial))
	p.Attempts, p.Within = retry.Forever, 0
	p.Rules = slices.Clone(p.Rules)
	for i := range p.Rules {
		p.Rules[i].GiveUp, p.Rules[i].Attempts = false, retry.Forever
	}
	return p
}

// pause is the wait before the next attempt at a step, spread as the policy
// says by what is the same whenever it is asked.
func (m *machine) pause(i int, p retry.Policy, err error) time.Duration {
	st, part := &m.in.steps[i], p.Jitter
	elapsed := time.Duration(m.now-st.began) * time.Millisecond
	p.Jitter = 0
	n := max(int(st.tries), 1) // 0: none has counted
	wait, cause := p.Next(n, elapsed, err)
	if cause != "" { // permanent, and yet tried again
		wait, _ = p.Next(n, elapsed, errNoAnswer)
	}
	h := hash(m.in.id, m.p.steps[i].name, fmt.Sprint(m.undoing(), st.attempt))
	spread := time.Duration(part * float64(wait))
	shift := time.Duration((float64(h>>11)/(1<<53)*2 - 1) * float64(spread))
	type asks interface {
		error
		RetryAfter() time.Duration
	}
	if _, asked := errors.AsType[asks](err); asked {
		return wait + max(shift, -shift) // never earlier than asked
	}
	if wait += shift; p.Max > 0 {
		wait = min(wait, p.Max)
	}
	if p.Within > 0 {
		wait = min(wait, p.Within-elapsed)
	}
	return wait
}

// deadlineOver ends the stage in hand: what is out may be done.
func (m *machine) deadlineOver() {
	m.in.deadline = 0
	m.note(moveDeadline, -1, 0, "")
	m.fail(m.firstInHand(), fmt.Sprintf("the saga's deadline of %v is over", m.p.deadline))
	m.cutShort()
}

// firstInHand is the first step that is in hand, -1 for none.
func (m *machine) firstInHand() int {
	for _, i := range m.stepsInHand() {
		if m.inHand(i, m.undoing()) {
			return i
		}
	}
	return -1
}

// cutShort ends the steps in hand without waiting for what is out. Only a pivot
// that may be done, and cannot be undone, is waited for.
func (m *machine) cutShort() {
	for _, i := range m.stepsInHand() {
		st := &m.in.steps[i]
		if st.status != stepDoing && st.status != stepBetween {
			continue
		}
		m.haunt(i)
		if i == m.p.pivot && !m.p.steps[i].undoes() && (st.status == stepDoing || st.doubt) {
			continue
		}
		st.doubt = st.doubt || st.status == stepDoing
		m.notDone(i)
	}
}
