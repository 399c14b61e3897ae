package crashlab

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// sagaOp is a step of a saga, or its undoing.
type sagaOp struct {
	step string
	undo bool
}

func (o sagaOp) String() string {
	if o.undo {
		return "the undoing of " + o.step
	}
	return o.step
}

// deedAt is a deed and where it is.
type deedAt struct {
	Deed
	r *kgo.Record
}

// sagaSeen is one saga, with all that was seen of it.
type sagaSeen struct {
	Script
	id       string
	started  bool
	deeds    map[sagaOp][]deedAt
	said     map[sagaOp]map[int]Deed // by attempt: the first
	commands map[sagaOp][]Command
	records  []SagaRecord
}

// sagaChecker is one run of CheckSagas.
type sagaChecker struct {
	log      SagaLog
	sagas    map[string]*sagaSeen
	findings []Finding
}

func (c *sagaChecker) find(kind, format string, args ...any) {
	c.findings = append(c.findings, Finding{kind, fmt.Sprintf(format, args...)})
}

// CheckSagas compares what a run of sagas left behind with what may come of its
// scripts, and returns all that is wrong: nil is the only good answer. It is
// pure.
func CheckSagas(log SagaLog) []Finding {
	c := &sagaChecker{log: log, sagas: map[string]*sagaSeen{}}
	c.enter()
	for _, id := range slices.Sorted(maps.Keys(c.sagas)) {
		s := c.sagas[id]
		if !s.started {
			c.find("foreign", "there is something of saga %s, which was not started", id)
			continue
		}
		c.once(s)
		c.life(s)
		c.times(s)
		if end := s.end(); end != nil {
			c.ending(s, end)
			c.undoing(s, end)
			c.inOrder(s)
			c.state(s, end)
		}
	}
	return c.findings
}

// of returns the saga with this id.
func (c *sagaChecker) of(id string) *sagaSeen {
	s := c.sagas[id]
	if s == nil {
		n := sagaNumber(id)
		s = &sagaSeen{
			Script: ScriptOf(c.log.Seed, n), id: id,
			deeds: map[sagaOp][]deedAt{}, said: map[sagaOp]map[int]Deed{}, commands: map[sagaOp][]Command{},
		}
		c.sagas[id] = s
	}
	return s
}

// enter sorts what was seen by saga.
func (c *sagaChecker) enter() {
	for _, n := range c.log.Started {
		c.of(SagaID(n)).started = true
	}
	partition := map[string]int32{}
	for _, r := range c.log.Deeds {
		var d Deed
		if err := json.Unmarshal(r.Value, &d); err != nil || d.Saga == "" {
			c.find("lab", "%s is no deed: %v", place(r), err)
			continue
		}
		if p, ok := partition[d.Saga]; ok && p != r.Partition {
			c.find("lab", "the deeds of %s are in partitions %d and %d", d.Saga, p, r.Partition)
		}
		partition[d.Saga] = r.Partition
		s, op := c.of(d.Saga), sagaOp{d.Step, d.Undo}
		if d.Kind == Said {
			if s.said[op] == nil {
				s.said[op] = map[int]Deed{}
			}
			if _, before := s.said[op][d.Attempt]; !before {
				s.said[op][d.Attempt] = d
			}
			continue
		}
		s.deeds[op] = append(s.deeds[op], deedAt{d, r})
	}
	for _, r := range c.log.Commands {
		cmd, err := readCommand(r, stepOfTopic(r.Topic))
		if err != nil {
			c.find("lab", "%s is no command: %v", place(r), err)
			continue
		}
		s, op := c.of(cmd.Saga), sagaOp{cmd.Step, cmd.Undo}
		s.commands[op] = append(s.commands[op], cmd)
	}
	for _, r := range c.log.States {
		s := c.of(r.ID)
		s.records = append(s.records, r)
	}
}

// stepOfTopic returns the step whose commands a topic has.
func stepOfTopic(topic string) string { return topic[strings.LastIndexByte(topic, '.')+1:] }

// end returns the record that says how the saga ended, nil if none does.
func (s *sagaSeen) end() *SagaRecord {
	for i := range s.records {
		if s.records[i].Ended {
			return &s.records[i]
		}
	}
	return nil
}

// once: no effect, and no attempt, is there twice.
func (c *sagaChecker) once(s *sagaSeen) {
	for op, deeds := range s.deeds {
		step, known := stepNamed(op.step)
		if !known {
			c.find("foreign", "saga %s has a deed of step %q", s.id, op.step)
			continue
		}
		keys := map[string]bool{}
		for _, d := range deeds {
			if d.Failed {
				c.find("half", "saga %s: an effect of attempt %d at %v, which failed, is at %s", s.id, d.Attempt, op, place(d.r))
			}
			keys[d.Key] = true
		}
		if len(keys) > 1 {
			c.find("key", "saga %s: %v was done under the keys %v", s.id, op, slices.Sorted(maps.Keys(keys)))
		}
		if len(deeds) > 1 && !step.Loose {
			c.find("doubled", "saga %s: %v was done %d times: %s", s.id, op, len(deeds), deedTexts(deeds))
		}
	}
	for op, commands := range s.commands {
		step, _ := stepNamed(op.step)
		seen := map[int]Command{}
		for _, cmd := range commands {
			if before, ok := seen[cmd.Attempt]; ok {
				c.find("sent twice", "saga %s: attempt %d at %v was sent at %s and %s", s.id, cmd.Attempt, op, before.At, cmd.At)
			}
			seen[cmd.Attempt] = cmd
		}
		if step.Kind == EmitStep {
			continue // an event does not say which attempt it is
		}
		for n := 1; n <= len(seen); n++ {
			if _, ok := seen[n]; !ok {
				c.find("attempts", "saga %s: of %d attempts at %v there is no number %d", s.id, len(seen), op, n)
			}
		}
	}
}

func deedTexts(deeds []deedAt) string {
	texts := make([]string, len(deeds))
	for i, d := range deeds {
		texts[i] = fmt.Sprintf("attempt %d by %s at %s %s", d.Attempt, d.Process, place(d.r), d.At.UTC().Format("15:04:05.000"))
	}
	return strings.Join(texts, ", ")
}

// life: a saga that was started ends, once, and never goes back.
func (c *sagaChecker) life(s *sagaSeen) {
	if len(s.records) == 0 {
		c.find("lost", "saga %s was started, and there is nothing of it", s.id)
		return
	}
	var before *SagaRecord
	for i := range s.records {
		r := &s.records[i]
		switch {
		case r.Phase == "parked" || r.Phase == "quarantined":
			if before == nil || before.Phase != r.Phase {
				c.find("held", "saga %s is %s at %s: %s", s.id, r.Phase, r.At, lastNote(r))
			}
		case before == nil:
		case before.Deleted && !r.Deleted:
			c.find("ended twice", "saga %s is %s at %s, and was forgotten before, at %s", s.id, r.Phase, r.At, before.At)
		case before.Deleted:
		case before.Ended && !r.Deleted:
			c.find("ended twice", "saga %s is %s at %s, and was %s before, at %s", s.id, r.Phase, r.At, before.Phase, before.At)
		case !before.Ended && r.Deleted:
			c.find("lost", "saga %s was deleted at %s before it had ended", s.id, r.At)
		case !r.Deleted && (r.Moves < before.Moves || r.Moves == before.Moves && !s.Gated), before.Phase == "undoing" && r.Phase == "running":
			c.find("back", "saga %s has gone back at %s: it is %s after %d transitions, and was %s after %d at %s", s.id, r.At, r.Phase, r.Moves, before.Phase, before.Moves, before.At)
		}
		before = r
	}
	if s.end() == nil {
		c.find("open", "saga %s has not ended: %s", s.id, s.lastText())
	}
}

func lastNote(r *SagaRecord) string {
	if len(r.History) == 0 {
		return "no history"
	}
	m := r.History[len(r.History)-1]
	return fmt.Sprintf("%s %s %d %s", m.What, m.Step, m.Attempt, m.Note)
}

func (s *sagaSeen) lastText() string {
	r := &s.records[len(s.records)-1]
	return fmt.Sprintf("%s since %s, last %s", r.Phase, r.At, lastNote(r))
}

// ending: it ends as its script says, or there is a reason why not.
func (c *sagaChecker) ending(s *sagaSeen, end *SagaRecord) {
	want, whatever := s.Ends()
	switch {
	case end.Phase != donePhase && end.Phase != undonePhase:
		c.find("outcome", "saga %s has ended as %q", s.id, end.Phase)
	case end.Phase == want:
	case whatever || c.log.Calm && s.Deadline == 0 && !s.Gated:
		c.find("outcome", "saga %s has ended as %s in place of %s: %s", s.id, end.Phase, want, story(end))
	case end.Phase == undonePhase && !moved(end, "timed out", "deadline") && !c.contradicted(s, end):
		c.find("outcome", "saga %s is undone without a reason: %s", s.id, story(end))
	}
	for _, step := range SagaSteps() {
		did, undid := len(s.deeds[sagaOp{step.Name, false}]), len(s.deeds[sagaOp{step.Name, true}])
		switch {
		case !s.Does(step):
			if did+undid > 0 {
				c.find("unwanted", "saga %s does without %s, which has %d effects", s.id, step.Name, did+undid)
			}
		case end.Phase == donePhase && did == 0:
			c.find("lost", "saga %s is done, and there is no effect of %s", s.id, step.Name)
		case end.Phase == undonePhase && step.After && did > 0:
			c.find("pivot", "saga %s is undone, and %s, which comes after the pivot, was done", s.id, step.Name)
		}
	}
}

// contradicted reports whether the no of who says yes and then no was heard
// first. As events of two topics they are in no order, and the first counts.
func (c *sagaChecker) contradicted(s *sagaSeen, end *SagaRecord) bool {
	return !c.log.Calm && slices.ContainsFunc(SagaSteps(), func(step SagaStep) bool {
		return step.Kind == EmitStep && s.Do[step.Name].Reply == Contrary && s.refused(step, end)
	})
}

// refused reports whether the saga heard a no to a step, or may have.
func (s *sagaSeen) refused(step SagaStep, end *SagaRecord) bool {
	return !end.whole() || slices.ContainsFunc(end.History, func(m SagaMove) bool { return m.What == "rejected" && m.Step == step.Name })
}

// moved reports whether one of these is in the history, or may have been.
func moved(r *SagaRecord, what ...string) bool {
	return !r.whole() || slices.ContainsFunc(r.History, func(m SagaMove) bool { return slices.Contains(what, m.What) })
}

// story is the history, for people.
func story(r *SagaRecord) string {
	var texts []string
	for _, m := range r.History {
		text := strings.TrimSpace(m.What + " " + m.Step)
		if m.Attempt > 0 {
			text += fmt.Sprintf(" %d", m.Attempt)
		}
		if m.Note != "" {
			text += " (" + m.Note + ")"
		}
		texts = append(texts, m.At.UTC().Format("05.000 ")+text)
	}
	return strings.Join(texts, "; ")
}
