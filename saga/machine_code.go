package saga

import (
	"fmt"
	"slices"
)

// orphan reports whether the saga is parked for want of code.
func (in *instance) orphan() bool { return in.phase == Parked && in.whyStep < 0 }

// withoutCode parks a saga of a version that has no code, and keeps what comes
// for it.
func (m *machine) withoutCode(i input) {
	in := m.in
	if in.phase == 0 || in.phase.Ended() && i.kind != inVerb {
		return
	}
	if i.kind == inVerb {
		switch {
		case i.verb.name == Purge:
			m.out = append(m.out, effect{kind: effectForget})
		case in.phase.Ended():
			m.refuse(i.verb, hasEnded(in.phase))
		default:
			m.refuse(i.verb, fmt.Sprintf("no code for version %d", in.version))
		}
		return
	}
	if !in.orphan() && in.phase != Quarantined {
		m.hold(Parked, -1, fmt.Sprintf("no code for version %d: register its Definition again, and resume", in.version))
	}
	in.haunted = in.haunted || m.e.again && in.doing() == Running
	if i.kind != inReply && i.kind != inEvent {
		return
	}
	w := newWaiting(i.record, m.now)
	if i.kind == inReply {
		w.step, w.undo, w.attempt = i.op.Step, i.op.Undo, int32(i.op.Attempt) //nolint:gosec // it was counted as one
	}
	if len(in.events) >= maxWaiting {
		m.out = append(m.out, effect{kind: effectExpire, event: w})
		return
	}
	in.events = append(slices.Clip(in.events), w)
	m.expiry()
}

// adopt goes on with a saga that has code again: first what came meanwhile.
func (m *machine) adopt() error {
	m.hauntAll()
	m.adopted = m.in.orphan()
	if m.adopted {
		m.in.release()
	} else if !slices.ContainsFunc(m.in.events, m.keptWithoutCode) {
		return nil
	}
	if err := m.feed(); err != nil {
		return err
	}
	m.reissue()
	return m.advance()
}

// hauntAll casts doubt, as haunt does, on the local steps in hand and on those after
// them that would not wait for a commit: whoever had code may have done them, and
// died before that was committed.
func (m *machine) hauntAll() {
	if !m.in.haunted {
		return
	}
	m.in.haunted = false
	if len(m.in.steps) == 0 || m.undoing() || m.in.stage >= len(m.p.stages) {
		return
	}
	for _, i := range m.p.stages[m.in.stage].steps {
		ps, st := &m.p.steps[i], &m.in.steps[i]
		open := st.status == stepWaiting || st.status == stepDoing || st.status == stepBetween
		st.doubt = st.doubt || open && ps.do.kind == actLocal && !ps.durable
	}
	m.hauntFrom(m.in.stage + 1)
}

// keptWithoutCode reports whether what waits is for a step in hand: a reply, or an
// event for a saga that was quarantined already, and so is no orphan.
func (m *machine) keptWithoutCode(w waiting) bool {
	if w.step != "" || m.in.phase != Quarantined {
		return w.step != ""
	}
	_, _, ok := m.awaitedBy(w)
	return ok
}

// feed takes in what was kept and is for a step in hand; what is for one that is
// to come waits on.
func (m *machine) feed() error {
	for _, w := range m.in.events {
		n := slices.IndexFunc(m.in.events, func(o waiting) bool { return o.hash() == w.hash() })
		if n < 0 {
			continue // a step that has just begun has had it
		}
		if _, _, ok := m.awaitedBy(w); w.step == "" && !ok {
			continue
		}
		m.drop(n)
		m.keep() // a fault of w takes w along, and nothing else
		var err error
		if w.step != "" {
			err = m.reply(input{kind: inReply, record: w.record(), op: Op{Step: w.step, Undo: w.undo, Attempt: int(w.attempt)}})
		} else {
			err = m.event(w)
		}
		if err == nil {
			err = m.in.seal(m.p)
		}
		if err != nil {
			return err
		}
		m.keep()
	}
	return nil
}
