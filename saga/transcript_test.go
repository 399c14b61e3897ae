package saga

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/retry"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err, "run the test with -update")
	require.Equal(t, string(want), got)
}

// checkout reserves, pays and packs at once, captures the money as the point of
// no return, and tells about it.
func checkout() Definition[order] {
	d := saga(
		Step[order]{Name: "reserve", Do: call("stock.reserve"), Undo: call("stock.release"), Timeout: 30 * time.Second, Idempotent: true, Retry: retry.Policy{Attempts: 2}},
		Step[order]{Name: "prepare", Parallel: []Step[order]{
			{Name: "pay", Do: emit("order.created", success("payment.created"), failure("payment.failed")), Undo: emit("order.cancelled"), Timeout: time.Minute},
			{Name: "pack", Do: call("parcel.pack"), Undo: call("parcel.unpack"), Timeout: time.Hour, When: func(o order) bool { return o.Plan != "download" }},
		}},
		Step[order]{Name: "capture", Do: call("payment.capture"), Pivot: true, Timeout: 30 * time.Second, Idempotent: true},
		Step[order]{Name: "notify", Do: Do(nothing), Retry: retry.Policy{Initial: time.Second, Max: 10 * time.Second}},
	)
	d.Start = []Trigger[order]{On(event{Topic: "cart.checked-out"}, func(got map[string]string) order { return order{Plan: got["plan"]} })}
	d.Deadline = 10 * time.Minute
	return d
}

// transcript writes down what goes in and what comes of it.
type transcript struct {
	*play
	b     strings.Builder
	began time.Time
}

func newTranscript(t *testing.T, d Definition[order]) *transcript {
	pl := newPlay(t, d)
	return &transcript{play: pl, began: pl.e.now}
}

func (tr *transcript) since(ms int64) string {
	return (time.Duration(ms-tr.began.UnixMilli()) * time.Millisecond).String()
}

// in gives the machine an input, told in words.
func (tr *transcript) give(words string, i input) {
	tr.t.Helper()
	out := tr.input(i)
	fmt.Fprintf(&tr.b, "%s > %s\n", tr.since(tr.e.now.UnixMilli()), words)
	for _, e := range out {
		fmt.Fprintf(&tr.b, "    %s\n", tr.effect(e))
	}
	if tr.err != nil {
		fmt.Fprintf(&tr.b, "    error: %v\n", tr.err)
		require.True(tr.t, tr.in.quarantine(tr.e.now, "inbox/0@42: "+tr.err.Error()))
	}
	fmt.Fprintf(&tr.b, "  = %s\n", tr.instance())
}

func (tr *transcript) effect(e effect) string {
	op := e.op.Step
	if e.op.Undo {
		op = "undo " + op
	}
	switch e.kind {
	case effectSend:
		return fmt.Sprintf("send %s to %s, attempt %d", op, e.record.Topic, e.op.Attempt)
	case effectLocal:
		if e.durable {
			op += " when this is committed"
		}
		return "run " + op
	case effectExpire:
		return "expire " + e.event.topic
	case effectRefuse:
		return "refuse " + e.refused
	case effectForget:
		return "forget"
	case effectStuck:
		return fmt.Sprintf("stuck %s since %s: %s", e.stuck.Step, tr.since(e.stuck.Since.UnixMilli()), e.stuck.Err)
	}
	return "?"
}

func (tr *transcript) instance() string {
	in := tr.in
	parts := []string{in.phase.String()}
	for flag, is := range map[string]bool{"paused": in.paused} {
		if is {
			parts = append(parts, flag)
		}
	}
	if in.failing {
		parts = append(parts, "failing")
	}
	if in.stuck {
		parts = append(parts, "stuck")
	}
	if in.why != "" {
		parts = append(parts, fmt.Sprintf("(%s)", in.why))
	}
	for i, st := range in.steps {
		if st.status == stepWaiting {
			continue
		}
		s := tr.p.steps[i].name + " " + st.status.String()
		if st.doubt {
			s += "?"
		}
		if st.due > 0 {
			s += " until " + tr.since(st.due)
		}
		parts = append(parts, s)
	}
	if n := len(in.events); n > 0 {
		parts = append(parts, fmt.Sprintf("%d waiting", n))
	}
	return strings.Join(parts, ", ")
}

// wait lets time go by; every tick is written down.
func (tr *transcript) wait(d time.Duration) {
	tr.t.Helper()
	end := tr.e.now.Add(d)
	for {
		due := tr.in.due()
		if due == 0 || time.UnixMilli(due).After(end) {
			tr.e.now = end
			return
		}
		tr.e.now = time.UnixMilli(due).UTC()
		tr.give("tick", input{kind: inTick})
	}
}

func (tr *transcript) yes(step string) {
	tr.t.Helper()
	tr.give("reply: "+step+" ok", input{kind: inReply, op: tr.op(step), record: answer(step+" ok", "")})
}

func (tr *transcript) no(step string) {
	tr.t.Helper()
	tr.give("reply: "+step+" is refused", input{kind: inReply, op: tr.op(step), record: answer("", `{"code":"sold-out","message":"no more"}`)})
}

func (tr *transcript) fails(step string) {
	tr.t.Helper()
	tr.give("reply: "+step+" failed", input{kind: inReply, op: tr.op(step), record: answer("", `{"code":"failed","message":"down"}`)})
}

func (tr *transcript) event(topic string, fields ...string) {
	tr.t.Helper()
	r := happening("o-1", topic, fields...)
	r.Offset = int64(len(tr.in.history)) // the same in each run
	tr.give("event: "+topic, input{kind: inEvent, record: r})
}

func (tr *transcript) local(step string, err error) {
	tr.t.Helper()
	words := "local: " + step + " ok"
	if err != nil {
		words = fmt.Sprintf("local: %s: %v", step, err)
	}
	tr.give(words, input{kind: inLocal, op: tr.op(step), err: err})
}

func (tr *transcript) ask(name VerbName, step string) {
	tr.t.Helper()
	tr.give(strings.TrimSpace(fmt.Sprintf("verb: %s %s", name, step)), input{kind: inVerb, verb: verb{name: name, step: step, actor: "ann", reason: "why not"}})
}

func TestMachine_Transcripts(t *testing.T) {
	t.Parallel()
	begin := func(tr *transcript) { tr.event("cart.checked-out", "plan", "box") }
	for name, run := range map[string]func(tr *transcript){
		"done": func(tr *transcript) {
			begin(tr)
			tr.yes("reserve")
			tr.event("payment.created")
			tr.yes("pack")
			tr.yes("capture")
			tr.local("notify", errors.New("no mail today"))
			tr.wait(time.Second)
			tr.local("notify", nil)
		},
		"refused": func(tr *transcript) {
			begin(tr)
			tr.yes("reserve")
			tr.event("payment.failed", "why", "no money")
			tr.yes("pack")
			tr.fails("pack")
			tr.wait(time.Second)
			tr.yes("pack")
			tr.yes("reserve")
		},
		"unknown": func(tr *transcript) {
			begin(tr)
			first := tr.op("reserve")
			tr.wait(31 * time.Second)
			tr.give("reply: reserve ok, of the first attempt", input{kind: inReply, op: first, record: answer("ok", "")})
			tr.give("reply: reserve ok, of the second", input{kind: inReply, op: Op{Step: "reserve", Attempt: 2}, record: answer("ok", "")})
			tr.wait(time.Minute)
			tr.yes("pack")
			tr.yes("pack")
			tr.yes("reserve")
		},
		"early": func(tr *transcript) {
			tr.event("payment.created")
			tr.wait(time.Minute)
			begin(tr)
			tr.event("payment.created")
			tr.yes("reserve")
			tr.yes("pack")
			tr.yes("capture")
			tr.local("notify", nil)
		},
		"deadline": func(tr *transcript) {
			begin(tr)
			tr.yes("reserve")
			tr.event("payment.created")
			tr.wait(10 * time.Minute)
			tr.yes("pack")
			tr.yes("reserve")
		},
		"stuck": func(tr *transcript) {
			begin(tr)
			tr.yes("reserve")
			tr.event("payment.created")
			tr.no("pack")
			tr.ask(Cancel, "")
			tr.fails("reserve")
			tr.wait(5 * time.Second)
			tr.ask(Pause, "")
			tr.wait(20 * time.Minute)
			tr.ask(Resume, "")
			tr.fails("reserve")
			tr.ask(Complete, "")
		},
		"parked": func(tr *transcript) {
			begin(tr)
			tr.yes("reserve")
			tr.event("payment.created")
			tr.yes("pack")
			tr.wait(time.Minute)
			tr.yes("capture")
			tr.local("notify", wherry.Permanent(errors.New("no such address")))
			tr.ask(Cancel, "")
			tr.ask(Skip, "")
		},
		"quarantined": func(tr *transcript) {
			begin(tr)
			tr.yes("reserve")
			r := happening("o-1", "payment.created")
			r.Value, r.Offset = []byte("["), 7
			tr.give("event: payment.created, rubbish", input{kind: inEvent, record: r})
			tr.yes("pack")
			tr.ask(Complete, "pay")
			tr.no("capture")
			tr.yes("pack")
			tr.yes("reserve")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := newTranscript(t, checkout())
			run(tr)
			tr.b.WriteString("\n" + timeline(tr.p.names(), tr.in))
			golden(t, name+".txt", tr.b.String())
		})
	}
}

func TestS36_ADefinitionIsDrawnAndAnInstanceHasATimeline(t *testing.T) {
	t.Parallel()
	golden(t, "checkout.mmd", checkout().Mermaid())
	golden(t, "checkout.dot", checkout().DOT())
	// The timelines are in the transcripts; this is one that has been cut.
	in := &instance{id: "o-1", phase: Running, paused: true, moves: 70, history: []transition{
		{at: 5, what: moveStarted, step: -1}, {at: 1505, what: moveSent, step: 0, attempt: 2}, {at: 60005, what: moveFailed, step: 7, attempt: 2, note: "down"},
	}}
	require.Equal(t, `o-1: running, paused
… 67 earlier
        0s          started
      1.5s  a       sent (attempt 2)
      1m0s  step 8  failed (attempt 2): down
`, timeline([]string{"a"}, in))
}

func TestS36_NamesAreQuoted(t *testing.T) {
	t.Parallel()
	d := saga(step("a"))
	d.Name = `a"b<c>&`
	require.Contains(t, d.Mermaid(), `start(["a#quot;b#lt;c#gt;#amp;"])`)
	require.Contains(t, d.DOT(), `start [label="a\"b<c>&", shape=oval];`)
}

func TestS27_TheShapeIsWhatSagasInFlightRestOn(t *testing.T) {
	t.Parallel()
	golden(t, "checkout.shape", checkout().Shape())
	was := checkout().Shape()
	same := map[string]func(d *Definition[order]){
		"a timeout":  func(d *Definition[order]) { d.Steps[0].Timeout = time.Hour },
		"a policy":   func(d *Definition[order]) { d.Steps[0].Retry = retry.Policy{Attempts: 9} },
		"a deadline": func(d *Definition[order]) { d.Deadline = 0 },
		"a when":     func(d *Definition[order]) { d.Steps[0].When = func(order) bool { return true } },
		"the order of outcomes": func(d *Definition[order]) {
			d.Steps[1].Parallel[0].Do = emit("order.created", failure("payment.failed"), success("payment.created"))
		},
	}
	for name, change := range same {
		d := checkout()
		change(&d)
		require.Equal(t, was, d.Shape(), name)
	}
	other := map[string]func(d *Definition[order]){
		"a name":      func(d *Definition[order]) { d.Steps[0].Name = "hold" },
		"the version": func(d *Definition[order]) { d.Version = 2 },
		"the order":   func(d *Definition[order]) { d.Steps[0], d.Steps[3] = d.Steps[3], d.Steps[0] },
		"a step less": func(d *Definition[order]) { d.Steps = d.Steps[:3] },
		"a stage": func(d *Definition[order]) {
			d.Steps = append(d.Steps[:1:1], append(d.Steps[1].Parallel, d.Steps[2:]...)...)
		},
		"a kind":         func(d *Definition[order]) { d.Steps[0].Do = Do(nothing) },
		"a topic":        func(d *Definition[order]) { d.Steps[0].Do = call("stock.hold") },
		"an undo":        func(d *Definition[order]) { d.Steps[0].Undo = nil },
		"an undo's kind": func(d *Definition[order]) { d.Steps[0].Undo = emit("stock.release") },
		"the pivot":      func(d *Definition[order]) { d.Steps[2].Pivot = false },
		"an outcome": func(d *Definition[order]) {
			d.Steps[1].Parallel[0].Do = emit("order.created", success("payment.created"))
		},
		"a direction": func(d *Definition[order]) {
			d.Steps[1].Parallel[0].Do = emit("order.created", failure("payment.created"), success("payment.failed"))
		},
		"a trigger": func(d *Definition[order]) { d.Start = nil },
	}
	for name, change := range other {
		d := checkout()
		change(&d)
		require.NotEqual(t, was, d.Shape(), name)
	}
}
