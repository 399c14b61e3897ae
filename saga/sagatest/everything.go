package sagatest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/saga"
)

// An Outcome is what comes of an attempt at a step, in [Everything].
type Outcome string

// Outcomes.
const (
	// OK is a success: a reply, one of the events that are a Success, a Local step
	// that returns.
	OK Outcome = "ok"
	// Refused is a no, for good. Events that are a Failure are it too.
	Refused Outcome = "refused"
	// Failed is a failure: the attempt has done nothing, and another one may.
	Failed Outcome = "failed"
	// Lost is a request, or an answer, that never comes: what was asked may be done.
	Lost Outcome = "lost"
	// Late is an answer that comes when the attempt has timed out.
	Late Outcome = "late"
	// Twice is a success of which the record comes twice.
	Twice Outcome = "twice"
)

// World says what answers a saga in [Everything]. The zero World answers with zero
// values, and lets everything happen.
type World[S any] struct {
	// ID is that of the saga. "" means o-1.
	ID string
	// Replies are what Calls are answered with, by step ("undo reserve" for the
	// undoing), and Results what Local steps return. Those of others are zero
	// values. Functions of Local steps are not called.
	Replies map[string]any
	Results map[string]any
	// Events are those that may come, see [Sample]; of others, zero values under the
	// saga's id as the key.
	Events []AnEvent
	// Never are outcomes that are not to be expected of a step: a wait for a
	// person, say, is never Lost.
	Never map[string][]Outcome
	// Always is asked about the state whenever something has happened.
	Always func(S) error
	// Ends is asked about each end.
	Ends func(End[S]) error
	// Faults is how many outcomes other than OK there are at most in a run of
	// which each combination is tried. 0 means 2.
	Faults int
	// Runs is how many of these are tried at most. 0 means 10,000.
	Runs int
	// Seeds is how many runs are made beyond, with any number of faults, chosen at
	// random: the same in each test. 0 means 200.
	Seeds int
}

// End is how one run of a saga ended.
type End[S any] struct {
	Phase saga.Phase // Done, Undone or Parked
	State S
	// Done are the steps that are done, or may be, at the end: of one that is
	// Undone, what nobody takes back.
	Done []string
}

// AnEvent is a [Sample].
type AnEvent struct {
	topic  string
	record func(id string) (*kgo.Record, error)
}

// Sample is an event that may end a step in [Everything].
func Sample[T any](e wherry.Event[T], v T) AnEvent {
	return AnEvent{e.Topic, func(id string) (*kgo.Record, error) { return e.Record(id, v) }}
}

// Everything runs a saga with every combination of outcomes, up to World.Faults faults
// in a run, in every order of replies that come at the same time, and then with many
// outcomes at random. The process may also die before a Local step is committed, and
// then do it again. The following must hold in each run; otherwise the test fails
// with the run that has the fewest faults, and its transcript:
//
//   - The saga ends: done, or undone, or parked after its pivot. It never waits for
//     ever, and is never quarantined.
//   - If it is undone, everything that was done, or may have been, is undone, except
//     steps with NoUndo, and nothing else; and a stage is undone before those that
//     were done before it.
//   - If it is done, nothing was undone.
//   - A record that comes twice changes nothing the second time.
//   - What the World's Always and Ends say. They find an undo that takes back too
//     little, or a NoUndo that should have been an Undo.
//
// The last one is yours: without it, Everything tests what an Engine does with the
// Definition, and knows nothing about its meaning.
func Everything[S any](t testing.TB, d saga.Definition[S], start S, w World[S]) {
	t.Helper()
	w.ID = cmp.Or(w.ID, "o-1")
	m, err := saga.NewMachine(d, w.ID, epoch)
	x := &explorer[S]{m: m, start: start, w: w, ends: map[string]int{}}
	if err == nil {
		err = x.check()
	}
	if err != nil {
		t.Fatalf("sagatest: %v", err)
	}
	if f := x.explore(cmp.Or(w.Faults, 2), cmp.Or(w.Runs, 10_000)); f != nil {
		t.Fatalf("sagatest: %s", f)
	}
	every := x.runs
	if f := x.random(cmp.Or(w.Seeds, 200)); f != nil {
		t.Fatalf("sagatest: %s", f)
	}
	var ends []string
	for _, e := range slices.Sorted(maps.Keys(x.ends)) {
		ends = append(ends, fmt.Sprintf("%d %s", x.ends[e], e))
	}
	left := ""
	if x.left {
		left = ", not all of them, for there are more than World.Runs"
	}
	t.Logf("sagatest: %d combinations%s, and %d at random: %s", every, left, x.runs-every, strings.Join(ends, ", "))
}
