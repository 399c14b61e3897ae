package crashlab

import (
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// undoing: what is undone is what was done, or may have been; and of a saga that
// is undone nothing is left.
func (c *sagaChecker) undoing(s *sagaSeen, end *SagaRecord) {
	for _, step := range SagaSteps() {
		do, undo := sagaOp{step.Name, false}, sagaOp{step.Name, true}
		did, undid := s.deeds[do], s.deeds[undo]
		switch {
		case end.Phase == donePhase && len(undid)+len(s.commands[undo]) > 0:
			c.find("undone", "saga %s is done, and %s was undone: %d effects, %d attempts", s.id, step.Name, len(undid), len(s.commands[undo]))
		case step.After && len(undid)+len(s.commands[undo]) > 0:
			c.find("pivot", "saga %s: %s, which comes after the pivot, was undone", s.id, step.Name)
		case step.Kind == EmitStep && len(undid) == 0 && c.contradicted(s, end):
			// It said that it had not done it.
		case end.Phase == undonePhase && len(did) > 0 && len(undid) == 0:
			c.find("kept", "saga %s is undone, and %s was done at %s and not undone: %s", s.id, step.Name, place(did[0].r), story(end))
		case step.Kind == LocalStep && len(did) == 0 && !c.log.Calm:
			// Before a crash an attempt may have been begun that nothing tells of.
		case len(did) == 0 && len(undid) > 0 && (step.Kind == CallStep || !s.doubted(step, end)):
			c.find("undone", "saga %s: %s was undone at %s, and had not been done", s.id, step.Name, place(undid[0].r))
		case step.Loose && !c.log.Calm: // it may be done once more by who was thrown out meanwhile
		case len(did) > 0 && len(undid) > 0 && did[len(did)-1].r.Offset > undid[0].r.Offset:
			c.find("late", "saga %s: %s was done at %s, after it was undone at %s", s.id, step.Name, place(did[len(did)-1].r), place(undid[0].r))
		}
		if len(s.commands[undo]) > 0 && len(did) == 0 && s.settledNot(step, end) {
			c.find("undone", "saga %s: it was asked to undo %s, which was known not to be done: %s", s.id, step.Name, story(end))
		}
	}
}

// settledNot reports whether the saga must have known that a step was not done:
// all attempts were answered, with a no, and none was given up before.
func (s *sagaSeen) settledNot(step SagaStep, end *SagaRecord) bool {
	if step.Kind != CallStep {
		return false
	}
	op := sagaOp{step.Name, false}
	for _, cmd := range s.commands[op] {
		said, ok := s.said[op][cmd.Attempt]
		if !ok || !said.Failed {
			return false
		}
	}
	return !s.doubted(step, end)
}

// doubted reports whether the saga may not have known whether a step was done:
// of a local one a failure does not tell.
func (s *sagaSeen) doubted(step SagaStep, end *SagaRecord) bool {
	return !end.whole() || slices.ContainsFunc(end.History, func(m SagaMove) bool {
		return m.What == "deadline" || m.Step == step.Name && (m.What == "timed out" || m.What == "failed" && step.Kind == LocalStep)
	})
}

// inOrder: stages are done one after the other, and undone in reverse. Of what
// may be there twice the first counts.
func (c *sagaChecker) inOrder(s *sagaSeen) {
	first := func(step SagaStep, undo bool) *kgo.Record {
		if deeds := s.deeds[sagaOp{step.Name, undo}]; len(deeds) > 0 {
			return deeds[0].r
		}
		return nil
	}
	for _, early := range SagaSteps() {
		for _, late := range SagaSteps() {
			if early.Stage >= late.Stage || early.Kind == CallStep && early.Loose {
				continue // its effect and its answer are not one transaction
			}
			did, undid := first(early, false), first(early, true)
			lateDid, lateUndid := first(late, false), first(late, true)
			if late.Kind == EmitStep && lateUndid != nil {
				lateDid, lateUndid = nil, nil // nobody says that it was undone: it is when that is sent
			}
			if did != nil && lateDid != nil && lateDid.Offset < did.Offset {
				c.find("order", "saga %s: %s was done at %s, before %s at %s", s.id, late.Name, place(lateDid), early.Name, place(did))
			}
			for _, l := range []*kgo.Record{lateDid, lateUndid} {
				if undid != nil && l != nil && l.Offset > undid.Offset {
					c.find("order", "saga %s: %s was undone at %s, before %v at %s", s.id, early.Name, place(undid), sagaOp{late.Name, l == lateUndid}, place(l))
				}
			}
		}
	}
}

// state: the record says of each step what its effect says.
func (c *sagaChecker) state(s *sagaSeen, end *SagaRecord) {
	if end.State.N != s.N {
		c.find("state", "saga %s has the state of saga %d", s.id, end.State.N)
	}
	for _, step := range SagaSteps() {
		for _, undo := range []bool{false, true} {
			op := sagaOp{step.Name, undo}
			got, deeds := end.State.Done[step.Name], s.deeds[op]
			if undo {
				got = end.State.Undone[step.Name]
			}
			switch {
			case len(got) > 1:
				c.find("state", "saga %s has taken in %d answers to %v: %v", s.id, len(got), op, got)
			case len(got) == 1 && !slices.ContainsFunc(deeds, func(d deedAt) bool { return d.Token == got[0] }):
				c.find("state", "saga %s has taken in %q as the answer to %v, which was done as: %s", s.id, got[0], op, deedTexts(deeds))
			case len(got) == 0 && len(deeds) > 0 && !undo && end.Phase == donePhase:
				c.find("state", "saga %s is done, and has not taken in the answer to %v", s.id, op)
			}
		}
	}
}

// wait is how long the saga waits at least after its n-th attempt that failed.
func (s *sagaSeen) wait(n int) time.Duration {
	if s.Gated {
		return 0 // what is held by a gate asks again when that opens
	}
	return waitAfter(n)
}

// times: no attempt before its time, and none is given up before its time.
func (c *sagaChecker) times(s *sagaSeen) {
	for op, commands := range s.commands {
		if step, _ := stepNamed(op.step); step.Kind == EmitStep {
			continue
		}
		sorted := slices.SortedFunc(slices.Values(commands), func(a, b Command) int { return a.Attempt - b.Attempt })
		for i := 1; i < len(sorted); i++ {
			before, after := sorted[i-1], sorted[i]
			if after.Attempt != before.Attempt+1 {
				continue // told by once
			}
			free := before.Begun.Add(sagaTimeout)
			if said, ok := s.said[op][before.Attempt]; ok && said.Failed && said.At.Before(free) {
				free = said.At
			}
			if wait := s.wait(before.Attempt); after.Begun.Before(free.Add(wait - time.Millisecond)) {
				c.find("early", "saga %s: attempt %d at %v began at %s, in place of %s", s.id, after.Attempt, op, clock(after.Begun), clock(free.Add(wait)))
			}
		}
	}
	if len(s.records) == 0 {
		return
	}
	last := &s.records[len(s.records)-1]
	if end := s.end(); end != nil {
		last = end
	}
	c.moves(s, last)
}

// moves: the same, by what the saga itself says.
func (c *sagaChecker) moves(s *sagaSeen, r *SagaRecord) {
	type try struct {
		sagaOp
		attempt int
	}
	sent, free := map[try]time.Time{}, map[try]time.Time{}
	undoes := map[string]bool{}
	for _, m := range r.History {
		this := try{sagaOp{m.Step, undoes[m.Step]}, m.Attempt}
		step, _ := stepNamed(m.Step)
		switch m.What {
		case "sent", "undoing":
			undoes[m.Step] = m.What == "undoing"
			this.undo = undoes[m.Step]
			sent[this] = m.At
			if from, ok := free[try{this.sagaOp, m.Attempt - 1}]; ok && m.At.Before(from.Add(s.wait(m.Attempt-1))) {
				c.find("early", "saga %s: attempt %d at %v is of %s, %v after the one before had failed: %s", s.id, m.Attempt, this.sagaOp, clock(m.At), m.At.Sub(from), story(r))
			}
		case "failed", "undo failed", "timed out":
			free[this] = m.At
			gaveUp := m.What == "timed out" || m.What == "undo failed" && strings.HasPrefix(m.Note, "no answer")
			if began, ok := sent[this]; ok && gaveUp && step.Kind != LocalStep && m.At.Before(began.Add(sagaTimeout)) {
				c.find("early", "saga %s: attempt %d at %v was given up after %v: %s", s.id, m.Attempt, this.sagaOp, m.At.Sub(began), story(r))
			}
		case "deadline":
			if m.At.Before(r.Began.Add(s.Deadline)) {
				c.find("early", "saga %s: its deadline came after %v: %s", s.id, m.At.Sub(r.Began), story(r))
			}
		}
	}
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }
