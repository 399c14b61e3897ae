package saga

import (
	"fmt"
	"strings"
	"time"
)

// A Reason says why a saga is where it is: what it waits for, since when, which
// attempt it is, and when something happens next. Its String is one plain
// sentence.
type Reason struct {
	Saga, ID string
	Phase    Phase
	// For is what the saga as a whole waits for: "its steps", "an operator", "a
	// place among those that are active", "its start", or "nothing", because it
	// has ended.
	For string
	// Steps are what is waited for at the steps in hand: one, or those of a
	// Parallel.
	Steps []StepReason
	// Since is when it came to that.
	Since time.Time
	// Next is when the Engine does something though nothing comes in. Zero means
	// never.
	Next time.Time
	// Step and Why say why it is undoing, undone, parked or quarantined.
	Step, Why string
	// Paused and Stuck are those of the Snapshot, Early how many events wait.
	Paused, Stuck bool
	Early         int
}

// StepReason says what is waited for at a step.
type StepReason struct {
	Step    string
	Undo    bool   // it is being undone
	Does    string // what is done: "call payments.charge"; "" where nobody knows
	Attempt int    // of what is in hand, or of what comes Next, from 1
	// Between is whether the attempt is still to begin, at Next.
	Between bool
	Since   time.Time // when the attempt began, or the one before it failed
	// Next is when the attempt times out, or begins. Zero means never.
	Next time.Time
	Last string // why the attempt before failed, "" if there was none
}

// Reason returns what the saga waits for. It is computed from the Snapshot
// alone.
func (s Snapshot) Reason() Reason {
	r := Reason{
		Saga: s.Saga, ID: s.ID, Phase: s.Phase, For: "its steps", Next: s.Next, Step: s.Step, Why: s.Why,
		Paused: s.Paused, Stuck: s.Stuck, Early: len(s.Early), Since: s.Began,
	}
	if n := len(s.History); n > 0 && s.Phase != Running && s.Phase != Undoing {
		r.Since = s.History[n-1].At
	}
	switch s.Phase {
	case Early:
		r.For = "its start"
	case Queued:
		r.For = "a place among those that are active"
	case Parked, Quarantined:
		r.For = "an operator"
		r.Since = s.last(r.Since, s.Phase.String())
	case Done, Undone:
		r.For, r.Since = "nothing", s.Ended
	case Running, Undoing:
		for i, p := range s.Steps {
			if step, ok := s.stepReason(i, p); ok {
				r.Steps = append(r.Steps, step)
			}
		}
		if len(r.Steps) > 0 {
			r.Since = r.Steps[0].Since
		}
	}
	return r
}

func (s Snapshot) stepReason(i int, p Progress) (r StepReason, ok bool) {
	r = StepReason{Step: p.Step, Attempt: p.Attempt, Since: p.Began, Next: p.Due}
	switch p.Status {
	case stepDoing.String():
		r.Since, r.Last = s.attempt(p, "sent", false)
	case stepUndoing.String():
		r.Undo = true
		r.Since, r.Last = s.attempt(p, "undoing", false)
	case stepBetween.String():
		r.Between = true
		r.Attempt++
		r.Since, r.Last = s.attempt(p, "", true)
	case stepUndoWait.String():
		r.Undo, r.Between = true, true
		r.Attempt++
		r.Since, r.Last = s.attempt(p, "", true)
	default:
		return r, false
	}
	r.Does = s.outline.does(i, r.Undo)
	return r, true
}

// attempt looks in the history for when the attempt in hand began, and for the
// last failure of the step.
func (s Snapshot) attempt(p Progress, began string, failed bool) (since time.Time, last string) {
	since = p.Began
	for i := len(s.History) - 1; i >= 0; i-- {
		t := s.History[i]
		if t.Step != p.Step {
			continue
		}
		switch t.What {
		case began:
			if t.Attempt == p.Attempt {
				since = t.At
			}
		case "failed", "timed out", "undo failed":
			if failed {
				since = t.At
			}
			if last = t.Note; last == "" {
				last = "it " + strings.Replace(t.What, "undo ", "", 1)
			}
			return since, last
		}
	}
	return since, ""
}

// last is when the saga came to a phase, by its history.
func (s Snapshot) last(otherwise time.Time, what string) time.Time {
	for i := len(s.History) - 1; i >= 0; i-- {
		if s.History[i].What == what {
			return s.History[i].At
		}
	}
	return otherwise
}

// String is one sentence, with times in UTC.
func (r Reason) String() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	say("%q ", r.ID)
	switch r.Phase {
	case Done:
		say("is done, since %s", stamp(r.Since))
	case Undone:
		say("was undone at %s%s", stamp(r.Since), r.because())
	case Early:
		say("has not started: %s for its start since %s", count(r.Early, "event waits", "events wait"), stamp(r.Since))
	case Queued:
		say("waits for a place among those that are active, since %s", stamp(r.Since))
	case Parked, Quarantined:
		say("is %v and waits for an operator, since %s%s", r.Phase, stamp(r.Since), r.because())
	case Running, Undoing:
		r.sayRunning(say)
	default:
		say("is in no phase that is known")
	}
	if r.Paused {
		say("; it is paused, so that no further attempt begins until it is resumed")
	}
	if r.Early > 0 && r.Phase != Early {
		say("; %s", count(r.Early, "event waits for its time", "events wait for their time"))
	}
	return b.String() + "."
}

func (r Reason) sayRunning(say func(string, ...any)) {
	if r.Stuck {
		say("is stuck: it ")
	}
	if r.Phase == Undoing {
		say("takes back what was done%s; it ", r.because())
	}
	if len(r.Steps) == 0 {
		say("goes on at once, since %s", stamp(r.Since))
	}
	for i, s := range r.Steps {
		if i > 0 {
			say("; and ")
		}
		s.say(say)
	}
}

func (s StepReason) say(say func(string, ...any)) {
	what := fmt.Sprintf("step %q", s.Step)
	if s.Undo {
		what = "the undoing of " + what
	}
	if s.Does != "" {
		what += " (" + s.Does + ")"
	}
	last := ""
	if s.Last != "" {
		last = " (the one before: " + s.Last + ")"
	}
	if s.Between {
		say("waits to make attempt %d at %s%s, since %s", s.Attempt, what, last, stamp(s.Since))
		if !s.Next.IsZero() {
			say("; it begins at %s", stamp(s.Next))
		}
		return
	}
	say("waits for the outcome of attempt %d at %s%s, since %s", s.Attempt, what, last, stamp(s.Since))
	if s.Next.IsZero() {
		say(", without a time limit")
	} else {
		say("; it times out at %s", stamp(s.Next))
	}
}

func (r Reason) because() string {
	switch {
	case r.Why == "" && r.Step == "":
		return ""
	case r.Step == "":
		return ", because: " + r.Why
	}
	return fmt.Sprintf(", because of step %q: %s", r.Step, r.Why)
}

func count(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") }
