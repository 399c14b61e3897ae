package saga

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// An Awaited is an attempt that is out, whose outcome comes from elsewhere: a
// call, or events.
type Awaited struct {
	Op Op
	// Call says that it is answered with a reply; otherwise Events end it.
	Call   bool
	Events []AwaitedEvent
	// Due is when it times out. Zero means never.
	Due time.Time
}

// An AwaitedEvent is an outcome of an [Emit], or of an [Await].
type AwaitedEvent struct {
	Topic   string
	Failure bool // it says no
	// Zero returns the event with a zero value, under a key.
	Zero func(key string) (*kgo.Record, error)
}

// Awaited returns the attempts that are out, but those at Local steps, in the
// order of the steps.
func (m *Machine[S]) Awaited() (all []Awaited) {
	in := m.now()
	k := &machine{p: m.shell.latest, in: in}
	for i := range in.steps {
		a := k.p.steps[i].act(k.undoing())
		if !k.isOut(i) || a.kind == actLocal {
			continue
		}
		w := Awaited{Op: k.op(i), Call: a.kind == actCall, Due: at(in.steps[i].due)}
		for _, o := range a.outcomes {
			w.Events = append(w.Events, AwaitedEvent{o.topic, o.fails, o.zero})
		}
		all = append(all, w)
	}
	return all
}
