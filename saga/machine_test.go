package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/header"
	"github.com/wherry-go/wherry/reqreply"
)

// order is the state of the sagas under test.
type order struct {
	Items []string `json:"items,omitempty"`
	Plan  string   `json:"plan,omitempty"`
}

func (o *order) add(s string) { o.Items = append(o.Items, s) }

type (
	ctx       = context.Context
	intMethod = reqreply.Method[int, int]
	method    = reqreply.Method[string, string]
	event     = wherry.Event[map[string]string]
)

// call is a call to a topic; its answer is added to the items.
func call(topic string) Called[order] {
	return Call(method{Topic: topic}, func(order) string { return "please" }, func(o *order, got string) { o.add(got) })
}

func success(topic string) Outcome[order] {
	return Success(event{Topic: topic}, func(o *order, got map[string]string) { o.add(topic + ":" + got["is"]) })
}

func failure(topic string) Outcome[order] {
	return Failure(event{Topic: topic}, func(*order, map[string]string) {}).Because(func(got map[string]string) string { return got["why"] })
}

func emit(topic string, outcomes ...Outcome[order]) Emission[order] {
	return Emit(event{Topic: topic}, func(order) map[string]string { return map[string]string{} }, outcomes...)
}

// step is one that calls, and calls to be undone.
func step(name string) Step[order] {
	return Step[order]{Name: name, Do: call(name + ".do"), Undo: call(name + ".undo"), Timeout: 10 * time.Second}
}

func with(s Step[order], change func(*Step[order])) Step[order] {
	change(&s)
	return s
}

func saga(steps ...Step[order]) Definition[order] {
	return Definition[order]{Name: "orders", Steps: steps}
}

// play runs one instance through the machine, in a time of its own.
type play struct {
	t   testing.TB
	p   *plan
	in  *instance
	e   env
	out []effect // of the last input
	err error    // of the last input
	// sent are all effects but refusals.
	sent []effect
}

func newPlay(t testing.TB, d Definition[order]) *play {
	t.Helper()
	p, err := compile(d)
	require.NoError(t, err)
	return &play{t: t, p: p, in: &instance{id: "o-1"}, e: env{now: time.UnixMilli(1_700_000_000_000).UTC()}}
}

// input gives one to the machine; the instance is decoded anew, as it is by
// the engine.
func (pl *play) input(i input) []effect {
	pl.t.Helper()
	pl.in = pl.in.again()
	pl.out, pl.err = next(pl.p, pl.in, i, pl.e)
	pl.sent = append(pl.sent, pl.out...)
	return pl.out
}

func (pl *play) do(i input) []effect {
	pl.t.Helper()
	out := pl.input(i)
	require.NoError(pl.t, pl.err)
	return out
}

// again is the instance as it is after it was stored and read.
func (in *instance) again() *instance {
	if in.phase == 0 {
		return &instance{id: in.id}
	}
	c, err := decodeInstance(in.id, encodeInstance(in))
	if err != nil {
		panic(err)
	}
	return c
}

func (pl *play) start() []effect {
	return pl.do(input{kind: inStart, payload: []byte(`{"items":["first"]}`)})
}

// later lets time go by, and looks at the timers when they are due.
func (pl *play) later(d time.Duration) (out []effect) {
	pl.t.Helper()
	end := pl.e.now.Add(d)
	for {
		due := pl.in.due()
		if due == 0 || time.UnixMilli(due).After(end) {
			pl.e.now = end
			return out
		}
		at := time.UnixMilli(due).UTC()
		require.False(pl.t, at.Before(pl.e.now), "due %v is over since %v", at, pl.e.now.Sub(at))
		pl.e.now = at
		out = append(out, pl.do(input{kind: inTick})...)
		require.NotEqual(pl.t, due, pl.in.due(), "a tick must do what is due")
	}
}

// op is the latest attempt at a step.
func (pl *play) op(step string) Op {
	pl.t.Helper()
	i := pl.p.index(step)
	require.GreaterOrEqual(pl.t, i, 0)
	st := pl.in.steps[i]
	return Op{Saga: "orders", ID: pl.in.id, Step: step, Undo: st.status == stepUndoing || st.status == stepUndoWait, Attempt: int(st.attempt)}
}

func answer(value any, fault string) *kgo.Record {
	r := &kgo.Record{Topic: "orders.saga.inbox"}
	r.Value, _ = json.Marshal(value)
	if s, ok := value.(string); ok {
		r.Value = []byte(s)
	}
	header.Set(r, header.CorrelationID, "id")
	if fault != "" {
		header.Set(r, header.ReplyError, fault)
	}
	return r
}

func (pl *play) ok(step string) []effect { pl.t.Helper(); return pl.okOp(pl.op(step)) }
func (pl *play) okOp(op Op) []effect {
	pl.t.Helper()
	return pl.do(input{kind: inReply, op: op, record: answer(op.Step+" ok", "")})
}

// no is a rejection, fail a failure.
func (pl *play) no(step string) []effect { pl.t.Helper(); return pl.noOp(pl.op(step)) }

func (pl *play) noOp(op Op) []effect {
	pl.t.Helper()
	return pl.do(input{kind: inReply, op: op, record: answer("", `{"status":"error","code":"sold-out","message":"no more"}`)})
}
func (pl *play) fail(step string) []effect { pl.t.Helper(); return pl.failOp(pl.op(step)) }
func (pl *play) failOp(op Op) []effect {
	pl.t.Helper()
	return pl.do(input{kind: inReply, op: op, record: answer("", `{"status":"error","code":"failed","message":"down"}`)})
}

func (pl *play) status(step string) stepStatus {
	pl.t.Helper()
	return pl.in.steps[pl.p.index(step)].status
}

func (pl *play) state() order {
	pl.t.Helper()
	s, err := pl.p.decode(pl.in.raw)
	require.NoError(pl.t, err)
	return *s.(*order)
}

// sends are the topics of what is sent.
func sends(out []effect) (topics []string) {
	for _, e := range out {
		if e.kind == effectSend {
			topics = append(topics, e.record.Topic)
		}
	}
	return topics
}

// kinds are those of the effects.
func kinds(out []effect) (all []effectKind) {
	for _, e := range out {
		all = append(all, e.kind)
	}
	return all
}

// moves are those of the history that are about a step.
func (pl *play) moves(step string) (all []string) {
	for _, t := range pl.in.history {
		if t.step >= 0 && pl.p.steps[t.step].name == step {
			all = append(all, t.what.String())
		}
	}
	return all
}

var errDown = errors.New("down")

func nothing(context.Context, order) error { return nil }

// localStep is one that is done here.
func localStep(name string) Step[order] {
	return Step[order]{
		Name: name, Undo: Do(nothing),
		Do: Local(func(context.Context, order) (string, error) { return "", nil }, func(o *order, got string) { o.add(got) }),
	}
}

// ran gives the result of a local step.
func (pl *play) ran(step string, err error) []effect {
	pl.t.Helper()
	op := pl.op(step)
	i := input{kind: inLocal, op: op, err: err, result: step + " ok"}
	if op.Undo {
		i.result = struct{}{}
	}
	return pl.do(i)
}

var offsets atomic.Int64

// occurs is an event that has not been there yet.
func (pl *play) occurs(topic string, fields ...string) []effect {
	pl.t.Helper()
	return pl.do(input{kind: inEvent, record: happening(pl.in.id, topic, fields...)})
}

func happening(id, topic string, fields ...string) *kgo.Record {
	value := map[string]string{}
	for i := 0; i+1 < len(fields); i += 2 {
		value[fields[i]] = fields[i+1]
	}
	r := &kgo.Record{Topic: topic, Key: []byte(id), Partition: 3, Offset: offsets.Add(1)}
	r.Value, _ = json.Marshal(value)
	return r
}

func (pl *play) verb(name VerbName, step string) []effect {
	pl.t.Helper()
	return pl.do(input{kind: inVerb, verb: verb{id: fmt.Sprint("v", offsets.Add(1)), name: name, step: step, actor: "ann", reason: "so it is"}})
}

// refused is why a verb was not applied.
func (pl *play) refused(name VerbName, step string) string {
	pl.t.Helper()
	phase, steps := pl.in.phase, slices.Clone(pl.in.steps)
	out := pl.verb(name, step)
	require.Equal(pl.t, []effectKind{effectRefuse}, kinds(out))
	require.Equal(pl.t, phase, pl.in.phase)
	require.Equal(pl.t, steps, pl.in.steps)
	return out[0].refused
}
