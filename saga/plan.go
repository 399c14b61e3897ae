package saga

import (
	"cmp"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/retry"
)

// plan is a Definition without its types. States are always a *S.
type plan struct {
	name       string
	version    int
	steps      []planStep // in order, those of groups among them
	stages     []stage
	pivot      int // the step, -1 for none
	deadline   time.Duration
	stuckAfter time.Duration
	triggers   []trigger

	newState func() any
	decode   func(raw []byte) (any, error)
	encode   func(s any) ([]byte, error)
}

type planStep struct {
	name       string
	stage      int
	do, undo   act // undo is of kind actNone where there is none
	noUndo     bool
	timeout    time.Duration
	idempotent bool
	retry      retry.Policy
	when       func(s any) bool // nil means yes
	durable    bool
}

// stage is what is done at once: a step, or those of a group.
type stage struct {
	name  string // of the group, "" for a step
	when  func(s any) bool
	steps []int
}

// compile checks a Definition and returns its plan.
func compile[S any](d Definition[S]) (*plan, error) {
	if err := d.Check(); err != nil {
		return nil, err
	}
	return d.plan(), nil
}

// plan erases the types; it bears faults.
func (d Definition[S]) plan() *plan {
	p := &plan{
		name: d.Name, version: cmp.Or(d.Version, 1), pivot: -1,
		deadline: d.Deadline, stuckAfter: cmp.Or(d.StuckAfter, defaultStuckAfter),
		newState: func() any { return new(S) },
		encode: func(s any) ([]byte, error) {
			r := &kgo.Record{}
			err := d.codec().Encode(r, *s.(*S))
			return r.Value, err
		},
		decode: d.decode,
	}
	for _, t := range d.Start {
		if t != nil {
			p.triggers = append(p.triggers, t.trigger(nil))
		}
	}
	for _, s := range d.Steps {
		st := stage{steps: []int{len(p.steps)}}
		group := []Step[S]{s}
		if len(s.Parallel) > 0 {
			st, group = stage{name: s.Name, when: condition(s.When)}, s.Parallel
			for i := range group {
				st.steps = append(st.steps, len(p.steps)+i)
			}
		}
		for _, s := range group {
			p.add(s.step(len(p.stages)), s.Pivot)
		}
		p.stages = append(p.stages, st)
	}
	return p
}

func (p *plan) add(s planStep, pivot bool) {
	if pivot {
		p.pivot = len(p.steps)
		s.durable = s.durable || s.stage > 0 // no crash may put what was before it in doubt
	}
	p.steps = append(p.steps, s)
}

func (d Definition[S]) codec() wherry.Codec {
	if d.Codec == nil {
		return wherry.JSON{}
	}
	return d.Codec
}

func (d Definition[S]) decode(raw []byte) (any, error) {
	s := new(S)
	if len(raw) == 0 {
		return s, nil // started with nothing
	}
	if d.Upcast != nil {
		var err error
		if raw, err = d.Upcast(raw); err != nil {
			return nil, fmt.Errorf("upcasting the state: %w", err)
		}
	}
	if err := d.codec().Decode(&kgo.Record{Value: raw}, s); err != nil {
		return nil, fmt.Errorf("decoding the state: %w", err)
	}
	return s, nil
}

func (s Step[S]) step(stage int) planStep {
	p := planStep{
		name: s.Name, stage: stage, noUndo: s.NoUndo, timeout: s.Timeout,
		idempotent: s.Idempotent, retry: s.Retry, durable: s.Durable, when: condition(s.When),
	}
	if s.Do != nil {
		p.do = s.Do.action(nil)
	}
	if s.Undo != nil {
		p.undo = s.Undo.action(nil)
	}
	return p
}

func condition[S any](when func(S) bool) func(any) bool {
	if when == nil {
		return nil
	}
	return func(s any) bool { return when(*s.(*S)) }
}

// awaits reports whether nothing is sent: doing it again changes nothing.
func (a act) awaits() bool { return a.kind == actEmit && a.request == nil }

// sendsOnly reports whether the action is done when it is sent.
func (a act) sendsOnly() bool { return a.kind == actEmit && len(a.outcomes) == 0 }

// again reports whether an attempt at the step may follow one whose outcome is
// not known.
func (s planStep) again() bool { return s.idempotent || s.do.awaits() }

// act returns what is done in a direction.
func (s planStep) act(undo bool) act {
	if undo {
		return s.undo
	}
	return s.do
}

func (s planStep) undoes() bool { return s.undo.kind != actNone }

// index returns the step of that name, -1 for none.
func (p *plan) index(name string) int {
	for i := range p.steps {
		if p.steps[i].name == name {
			return i
		}
	}
	return -1
}

// beyond reports whether a step comes after the pivot.
func (p *plan) beyond(step int) bool {
	return p.pivot >= 0 && p.steps[step].stage > p.steps[p.pivot].stage
}

// trigger returns the one that a record starts saga id by.
func (p *plan) trigger(id string, r *kgo.Record) (t trigger, ok bool) {
	for _, t := range p.triggers {
		if t.topic == r.Topic {
			got, err := t.id(r)
			return t, err == nil && got == id
		}
	}
	return t, false
}

// match returns the outcome that an event for saga id is; those of other types
// that do not read it are none.
func (a act) match(id string, r *kgo.Record) (o outcome, ok bool) {
	for _, o := range a.outcomes {
		if o.topic == r.Topic {
			if got, err := o.id(r); err == nil && got == id {
				return o, true
			}
		}
	}
	return o, false
}

// stepTimeout is how long an attempt may take, 0 for ever.
func (s planStep) attemptTimeout(undo bool) time.Duration {
	if undo && s.timeout == 0 {
		return defaultUndoTimeout
	}
	return s.timeout
}

// defaultUndoTimeout is that of attempts to undo: what never ends would hold up
// all the others.
const defaultUndoTimeout = time.Minute
