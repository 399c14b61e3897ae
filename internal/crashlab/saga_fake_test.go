package crashlab

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/header"
)

// fakeRun writes the log of a run in which nothing goes wrong but what scripts
// say: what an engine and participants leave behind that do all as they should.
type fakeRun struct {
	log     SagaLog
	offsets map[string]int64
}

// goodSagas is the log of a run of n sagas.
func goodSagas(seed uint64, n int) SagaLog {
	f := &fakeRun{log: SagaLog{Seed: seed, Calm: true}, offsets: map[string]int64{}}
	for i := range n {
		f.log.Started = append(f.log.Started, i)
		f.saga(ScriptOf(seed, i))
	}
	return f.log
}

func (f *fakeRun) add(to *[]*kgo.Record, r *kgo.Record) {
	r.Offset = f.offsets[r.Topic]
	f.offsets[r.Topic]++
	*to = append(*to, r)
}

// fakeSaga is one of them.
type fakeSaga struct {
	*fakeRun
	Script
	id      string
	now     time.Time
	history []SagaMove
	state   SagaState
	did     map[sagaOp]string // tokens
}

func (f *fakeRun) saga(script Script) {
	s := &fakeSaga{fakeRun: f, Script: script, id: SagaID(script.N), now: time.UnixMilli(1e12), state: SagaState{N: script.N, Skip: script.Skip}, did: map[sagaOp]string{}}
	began := s.now
	s.record("running", began)
	phase, last := donePhase, -1
	steps := SagaSteps()
	var undo []SagaStep
	for i, step := range steps {
		if !s.Does(step) {
			s.move("skipped", step.Name, 0)
			continue
		}
		if phase == undonePhase && (i == 0 || steps[last].Stage != step.Stage) {
			break
		}
		last = i
		switch done, unknown := s.step(step); {
		case done, unknown:
			undo = append(undo, step)
			if !done {
				phase = undonePhase
			}
		default:
			phase = undonePhase
		}
		if s.Deadline > 0 && s.now.After(began.Add(s.Deadline)) && phase == donePhase && !step.After && !step.Pivot {
			s.move("deadline", "", 0)
			phase = undonePhase
		}
	}
	if phase == undonePhase {
		s.record("undoing", began)
		for i := len(undo) - 1; i >= 0; i-- {
			s.undo(undo[i])
		}
	}
	s.move("ended", "", 0)
	s.record(phase, began)
}

func (s *fakeSaga) move(what, step string, attempt int) {
	s.history = append(s.history, SagaMove{At: s.now, What: what, Step: step, Attempt: attempt})
}

func (s *fakeSaga) record(phase string, began time.Time) {
	b, _ := json.Marshal(s.state)
	r := SagaRecord{
		At: fmt.Sprint("state/0/", len(s.log.States)), ID: s.id, Phase: phase, Ended: phase == donePhase || phase == undonePhase,
		Began: began, History: append([]SagaMove(nil), s.history...), Moves: uint64(len(s.history)),
	}
	_ = json.Unmarshal(b, &r.State)
	if r.Moves == 0 {
		r.Moves, r.History = 1, []SagaMove{{At: began, What: "started"}}
		s.history = r.History
	}
	s.log.States = append(s.log.States, r)
}

// send sends an attempt.
func (s *fakeSaga) send(op sagaOp, attempt int) {
	what := "sent"
	if op.undo {
		what = "undoing"
	}
	s.move(what, op.step, attempt)
	step, _ := stepNamed(op.step)
	r := &kgo.Record{Topic: "lab." + op.step}
	switch step.Kind {
	case LocalStep:
		return
	case EmitStep:
		r.Value, _ = json.Marshal(Bill{ID: s.id, Cancel: op.undo})
	case CallStep:
		direction := "d"
		if op.undo {
			direction = "u"
		}
		id := base64.RawURLEncoding.EncodeToString([]byte(s.id)) + "." + op.step + "." + direction + "." + strconv.Itoa(attempt) + ".0"
		header.Add(r, header.CorrelationID, id)
		header.AddTime(r, header.Deadline, s.now.Add(sagaTimeout))
	}
	s.add(&s.log.Commands, r)
}

func (s *fakeSaga) deed(op sagaOp, attempt int, kind DeedKind, failed bool) {
	d := Deed{Kind: kind, Saga: s.id, Step: op.step, Undo: op.undo, Attempt: attempt, Key: s.id + op.String(), Process: "p1", At: s.now, Failed: failed}
	if kind == Did {
		d.Token = fmt.Sprint("p1#", len(s.log.Deeds))
		s.did[op] = d.Token
	}
	s.add(&s.log.Deeds, d.Record("lab.deeds"))
}

// step does a step.
func (s *fakeSaga) step(step SagaStep) (done, unknown bool) {
	op, tries := sagaOp{step.Name, false}, 0
	for attempt := 1; ; attempt++ {
		s.send(op, attempt)
		fails, reply := s.Do[step.Name].To(attempt)
		s.now = s.now.Add(time.Millisecond)
		answered := true
		switch {
		case fails || reply == Refuses:
			s.deed(op, attempt, Said, true)
			if reply == Refuses {
				s.move("rejected", step.Name, attempt)
				return false, unknown
			}
			s.move("failed", step.Name, attempt)
			answered = false
		default:
			if reply != Unheard && s.did[op] == "" {
				s.deed(op, attempt, Did, false)
			}
			s.deed(op, attempt, Said, false)
			if reply == Silent || reply == Unheard || reply == Late {
				s.now = s.now.Add(sagaTimeout)
				s.move("timed out", step.Name, attempt)
				answered, unknown = false, true
			}
		}
		if answered {
			s.state.apply(step.Name, false, s.did[op])
			s.move("done", step.Name, attempt)
			return true, false
		}
		tries++
		forever := step.After || step.Pivot && !s.PivotUndo && unknown
		if !forever && (tries >= sagaAttempts || unknown && !step.Idempotent) {
			return false, unknown
		}
		s.now = s.now.Add(waitAfter(tries))
	}
}

// undo undoes one.
func (s *fakeSaga) undo(step SagaStep) {
	op := sagaOp{step.Name, true}
	if step.Pivot && !s.PivotUndo {
		return
	}
	for attempt := 1; ; attempt++ {
		s.send(op, attempt)
		fails, reply := s.Undo[step.Name].To(attempt)
		s.now = s.now.Add(time.Millisecond)
		if !fails && reply != Unheard && s.did[op] == "" && s.did[sagaOp{step.Name, false}] != "" {
			s.deed(op, attempt, Did, false)
		}
		switch {
		case fails:
			s.deed(op, attempt, Said, true)
			s.move("undo failed", step.Name, attempt)
		case reply == Silent || reply == Unheard || reply == Late:
			s.now = s.now.Add(sagaTimeout)
			s.move("undo failed", step.Name, attempt)
		default:
			if s.did[op] != "" && step.Kind != EmitStep {
				s.state.apply(step.Name, true, s.did[op])
			}
			s.move("undone", step.Name, attempt)
			return
		}
		s.now = s.now.Add(waitAfter(attempt))
	}
}
