package saga

import "github.com/wherry-go/wherry/internal/planted"

// stepsInHand are the steps of the stage in hand.
func (m *machine) stepsInHand() []int {
	if m.in.stage < 0 || m.in.stage >= len(m.p.stages) {
		return nil
	}
	return m.p.stages[m.in.stage].steps
}

// advance goes on as far as nothing is to be waited for. What led here is taken
// in, whatever comes of it.
func (m *machine) advance() error {
	for {
		if err := m.in.seal(m.p); err != nil {
			return err
		}
		m.keep()
		var on bool
		var err error
		switch m.in.phase {
		case Running:
			on, err = m.forward()
		case Undoing:
			on, err = m.backward()
		case Early, Queued, Parked, Quarantined, Done, Undone:
		}
		if err != nil || !on {
			return err
		}
	}
}

// forward begins the stage in hand, and leaves it when it is done; on says that
// there is more to do at once.
func (m *machine) forward() (on bool, err error) {
	in := m.in
	if in.stage >= len(m.p.stages) {
		m.end(Done)
		return false, nil
	}
	if in.failing {
		return m.turn(), nil
	}
	if err := m.beginStage(); err != nil || in.phase != Running {
		return false, err
	}
	if in.failing {
		return true, nil
	}
	settled := true
	for _, i := range m.stepsInHand() {
		switch in.steps[i].status {
		case stepDone, stepSkipped:
		case stepRejected: // another one than that which was parked for
			m.park(i, rejectedLater)
			return false, nil
		default:
			settled = false
		}
	}
	if !settled {
		return false, nil
	}
	in.stage++
	if m.past() {
		in.deadline = 0
	}
	return true, nil
}

const rejectedLater = "rejected, after the pivot"

// beginStage begins the steps of the stage in hand that have not begun.
func (m *machine) beginStage() error {
	if m.in.held() {
		return nil
	}
	var begin []int
	st := m.p.stages[m.in.stage]
	for _, i := range st.steps {
		if m.in.steps[i].status == stepWaiting {
			begin = append(begin, i)
		}
	}
	if len(begin) == 0 {
		return nil
	}
	yes, err := m.asks(st.when)
	if err != nil {
		return err
	}
	for n, i := range begin {
		is := yes
		if yes {
			if is, err = m.asks(m.p.steps[i].when); err != nil {
				return err
			}
		}
		if !is {
			m.settle(i, stepSkipped)
			m.note(moveSkipped, i, 0, "")
			begin[n] = -1
		}
	}
	for _, i := range begin {
		if i < 0 || m.in.failing {
			continue
		}
		if err := m.begin(i); err != nil {
			return err
		}
	}
	return nil
}

// asks evaluates a condition, nil meaning yes.
func (m *machine) asks(when func(any) bool) (bool, error) {
	if when == nil {
		return true, nil
	}
	s, err := m.state()
	return err == nil && when(s), err
}

// turn waits until a stage that is failing has settled, and turns to undoing.
func (m *machine) turn() (on bool) {
	settled := true
	for _, i := range m.stepsInHand() {
		switch m.in.steps[i].status {
		case stepDoing:
			settled = false
		case stepBetween:
			if m.haunt(i); m.onTheEdge(i) {
				settled = false
			} else {
				m.notDone(i)
			}
		default:
		}
	}
	if !settled {
		return false
	}
	m.in.phase, m.in.failing, m.in.deadline = Undoing, false, 0
	for i := range m.in.steps { // what was perhaps done before a crash, see haunt
		if st := &m.in.steps[i]; st.status == stepWaiting && st.doubt {
			st.status, m.in.stage = stepUnknown, m.p.steps[i].stage
		}
	}
	return true
}

// backward undoes the stage in hand, and leaves it when it is undone.
func (m *machine) backward() (on bool, err error) {
	if m.in.stage < 0 {
		m.in.stage = 0
		m.end(Undone)
		return false, nil
	}
	settled := true
	for _, i := range m.stepsInHand() {
		switch {
		case m.toUndo(i):
			if err := m.begin(i); err != nil {
				return false, err
			}
			settled = settled && m.in.steps[i].status == stepUndone
		case m.inHand(i, true):
			settled = false
		}
	}
	if settled {
		m.in.stage--
	}
	return settled, nil
}

// toUndo reports whether a step has to be undone, and that has not begun.
func (m *machine) toUndo(i int) bool {
	s := m.in.steps[i].status
	if s == stepUnknown && planted.Is(planted.SkipUndo) {
		return false
	}
	return (s == stepDone || s == stepUnknown) && m.p.steps[i].undoes()
}
