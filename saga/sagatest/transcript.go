package sagatest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wherry-go/wherry/saga"
)

// say writes down what happens now.
func (p *player[S]) say(what string) {
	if p.write {
		p.lines = append(p.lines, fmt.Sprintf("%8s  %s", clock(p.m.Now.Sub(epoch)), what))
	}
}

// clock is a time since the begin, as short as it can be.
func clock(d time.Duration) string { return "+" + d.String() }

// tell writes down what came of it.
func (p *player[S]) tell(before, after saga.Snapshot, out saga.Effects, err error) {
	add := func(format string, args ...any) {
		p.lines = append(p.lines, "            "+fmt.Sprintf(format, args...))
	}
	n := len(after.History)
	if came := after.Moves - before.Moves; after.Moves >= before.Moves && came < uint64(n) { //nolint:gosec // a few
		n = int(came) //nolint:gosec // fewer than were kept
	}
	sent := out.Sent
	o := p.m.Outline()
	for _, t := range after.History[len(after.History)-n:] {
		switch t.What {
		case "started":
		case "sent", "undoing":
			undo := t.What == "undoing"
			add("%s", p.begun(o, t, undo, &sent))
		case "ended":
			add("%s", ended(after))
		default:
			add("%s", happened(t))
		}
	}
	for _, s := range sent { // of which the history says nothing
		add("send %s: %s %s", label(s.Op), s.Record.Topic, text(s.Record.Value))
	}
	for _, r := range out.Expired {
		add("dead letter: %s %s", r.Topic, text(r.Value))
	}
	if string(before.Raw) != string(after.Raw) && before.Phase != 0 {
		add("state %s", text(after.Raw))
	}
	if out.Purged {
		add("forgotten")
	}
	if err != nil {
		add("error: %v", err)
	}
}

// begun says that an attempt begins, and what it sends.
func (p *player[S]) begun(o saga.Outline, t saga.Transition, undo bool, sent *[]saga.Sent) string {
	op := saga.Op{Step: t.Step, Undo: undo, Attempt: t.Attempt}
	what := label(op)
	if t.Attempt > 1 {
		what += fmt.Sprintf(", attempt %d", t.Attempt)
	}
	for i, s := range *sent {
		if s.Op.Step == t.Step && s.Op.Undo == undo && s.Op.Attempt == t.Attempt {
			*sent = append((*sent)[:i:i], (*sent)[i+1:]...)
			return fmt.Sprintf("ask %s: %s %s", what, s.Record.Topic, text(s.Record.Value))
		}
	}
	for _, s := range o.Steps {
		does := s.Do
		if undo {
			does = s.Undo
		}
		if s.Name == t.Step && does == "local" {
			return "run " + what
		}
	}
	return "await " + what
}

// happened says what a line of the history does.
func happened(t saga.Transition) string {
	var b strings.Builder
	b.WriteString(t.What)
	if t.Step != "" {
		b.WriteString(" " + t.Step)
	}
	if t.What != "done" && t.What != "undone" && t.Attempt > 1 {
		fmt.Fprintf(&b, ", attempt %d", t.Attempt)
	}
	if t.Note != "" {
		b.WriteString(": " + t.Note)
	}
	return b.String()
}

// ended says how a saga ended.
func ended(s saga.Snapshot) string {
	b := "ended " + s.Phase.String()
	if s.Phase != saga.Undone {
		return b
	}
	if s.Step != "" {
		b += fmt.Sprintf(", because of step %q", s.Step)
	}
	if s.Why != "" {
		b += ": " + s.Why
	}
	return b
}

// value is what a test says, after a space, or nothing.
func value(v any) string {
	if v == nil {
		return ""
	}
	if e, ok := v.(error); ok {
		return ": " + e.Error()
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf(" %+v", v)
	}
	return " " + string(b)
}

// text is a record's value, for people.
func text(b []byte) string {
	switch {
	case b == nil:
		return "null"
	case len(b) == 0:
		return `""`
	case !utf8.Valid(b):
		return fmt.Sprintf("%d bytes %.64x", len(b), b)
	}
	return strings.ReplaceAll(string(b), "\n", `\n`)
}

// transcript is all that was written down.
func (p *player[S]) transcript() string { return strings.Join(p.lines, "\n") + "\n" }
