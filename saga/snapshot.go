package saga

import "time"

// An Instance is one saga as it was at a time, with its state.
type Instance[S any] struct {
	Snapshot
	State S
}

// A Snapshot is one saga as it was at a time, without its code: steps have their
// names where somebody knew them, otherwise "step 1" and so on.
type Snapshot struct {
	Saga    string // the Definition's Name
	ID      string
	Version int // of the Definition that it began with
	Phase   Phase
	// Before is the phase that a Parked or Quarantined one had.
	Before Phase
	Paused bool
	// Stuck is whether an undo, or a step after the pivot, has failed for longer
	// than the Definition's StuckAfter.
	Stuck bool
	// Raw is the state as the Definition's Codec wrote it.
	Raw   []byte
	Began time.Time
	Ended time.Time // zero while it has not
	// Next is when the engine will do something though nothing comes in: the next
	// attempt, or the end of a time limit. Zero means never.
	Next time.Time
	// Step and Why say why it is undoing, undone, parked or quarantined. Step is
	// "" where it was none.
	Step string
	Why  string
	// Steps are how far each has come, in their order.
	Steps []Progress
	// Early are events that came before their time, and wait.
	Early []EarlyEvent
	// History are the last transitions, at most 64, the oldest first; Moves is how
	// many there were in all.
	History []Transition
	Moves   uint64
	// Trace is the traceparent of what started it, "" for none.
	Trace string
	// Partition and Offset are those of the record in the state topic, where it was
	// read there (see [Engine.List]). Offset is -1 where an owner answered.
	Partition int32
	Offset    int64

	in      *instance // nil where it could not be read
	outline *Outline  // nil where nobody knows it
}

// Timeline is the history as text, a line for a transition, with times since the
// first that there is.
func (s Snapshot) Timeline() string {
	if s.in == nil {
		return ""
	}
	names := make([]string, len(s.Steps))
	for i, p := range s.Steps {
		names[i] = p.Step
	}
	return timeline(names, s.in)
}

// Progress is how far one step has come.
type Progress struct {
	Step string
	// Status is one of: waiting, doing, between (attempts), done, skipped, rejected,
	// unknown, undoing, undo wait (between attempts to undo), undone.
	Status string
	// Doubt is whether the outcome of an attempt is not known.
	Doubt   bool
	Attempt int       // of what is going on, from 1
	Began   time.Time // the first attempt
	Due     time.Time // when the attempt times out, or the next one begins; zero is never
}

// EarlyEvent is an event that came before its time.
type EarlyEvent struct {
	Topic     string
	Partition int32
	Offset    int64
	Came      time.Time
}

// A Transition is one line of a saga's history.
type Transition struct {
	At time.Time
	// What is one of: started, queued, sent, done, skipped, rejected, failed, timed
	// out, undoing, undone, undo failed, deadline, event (that waits), ignored, verb,
	// parked, quarantined, stuck, ended.
	What    string
	Step    string // "" for none
	Attempt int    // 0 for none
	Note    string
}

// snapshot makes an instance readable.
func snapshot(saga string, in *instance, o *Outline) Snapshot {
	s := Snapshot{
		Saga: saga, ID: in.id, Version: in.version, Phase: in.phase, Before: in.before, Paused: in.paused, Stuck: in.stuck,
		Raw: in.raw, Began: at(in.began), Ended: at(in.ended), Next: at(in.due()), Step: o.step(in.whyStep), Why: in.why,
		Moves: in.moves, Trace: in.trace, Offset: -1, in: in, outline: o,
	}
	for i, p := range in.steps {
		s.Steps = append(s.Steps, Progress{o.step(i), p.status.String(), p.doubt, int(p.attempt), at(p.began), at(p.due)})
	}
	for _, e := range in.events {
		s.Early = append(s.Early, EarlyEvent{e.topic, e.partition, e.offset, at(e.came)})
	}
	for _, t := range in.history {
		s.History = append(s.History, Transition{at(t.at), t.what.String(), o.step(t.step), int(t.attempt), t.note})
	}
	return s
}

// at is a time of an instance, zero for 0.
func at(millis int64) time.Time {
	if millis == 0 {
		return time.Time{}
	}
	return time.UnixMilli(millis)
}
