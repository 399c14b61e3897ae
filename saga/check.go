package saga

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/wherry-go/wherry/retry"
)

const (
	maxStepName = 64
	// longestSuffix is that of the topics of a saga.
	longestSuffix = ".saga.inbox"
	maxTopic      = 249 // of Kafka
)

// Check reports all that is wrong with a Definition, in one error; nil if
// nothing is. An [Engine] that has a faulty one does not run.
func (d Definition[S]) Check() error {
	c := &check{p: d.plan(), names: map[string]bool{}}
	c.fault(!legal(d.Name, "._-"), "the Name is %q: it takes letters, digits, '.', '_' and '-'", d.Name)
	c.fault(len(d.Name)+len(longestSuffix) > maxTopic, "the Name has %d bytes, and at most %d make a topic's name", len(d.Name), maxTopic-len(longestSuffix))
	c.fault(d.Version < 0 || d.Version > math.MaxInt32, "the Version is %d: it takes 1 to %d", d.Version, math.MaxInt32)
	c.fault(d.Deadline < 0 || d.StuckAfter < 0, "Deadline and StuckAfter must not be negative")
	c.fault(len(d.Steps) == 0, "it has no Steps")
	for i, t := range d.Start {
		c.fault(t == nil, "trigger %d is nil", i)
	}
	c.triggers()
	pivots := 0
	for i, s := range d.Steps {
		c.shape(where(s.Name, i), s.Name, does(s), len(s.Parallel) > 0)
		if len(s.Parallel) == 0 {
			if s.Pivot {
				pivots++
			}
			continue
		}
		c.fault(s.Do != nil || s.Undo != nil || s.NoUndo || s.Timeout != 0 || s.Idempotent || s.Pivot || s.Durable,
			"%s has Parallel, and besides only a Name and a When count: give the rest to its steps", where(s.Name, i))
		for j, inner := range s.Parallel {
			at := where(inner.Name, j)
			c.shape(at, inner.Name, does(inner), false)
			c.fault(len(inner.Parallel) > 0, "%s is in Parallel, and has Parallel itself", at)
			c.fault(inner.Pivot, "%s is the pivot, and in Parallel: it must stand alone, or the others could fail when it is done", at)
		}
	}
	c.fault(pivots > 1, "it has %d pivots, and at most one step is the point of no return", pivots)
	for i := range c.p.steps {
		c.step(i, pivots == 1)
	}
	if len(c.faults) == 0 {
		return nil
	}
	return fmt.Errorf("saga %q: %w", d.Name, errors.Join(c.faults...))
}

// check gathers the faults of one Definition.
type check struct {
	p      *plan
	names  map[string]bool
	faults []error
}

func (c *check) fault(is bool, format string, args ...any) {
	if is {
		c.faults = append(c.faults, fmt.Errorf(format, args...))
	}
}

func does[S any](s Step[S]) bool { return s.Do != nil && s.Do.action(nil).kind != actNone }

func where(name string, i int) string {
	if name == "" {
		return fmt.Sprintf("step %d", i)
	}
	return fmt.Sprintf("step %q", name)
}

// legal reports whether a text has only ASCII letters, digits and some others,
// and is not empty.
func legal(s, others string) bool {
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(others, r):
		default:
			return false
		}
	}
	return s != "" && s != "." && s != ".."
}

func (c *check) shape(at, name string, does, group bool) {
	c.fault(name == "", "%s has no Name", at)
	c.fault(name != "" && !legal(name, "_- "), "%s: a name takes letters, digits, '_', '-' and ' '", at)
	c.fault(len(name) > maxStepName, "%s: the name has %d bytes, and may have %d", at, len(name), maxStepName)
	c.fault(c.names[name] && name != "", "%s is there twice", at)
	c.names[name] = true
	c.fault(!does && !group, "%s has nothing to Do: set it to a Call, an Emit, an Await, a Local or a Do", at)
}

func (c *check) triggers() {
	seen := map[string]bool{}
	for _, t := range c.p.triggers {
		c.fault(t.topic == "", "a trigger has no topic")
		c.fault(t.lacks != "", "the trigger of topic %q: its function %s is nil", t.topic, t.lacks)
		c.fault(seen[t.topic] && t.topic != "", "two triggers have the topic %s", t.topic)
		seen[t.topic] = true
	}
	for _, s := range c.p.steps {
		for _, a := range []act{s.do, s.undo} {
			for _, o := range a.outcomes {
				c.fault(seen[o.topic] && o.topic != "", "step %q awaits %s, which is a trigger's topic too: a saga cannot tell them apart", s.name, o.topic)
			}
		}
	}
}

// step checks what a step does, and its place.
func (c *check) step(i int, pivot bool) {
	s := c.p.steps[i]
	at := where(s.name, i)
	if s.do.kind != actNone {
		c.act(at, s.do)
	}
	if s.undoes() {
		c.act(at+": its Undo", s.undo)
	}
	c.fault(s.timeout < 0, "%s: Timeout must not be negative", at)
	if err := faultOf(s.retry); err != nil {
		c.fault(true, "%s: Retry: %w", at, err)
	}
	c.fault(s.undoes() && s.noUndo, "%s has an Undo and NoUndo", at)
	beyond := pivot && c.p.beyond(i)
	c.fault(beyond && s.undoes(), "%s has an Undo, and comes after the pivot: nothing is undone there", at)
	c.fault(!beyond && i != c.p.pivot && !s.undoes() && !s.noUndo, "%s has no Undo: set one, or NoUndo if there is nothing to take back", at)
	c.fault(s.timeout > 0 && !s.again() && !s.undoes() && !s.noUndo, "%s has a Timeout, and is neither Idempotent nor undone: nobody could go on when it is over", at)
	onward := beyond || i == c.p.pivot && !s.undoes()
	c.fault(onward && s.noUndo && s.timeout > 0 && !s.again(), "%s has a Timeout and is the pivot, or comes after it: what is unknown there is tried again, so it must be Idempotent", at)
}

func (c *check) act(at string, a act) {
	c.fault((a.kind == actCall || a.kind == actEmit && a.request != nil) && a.topic == "", "%s has no topic", at)
	c.fault(a.missing > 0, "%s: an outcome is nil", at)
	c.fault(a.lacks != "", "%s: its function %s is nil", at, a.lacks)
	c.fault(a.awaits() && len(a.outcomes) == 0 && a.missing == 0, "%s awaits nothing", at)
	good := a.kind != actEmit || len(a.outcomes) == 0
	topics := map[string]bool{}
	for _, o := range a.outcomes {
		good = good || !o.fails
		c.fault(o.topic == "", "%s: an outcome has no topic", at)
		c.fault(topics[o.topic] && o.topic != "", "%s has two outcomes of the topic %s, and cannot tell them apart", at, o.topic)
		topics[o.topic] = true
	}
	c.fault(!good, "%s has only Failures for outcomes: it could never be done", at)
}

// faultOf asks a policy what is wrong with it. (Do looks at that before it looks
// at its context.)
func faultOf(p retry.Policy) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Do(ctx, func(context.Context) error { return nil }); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Warnings are what may surprise in a Definition without being wrong, each a
// sentence: an [Engine] logs them when it starts.
func (d Definition[S]) Warnings() (all []string) {
	p := d.plan()
	warn := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	for i, s := range p.steps {
		answers := s.do.kind == actCall || s.do.kind == actLocal
		for _, o := range s.do.outcomes {
			answers = answers || o.fails
		}
		if p.beyond(i) && answers {
			warn("step %q comes after the pivot: if it is rejected, the saga is parked until an operator decides", s.name)
		}
		asked := s.do.kind == actCall || s.do.kind == actEmit && s.do.request != nil && !s.do.sendsOnly()
		if asked && s.timeout == 0 && (d.Deadline == 0 || p.beyond(i)) {
			warn("step %q has no Timeout, and nothing else ends it: if its answer is lost, the saga waits for ever", s.name)
		}
		if s.do.sendsOnly() && s.timeout > 0 {
			warn("step %q has a Timeout, and is done as soon as it is sent", s.name)
		}
	}
	return all
}
