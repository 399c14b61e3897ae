package saga

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/planted"
	"github.com/wherry-go/wherry/reqreply"
)

// undoing reports whether steps are being undone.
func (m *machine) undoing() bool { return m.in.doing() == Undoing }

// begin makes the next attempt at a step, in the direction of the phase, if it
// may begin now.
func (m *machine) begin(i int) error {
	st, ps, undo := &m.in.steps[i], &m.p.steps[i], m.undoing()
	if m.in.held() {
		return nil
	}
	if shut := m.shut(i); shut > 0 {
		m.haunt(i)
		m.wait(i, shut)
		st.began = 0
		m.patience(i)
		return nil
	}
	if undo && st.status != stepUndoing && st.status != stepUndoWait {
		*st = stepState{doubt: st.doubt}
	}
	st.attempt++
	if st.began == 0 {
		st.began = m.now
	}
	a, timeout := ps.act(undo), ps.attemptTimeout(undo)
	st.status, st.due = stepDoing, 0
	what := moveSent
	if undo {
		st.status, what = stepUndoing, moveUndoing
	}
	if timeout > 0 && !a.sendsOnly() {
		st.due = m.after(timeout)
	}
	m.note(what, i, st.attempt, "")
	switch a.kind {
	case actLocal:
		m.runLocal(i, undo || ps.durable)
		return nil
	case actCall, actEmit:
		if err := m.send(i, a); err != nil {
			return err
		}
		if a.sendsOnly() {
			m.done(i)
			return nil
		}
		return m.waitingFor(i)
	case actNone:
	}
	return fmt.Errorf("step %q has nothing to do", ps.name)
}

// runLocal has the attempt at a local step made. If it is lost, a tick does so
// again.
func (m *machine) runLocal(i int, durable bool) {
	if slices.ContainsFunc(m.out, func(e effect) bool { return e.kind == effectLocal && e.op == m.op(i) }) {
		return
	}
	timeout := m.p.steps[i].attemptTimeout(m.undoing())
	m.in.steps[i].due = m.after(max(timeout, defaultUndoTimeout))
	m.out = append(m.out, effect{kind: effectLocal, step: i, op: m.op(i), timeout: timeout, durable: durable})
}

// reissue has the attempts at local steps made that waited for the commit.
func (m *machine) reissue() {
	if m.in.held() || m.in.phase == 0 {
		return
	}
	for i := range m.in.steps {
		if m.isOut(i) && m.p.steps[i].act(m.undoing()).kind == actLocal {
			m.runLocal(i, false)
		}
	}
}

// isOut reports whether an attempt at a step is out.
func (m *machine) isOut(i int) bool {
	s := m.in.steps[i].status
	return s == stepDoing || s == stepUndoing
}

func (m *machine) op(i int) Op {
	st, undo := &m.in.steps[i], m.undoing()
	return Op{Saga: m.p.name, ID: m.in.id, Step: m.p.steps[i].name, Undo: undo, Done: undo && !st.doubt, Attempt: int(st.attempt)}
}

func (m *machine) send(i int, a act) error {
	if a.request == nil {
		return nil
	}
	s, err := m.state()
	if err != nil {
		return err
	}
	r, err := a.request(s)
	if err != nil {
		return fmt.Errorf("step %q: %w", m.p.steps[i].name, err)
	}
	if len(r.Key) == 0 {
		r.Key = []byte(m.in.id)
	}
	timeout := m.p.steps[i].attemptTimeout(m.undoing())
	if a.sendsOnly() {
		timeout = 0
	}
	m.out = append(m.out, effect{kind: effectSend, step: i, op: m.op(i), record: r, timeout: timeout})
	return nil
}

// open returns the step that an op is an attempt at, if it is in hand: an
// attempt is out, or the next one is to come.
func (m *machine) open(op Op) (i int, ok bool) {
	i = m.p.index(op.Step)
	return i, i >= 0 && m.inHand(i, op.Undo)
}

func (m *machine) inHand(i int, undo bool) bool {
	switch m.in.steps[i].status {
	case stepDoing, stepBetween:
		return !undo
	case stepUndoing, stepUndoWait:
		return undo
	case stepWaiting, stepDone, stepSkipped, stepRejected, stepUnknown, stepUndone:
	}
	return false
}

// current reports whether an op is the attempt that is out.
func (m *machine) current(i int, op Op) bool {
	return m.isOut(i) && int(m.in.steps[i].attempt) == op.Attempt
}

// reply takes in the answer to a call.
func (m *machine) reply(i input) error {
	step, ok := m.open(i.op)
	if planted.Is(planted.DoubledReply) && step >= 0 && m.in.steps[step].status == stepDone {
		return m.change(func(s any) error { return m.p.steps[step].do.reply(s, i.record) })
	}
	if !ok || m.p.steps[step].act(i.op.Undo).kind != actCall {
		m.late(step, i.op, "a reply")
		return nil
	}
	a := m.p.steps[step].act(i.op.Undo)
	var answer *reqreply.Error
	err := m.change(func(s any) error {
		err := a.reply(s, i.record)
		if errors.As(err, &answer) {
			return nil
		}
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("step %q: %w", m.p.steps[step].name, err)
	case answer == nil:
		m.done(step)
	case !m.current(step, i.op):
		m.late(step, i.op, "a reply: "+answer.Error())
		return nil
	case a.rejects(answer):
		m.rejected(step, answer.Error())
	default:
		m.failed(step, passing{answer: answer})
	}
	return m.advance()
}

// local takes in how a local step ended.
func (m *machine) local(i input) error {
	step, ok := m.open(i.op)
	if !ok || m.p.steps[step].act(i.op.Undo).kind != actLocal || i.err != nil && !m.current(step, i.op) {
		m.late(step, i.op, "a result")
		return nil
	}
	if e, ok := errors.AsType[*wherry.RecordError](i.err); ok && e.Cause == wherry.CausePanic {
		return i.err
	}
	if i.err != nil {
		m.haunt(step)
	}
	switch {
	case i.err == nil:
		if apply := m.p.steps[step].act(i.op.Undo).apply; apply != nil {
			if err := m.change(func(s any) error { apply(s, i.result); return nil }); err != nil {
				return err
			}
		}
		m.done(step)
	case errors.Is(i.err, context.DeadlineExceeded):
		m.timedOut(step)
	case errors.Is(i.err, wherry.ErrPermanent):
		m.rejected(step, i.err.Error())
	default:
		m.failed(step, i.err)
	}
	return m.advance()
}

// late notes what came for a step that is over, or for an attempt that is.
func (m *machine) late(step int, op Op, what string) {
	if m.in.phase.Ended() || m.in.phase == Early {
		return
	}
	if step < 0 {
		what += " for step " + op.Step
	}
	if op.Undo {
		what += " to undo"
	}
	m.ignore(step, int32(op.Attempt), what) //nolint:gosec // it was counted as one
}

// passing is an answer that is a failure: what it says is kept from retry,
// which takes all answers for permanent.
type passing struct{ answer *reqreply.Error }

func (p passing) Error() string { return p.answer.Error() }

func (p passing) As(target any) bool {
	t, ok := target.(**reqreply.Error)
	if ok {
		*t = p.answer
	}
	return ok
}

// record is a waiting event, or reply, as it was.
func (w waiting) record() *kgo.Record {
	r := &kgo.Record{Topic: w.topic, Key: w.key, Value: w.value, Partition: w.partition, Offset: w.offset}
	for _, h := range w.headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.key, Value: []byte(h.value)})
	}
	return r
}

func newWaiting(r *kgo.Record, came int64) waiting {
	w := waiting{topic: r.Topic, key: r.Key, value: r.Value, came: came, partition: r.Partition, offset: r.Offset}
	for _, h := range r.Headers {
		w.headers = append(w.headers, pair{h.Key, string(h.Value)})
	}
	return w
}
