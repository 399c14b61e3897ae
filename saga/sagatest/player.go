package sagatest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wherry-go/wherry/saga"
)

// epoch is when tests begin.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// player is a saga in a time of its own, with what has become of it.
type player[S any] struct {
	m    saga.Machine[S]
	id   string
	sent []saga.Sent // all of it, in order
	dead []letter
	// stuck are the steps that operators were told of.
	stuck []string
	// write has the transcript kept.
	write bool
	lines []string

	mu    sync.Mutex // of what follows: Local steps of a Parallel may come together
	calls []saga.Op
}

// action is one thing that happens to a saga. It may be made again.
type action[S any] func(m *saga.Machine[S]) (saga.Effects, error)

func newPlayer[S any](m saga.Machine[S], id string, write bool) *player[S] {
	p := &player[S]{m: m, id: id, write: write}
	if o := m.Outline(); write {
		p.lines = []string{fmt.Sprintf("saga %s, version %d, %q", o.Name, o.Version, id), ""}
	}
	return p
}

// play has something happen, and writes down what comes of it.
func (p *player[S]) play(what string, do action[S]) (saga.Effects, error) {
	var before saga.Snapshot
	if p.write {
		before = p.m.Snapshot()
	}
	p.say(what)
	out, err := do(&p.m)
	p.sent = append(p.sent, out.Sent...)
	for _, r := range out.Expired {
		p.dead = append(p.dead, letter{r.Topic, string(r.Value)})
	}
	for _, s := range out.Stuck {
		p.stuck = append(p.stuck, s.Step)
	}
	if p.write {
		p.tell(before, p.m.Snapshot(), out, err)
	}
	return out, err
}

// called notes a call of a Local step.
func (p *player[S]) called(op saga.Op) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, op)
}

// letter is a dead letter: an event that nobody came to await.
type letter struct{ topic, value string }

// undoPrefix before the name of a step means its undoing.
const undoPrefix = "undo "

// label is how a step, or its undoing, is written in tests.
func label(op saga.Op) string {
	if op.Undo {
		return undoPrefix + op.Step
	}
	return op.Step
}

// parse is the opposite; a step that has exactly that name comes first.
func (p *player[S]) parse(text string) (step string, undo bool, err error) {
	o := p.m.Outline()
	has := func(name string) bool {
		return slices.ContainsFunc(o.Steps, func(s saga.OutlineStep) bool { return s.Name == name })
	}
	if has(text) {
		return text, false, nil
	}
	if name, ok := strings.CutPrefix(text, undoPrefix); ok && has(name) {
		return name, true, nil
	}
	var names []string
	for _, s := range o.Steps {
		names = append(names, s.Name)
	}
	return "", false, fmt.Errorf("there is no step %q; the steps are %q, and the undoing of one is written %q", text, names, undoPrefix+names[0])
}

// awaited returns the attempt that is out at a step.
func (p *player[S]) awaited(step string, undo bool) (a saga.Awaited, ok bool) {
	for _, a := range p.m.Awaited() {
		if a.Op.Step == step && a.Op.Undo == undo {
			return a, true
		}
	}
	return a, false
}

// next is when something is due, at least Now.
func (p *player[S]) next() (at time.Time, ok bool) {
	due := p.m.Snapshot().Next
	if due.IsZero() {
		return due, false
	}
	if due.Before(p.m.Now) {
		due = p.m.Now
	}
	return due.UTC(), true
}

// localFunc is [saga.Machine].Local.
type localFunc[S any] func(ctx context.Context, op saga.Op, s S, call func() (any, error)) (any, error)
