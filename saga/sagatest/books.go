package sagatest

import (
	"fmt"
	"slices"

	"github.com/wherry-go/wherry/saga"
)

// books are what the world knows of a saga: what it was asked, and what it
// answered. The saga is held against them, and not against its own history.
type books struct {
	o     saga.Outline
	steps []account
}

// account is what the world knows of a step.
type account struct {
	done   bool // it answered that it is
	maybe  bool // an answer was lost
	ghost  bool // a Local step: it may have been done before a crash
	undone bool
	asked  bool // to undo it
}

func newBooks(o saga.Outline) books { return books{o: o, steps: make([]account, len(o.Steps))} }

func (b *books) index(op saga.Op) int {
	return slices.IndexFunc(b.o.Steps, func(s saga.OutlineStep) bool { return s.Name == op.Step })
}

// asked is an attempt that reaches the world.
func (b *books) asked(op saga.Op) error {
	i := b.index(op)
	a := &b.steps[i]
	if !op.Undo {
		if a.asked {
			return fmt.Errorf("step %q is asked for again, after it was undone", op.Step)
		}
		return nil
	}
	a.asked = true
	if !a.done && !a.maybe && !a.ghost {
		return fmt.Errorf("step %q is undone, and was neither done nor in doubt", op.Step)
	}
	for j, later := range b.o.Steps {
		if later.Stage > b.o.Steps[i].Stage && later.Undo != "" && (b.steps[j].done || b.steps[j].maybe) && !b.steps[j].undone {
			return fmt.Errorf("step %q is undone before %q, which came after it", op.Step, later.Name)
		}
	}
	return nil
}

// settled is what came of an attempt. What is lost may be done, or may not.
func (b *books) settled(op saga.Op, o Outcome) {
	a := &b.steps[b.index(op)]
	switch o {
	case OK, Twice:
		if op.Undo {
			a.undone = true
		} else {
			a.done = true
		}
	case Lost, Late:
		if !op.Undo {
			a.maybe = true
		}
	case Refused, Failed:
	}
}

// crash takes back what was answered since before, for it is asked again: what was
// done then may be done, or be done twice.
func (b *books) crash(before []account) {
	for i, a := range b.steps {
		was := before[i]
		was.maybe = was.maybe || a.done || a.maybe
		was.ghost = was.ghost || b.o.Steps[i].Do == "local" // the saga knows no more than that
		b.steps[i] = was
	}
}

// standing are the steps that are done, or may be, and are not undone.
func (b *books) standing() (names []string) {
	for i, a := range b.steps {
		if (a.done || a.maybe) && !a.undone {
			names = append(names, b.o.Steps[i].Name)
		}
	}
	return names
}

// end holds the end of a saga against the books.
func (b *books) end(s saga.Snapshot) error {
	pivot := slices.IndexFunc(b.o.Steps, func(s saga.OutlineStep) bool { return s.Pivot })
	for i, a := range b.steps {
		step := b.o.Steps[i]
		switch {
		case s.Phase == saga.Undone && step.Undo != "" && (a.done || a.maybe) && !a.undone:
			return fmt.Errorf("the saga is undone, and step %q, which is done or may be, is not", step.Name)
		case s.Phase != saga.Undone && a.asked:
			return fmt.Errorf("the saga is %v, and step %q was undone", s.Phase, step.Name)
		case s.Phase == saga.Parked && (pivot < 0 || step.Name == s.Step && step.Stage <= b.o.Steps[pivot].Stage):
			return fmt.Errorf("the saga is parked before its pivot: %s", s.Why)
		}
	}
	return nil
}
