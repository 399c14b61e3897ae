package saga

import (
	"time"
)

// due is when the instance wants a tick, in milliseconds since 1970, 0 never.
// It needs no Definition, so the owner can keep the timers of what it cannot
// run.
func (in *instance) due() int64 {
	if in.phase == 0 || in.phase.Ended() || in.orphan() {
		return 0
	}
	due := in.expires
	earlier := func(t int64) {
		if t > 0 && (due == 0 || t < due) {
			due = t
		}
	}
	if in.phase != Running && in.phase != Undoing && in.phase != Parked {
		return due
	}
	if in.doing() == Running {
		earlier(in.deadline)
	}
	for _, s := range in.steps {
		switch s.status {
		case stepDoing, stepUndoing:
			earlier(s.due)
		case stepBetween, stepUndoWait:
			if !in.held() {
				earlier(s.due)
			}
		default:
		}
		if !in.stuck {
			earlier(s.stuckAt)
		}
	}
	return due
}

// millis rounds up, so that nothing is early.
func millis(t time.Time) int64 {
	ms := t.UnixMilli()
	if t.Nanosecond()%int(time.Millisecond) != 0 {
		ms++
	}
	return ms
}

// over reports whether a time has come.
func (m *machine) over(t int64) bool { return t > 0 && t <= m.now }

// tick does all that is due.
func (m *machine) tick() error {
	m.expire()
	in := m.in
	if in.phase != Running && in.phase != Undoing && in.phase != Parked {
		return nil
	}
	if in.phase == Running && m.over(in.deadline) {
		m.deadlineOver()
	}
	for i := range in.steps {
		if !m.over(in.steps[i].due) {
			continue
		}
		if err := m.stepDue(i); err != nil {
			return err
		}
	}
	if err := m.advance(); err != nil {
		return err
	}
	m.stuck()
	return nil
}

func (m *machine) stepDue(i int) error {
	st := &m.in.steps[i]
	switch st.status {
	case stepDoing, stepUndoing:
		switch {
		case m.p.steps[i].act(m.undoing()).kind != actLocal:
			m.timedOut(i)
		case m.in.held():
			st.due = 0 // whoever ends that has it made again
		default:
			m.runLocal(i, false)
		}
	case stepBetween, stepUndoWait:
		if m.in.failing && !m.onTheEdge(i) {
			return nil // what came before it was the end of the stage
		}
		return m.begin(i)
	default:
	}
	return nil
}

// stuck tells the operators, once.
func (m *machine) stuck() {
	if m.in.stuck {
		return
	}
	for i, st := range m.in.steps {
		if !m.over(st.stuckAt) {
			continue
		}
		m.in.stuck = true
		m.note(moveStuck, i, st.attempt, "")
		m.out = append(m.out, effect{kind: effectStuck, step: i, op: m.op(i), stuck: Stuck{
			ID: m.in.id, Step: m.p.steps[i].name,
			Since: time.UnixMilli(st.stuckAt).Add(-m.p.stuckAfter), Err: m.lastFailure(i),
		}})
		return
	}
}

// lastFailure is the text of the last attempt at a step that failed.
func (m *machine) lastFailure(step int) string {
	for i := len(m.in.history) - 1; i >= 0; i-- {
		t := m.in.history[i]
		if t.step != step {
			continue
		}
		switch t.what {
		case moveFailed, moveUndoFailed:
			return t.note
		case moveTimedOut:
			return errNoAnswer.Error()
		default:
		}
	}
	return ""
}
