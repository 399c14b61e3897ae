package saga

import (
	"fmt"
	"slices"
	"strings"
)

// verb does what an operator asks for, once.
func (m *machine) verb(v verb) error {
	in := m.in
	switch {
	case m.knows(v.applied()):
		if !in.phase.Ended() {
			m.ignore(-1, 0, string(v.name)+": again")
		}
		return nil
	case m.knows(v.turnedDown()):
		m.answer(v, "it was refused before, and is not applied later: ask anew, with another id")
		return nil
	case in.phase.Ended() && v.name != Purge:
		m.refuse(v, hasEnded(in.phase))
		return nil
	}
	if v.name == Purge {
		m.note(moveVerb, -1, 0, v.text())
		m.out = append(m.out, effect{kind: effectForget})
		return nil
	}
	if why := m.forbids(v); why != "" {
		m.refuse(v, why)
		return nil
	}
	step := -1
	if v.name == Retry || v.name == Skip || v.name == Complete {
		var why string
		if step, why = m.meant(v); why != "" {
			m.refuse(v, why)
			return nil
		}
	}
	if v.state != nil && v.name == Complete {
		s, bad := m.p.decode(v.state)
		if bad != nil {
			m.refuse(v, "the new state: "+bad.Error())
			return nil //nolint:nilerr // that is the answer
		}
		in.state, in.dirty = s, true
	}
	m.rememberVerb(v, v.applied())
	m.note(moveVerb, step, 0, v.text())
	switch v.name {
	case Pause:
		in.paused = true
		return nil
	case Resume:
		return m.resume()
	case Cancel, Undo:
		return m.cancel(v)
	case Retry:
		return m.retry(step)
	default:
		return m.settleBy(v.name, step)
	}
}

func (v verb) text() string {
	s := string(v.name)
	if v.actor != "" {
		s += " by " + v.actor
	}
	if v.reason != "" {
		s += ": " + v.reason
	}
	return s
}

// applied and turnedDown are what is remembered of a verb.
func (v verb) applied() uint64    { return hash("verb", v.id) }
func (v verb) turnedDown() uint64 { return hash("refused verb", v.id) }

func (m *machine) knows(h uint64) bool { return slices.Contains(m.in.seen, h) }

// rememberVerb remembers what became of a verb; one without an id is no other's
// repetition.
func (m *machine) rememberVerb(v verb, h uint64) {
	if v.id != "" {
		m.remember(h)
	}
}

// answer says why a verb is not applied.
func (m *machine) answer(v verb, why string) {
	m.out = append(m.out, effect{kind: effectRefuse, refused: fmt.Sprintf("%s: %s", v.name, why)})
}

// refuse does not apply a verb, and remembers that.
func (m *machine) refuse(v verb, why string) {
	m.answer(v, why)
	if m.in.phase == 0 {
		return
	}
	m.rememberVerb(v, v.turnedDown())
	if m.in.phase != Early && !m.in.phase.Ended() {
		m.note(moveVerb, -1, 0, v.text()+" (refused: "+why+")")
	}
}

// forbids says why a verb makes no sense now, "" if it does.
func (m *machine) forbids(v verb) string {
	in := m.in
	if in.phase == Early {
		return "the saga has not started"
	}
	switch v.name {
	case Cancel, Undo:
		edge := m.p.pivot
		switch {
		case in.doing() == Undoing:
			return "it is being undone already"
		case m.past():
			return "the pivot is done, the saga can only go forward"
		case v.name == Cancel && in.failing:
			return "it is going to be undone already"
		case v.name == Undo && edge >= 0 && !m.p.steps[edge].undoes() && (in.steps[edge].status == stepDoing || m.onTheEdge(edge)):
			return fmt.Sprintf("the pivot %q may be done, and cannot be undone", m.p.steps[edge].name)
		}
	case Pause:
		if in.paused {
			return "it is paused already"
		}
	case Resume:
		if in.phase == Parked && !in.paused {
			return fmt.Sprintf("step %q was rejected after the pivot: retry, skip or complete it", m.p.steps[in.whyStep].name)
		}
		if !in.paused && !m.adopted && in.phase != Quarantined {
			return "it is not paused"
		}
	case Retry, Skip, Complete:
		if in.doing() == Queued {
			return "no step is in hand: it is queued"
		}
		if v.name == Retry && in.failing && !m.onTheEdge(m.p.pivot) {
			return "it is going to be undone"
		}
	case Purge:
	default:
		return "there is no such verb"
	}
	return ""
}

func hasEnded(p Phase) string { return "the saga has ended, it is " + p.String() }

// meant is the step that a verb is about.
func (m *machine) meant(v verb) (step int, why string) {
	if v.step != "" && m.p.index(v.step) < 0 {
		return -1, fmt.Sprintf("there is no step %q", v.step)
	}
	var names []string
	for _, i := range m.stepsInHand() {
		if m.settleable(i) {
			step = i
			names = append(names, m.p.steps[i].name)
			if v.step == m.p.steps[i].name {
				return i, ""
			}
		}
	}
	switch {
	case v.step != "":
		return -1, fmt.Sprintf("step %q is not in hand", v.step)
	case len(names) == 0:
		return -1, "no step is in hand"
	case len(names) > 1:
		return -1, "several steps are in hand, name one: " + strings.Join(names, ", ")
	}
	return step, ""
}

// settleable reports whether a step of the stage in hand is in hand for an
// operator.
func (m *machine) settleable(i int) bool {
	s := m.in.steps[i].status
	if m.undoing() {
		return m.inHand(i, true) || m.toUndo(i)
	}
	return m.inHand(i, false) || s == stepWaiting && !m.in.failing || s == stepRejected && m.p.beyond(i)
}

// settleBy is what an operator says of a step.
func (m *machine) settleBy(name VerbName, i int) error {
	m.lift()
	if name == Complete {
		m.done(i)
	} else {
		m.settle(i, stepSkipped)
		m.note(moveSkipped, i, 0, "")
	}
	return m.goOn()
}

// lift ends what an operator was waited for.
func (m *machine) lift() {
	if m.in.phase == Parked || m.in.phase == Quarantined {
		m.in.release()
		m.lifted = true
	}
}

// goOn is advance, after a lift: what is local and was not done meanwhile is
// done now.
func (m *machine) goOn() error {
	if m.lifted {
		m.reissue()
	}
	return m.advance()
}

// resume ends a pause and a quarantine.
func (m *machine) resume() error {
	m.in.paused = false
	if m.in.phase == Quarantined {
		m.lift()
	}
	if err := m.feed(); err != nil {
		return err
	}
	m.reissue()
	return m.tick()
}

// cancel has the saga undone.
func (m *machine) cancel(v verb) error {
	in := m.in
	if in.doing() == Queued {
		m.lift()
		in.whyStep, in.why = -1, clip(v.text(), maxWhy)
		m.end(Undone)
		return nil
	}
	m.lift()
	m.fail(m.firstInHand(), v.text())
	if v.name == Undo {
		m.cutShort()
	}
	return m.goOn()
}

// retry makes an attempt at once.
func (m *machine) retry(i int) error {
	st := &m.in.steps[i]
	m.lift()
	if st.status == stepDoing {
		st.doubt = true // of the attempt that is out
	}
	st.tries, st.began = 0, 0
	switch {
	case st.status == stepRejected:
		m.settle(i, stepBetween)
	case m.inHand(i, m.undoing()):
		m.settle(i, st.status)
		m.wait(i, m.now)
	}
	if m.inHand(i, m.undoing()) {
		st.due = m.now
		if err := m.begin(i); err != nil {
			return err
		}
	}
	return m.goOn()
}
