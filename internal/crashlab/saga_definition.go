package crashlab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/retry"
	"github.com/wherry-go/wherry/saga"
)

// sagaTopics are those of a run, besides the Engine's own.
type sagaTopics struct{ run string }

func (t sagaTopics) commands(step string) string { return t.run + "." + step }
func (t sagaTopics) orders() string              { return t.run + ".orders" }   // start sagas
func (t sagaTopics) billed() string              { return t.run + ".billed" }   // events that end the EmitStep
func (t sagaTopics) unbilled() string            { return t.run + ".unbilled" } // likewise
func (t sagaTopics) deeds() string               { return t.run + ".deeds" }
func (t sagaTopics) courier() string             { return t.run + ".courier" } // answers that are lost, late, or come twice
func (t sagaTopics) answers() string             { return t.run + ".answers" } // the table of the barrier
func (t sagaTopics) inbox() string               { return t.run + ".saga.inbox" }
func (t sagaTopics) state() string               { return t.run + ".saga.state" }
func (t sagaTopics) dead() string                { return t.run + ".saga.dlq" }

// asked are the topics of commands, and their steps.
func (t sagaTopics) asked() map[string]SagaStep {
	all := map[string]SagaStep{}
	for _, s := range SagaSteps() {
		if s.Kind != LocalStep {
			all[t.commands(s.Name)] = s
		}
	}
	return all
}

// transactional are topics that nobody writes to but in transactions.
func (t sagaTopics) transactional() []string {
	return append(slices.Sorted(maps.Keys(t.asked())), t.answers(), t.billed(), t.state())
}

// sagaOrder is a request to a participant, and an event that starts a saga.
type sagaOrder struct {
	N    int  `json:"n"`
	Skip bool `json:"skip,omitempty"`
}

// sagaAnswer is the answer to one: what was done.
type sagaAnswer struct {
	Token string `json:"token,omitempty"`
}

// billed is an event that ends the EmitStep.
type billed struct {
	ID    string `json:"id"`
	Token string `json:"token,omitempty"`
}

// method is how a participant is asked.
func (t sagaTopics) method(step string) reqreply.Method[sagaOrder, sagaAnswer] {
	return reqreply.Method[sagaOrder, sagaAnswer]{Topic: t.commands(step), Codec: wherry.JSON{}}
}

func (t sagaTopics) bills() wherry.Event[Bill] {
	return wherry.Event[Bill]{Topic: t.commands("bill")}
}

// locals does what is done in an engine's process.
type locals struct {
	Member
	client *kgo.Client
	script func(n int) Script
	made   atomic.Int64
}

// definition is the saga of the run. l is nil where none is run.
func (t sagaTopics) definition(seed uint64, l *locals) saga.Definition[SagaState] {
	settings := SettingsOf(seed)
	d := saga.Definition[SagaState]{
		Name: t.run, Deadline: settings.Deadline,
		Start: []saga.Trigger[SagaState]{
			saga.On(wherry.Event[sagaOrder]{Topic: t.orders()}, func(o sagaOrder) SagaState { return SagaState{N: o.N, Skip: o.Skip} }).From(wherry.Earliest),
		},
	}
	for _, s := range SagaSteps() {
		step := saga.Step[SagaState]{
			Name: s.Name, Timeout: sagaTimeout, Idempotent: s.Idempotent, Pivot: s.Pivot,
			Retry: retry.Policy{Attempts: sagaAttempts, Initial: sagaWait, Multiplier: 2, Max: sagaWaitMax},
			Do:    t.action(s, false, l),
		}
		if !s.After && (!s.Pivot || settings.PivotUndo) {
			step.Undo = t.action(s, true, l)
		}
		if s.Name == SkippedStep {
			step.When = func(s SagaState) bool { return !s.Skip }
		}
		if n := len(d.Steps); s.Stage < n { // beside the one before
			before := d.Steps[n-1]
			d.Steps[n-1] = saga.Step[SagaState]{Name: fmt.Sprint("stage ", s.Stage), Parallel: []saga.Step[SagaState]{before, step}}
			continue
		}
		d.Steps = append(d.Steps, step)
	}
	return d
}

// action is what a step does, or its undoing.
func (t sagaTopics) action(s SagaStep, undo bool, l *locals) saga.Action[SagaState] {
	apply := func(state *SagaState, a sagaAnswer) {
		if a.Token != "" { // or there was nothing to be undone
			state.apply(s.Name, undo, a.Token)
		}
	}
	switch s.Kind {
	case CallStep:
		return saga.Call(t.method(s.Name), func(state SagaState) sagaOrder { return sagaOrder{N: state.N} }, apply)
	case EmitStep:
		bill := func(state SagaState) Bill { return Bill{ID: SagaID(state.N), N: state.N, Cancel: undo} }
		if undo {
			return saga.Emit(t.bills(), bill)
		}
		return saga.Emit(t.bills(), bill,
			saga.Success(wherry.Event[billed]{Topic: t.billed()}, func(state *SagaState, b billed) { apply(state, sagaAnswer{b.Token}) }).By(func(b billed) string { return b.ID }),
			saga.Failure[SagaState](wherry.Event[billed]{Topic: t.unbilled()}, nil).By(func(b billed) string { return b.ID }))
	case LocalStep:
	}
	return saga.Local(func(ctx context.Context, state SagaState) (sagaAnswer, error) { return l.do(ctx, state) }, apply)
}

// do does a local step, or undoes it, as its script says.
func (l *locals) do(ctx context.Context, state SagaState) (a sagaAnswer, err error) {
	op, ok := saga.OpFrom(ctx)
	if !ok {
		return a, errors.New("no Op in a local step")
	}
	script := l.script(state.N)
	answer := script.Do[op.Step]
	if op.Undo {
		answer = script.Undo[op.Step]
	}
	switch fails, reply := answer.To(op.Attempt); {
	case fails:
		return a, errUnlucky
	case reply == Refuses:
		return a, wherry.Permanent(errUnlucky)
	}
	a.Token = l.Name + "#" + strconv.FormatInt(l.made.Add(1), 10)
	d := deedOf(op, Did, l.Name)
	d.Token = a.Token
	// A record whose context ends may be there: nobody knows, as the error says.
	if err := l.client.ProduceSync(ctx, d.Record(sagaTopics{l.Run}.deeds())).FirstErr(); err != nil {
		return a, fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return a, nil
}

func deedOf(op saga.Op, kind DeedKind, process string) Deed {
	return Deed{
		Kind: kind, Saga: op.ID, Step: op.Step, Undo: op.Undo, Attempt: op.Attempt, Key: op.Key(), Process: process, At: time.Now(),
	}
}

// engine is the Engine of a run.
func (t sagaTopics) engine(m Member, cl *kgo.Client, l *locals) *saga.Engine[SagaState] {
	e := &saga.Engine[SagaState]{
		Client: cl, Definitions: []saga.Definition[SagaState]{t.definition(m.Seed, l)},
		Topics: wherry.TopicSpec{Partitions: Partitions}, Gate: saga.Gate{After: -1}, MaxActive: m.MaxActive, Logger: m.Logger,
	}
	settings := SettingsOf(m.Seed)
	if e.Retention = settings.Retention; settings.Gated {
		e.Gate.After = 8
	}
	return e
}

// session are the options of the groups of sagas.
func (m Member) session() []kgo.Opt {
	opts := []kgo.Opt{kgo.SessionTimeout(m.Session), kgo.HeartbeatInterval(m.Session / 10)}
	if m.Session < 6*time.Second {
		// The embedded broker: see sim.start.
		opts = append(opts, kgo.RebalanceTimeout(5*time.Second))
	}
	return opts
}

// SagaEngine is the subject that runs the sagas.
func SagaEngine(ctx context.Context, m Member, ready func()) error {
	// Of the client, and so of the Consumers of inbox and events alike.
	cl, err := kgo.NewClient(slices.Concat(m.Opts, m.session())...)
	if err != nil {
		return err
	}
	defer cl.Close()
	t := sagaTopics{m.Run}
	e := t.engine(m, cl, &locals{Member: m, client: cl, script: func(n int) Script { return ScriptOf(m.Seed, n) }})
	return runTogether(ctx, ready, e)
}

// encoded is v as JSON.
func encoded(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // none of ours has a field that cannot be encoded
	}
	return b
}
