package crashlab

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// SagaStep is one step of the saga that the laboratory runs. It is what the
// Definition is made of, and what the checker goes by.
type SagaStep struct {
	Name       string
	Stage      int
	Kind       StepKind
	Idempotent bool // it may be tried again when its outcome is not known
	Pivot      bool
	After      bool // the pivot
	Loose      bool // its effects are at least once, under one key
}

// StepKind is how a step is done.
type StepKind int

// Kinds of steps.
const (
	LocalStep StepKind = iota // in the engine's process, which writes its effects without a transaction
	CallStep                  // a request to a participant behind saga's barrier over Kafka
	EmitStep                  // an event, which another one answers
)

// SagaSteps are the steps, in order.
func SagaSteps() []SagaStep {
	return []SagaStep{
		{Name: "note", Stage: 0, Idempotent: true, Loose: true},
		{Name: "reserve", Stage: 1, Kind: CallStep, Idempotent: true},
		{Name: "ship", Stage: 2, Kind: CallStep},
		{Name: "count", Stage: 2, Idempotent: true, Loose: true},
		{Name: "charge", Stage: 3, Kind: CallStep},
		{Name: "bill", Stage: 4, Kind: EmitStep},
		{Name: "capture", Stage: 5, Kind: CallStep, Idempotent: true, Pivot: true},
		{Name: "notify", Stage: 6, Kind: CallStep, Idempotent: true, After: true, Loose: true},
		{Name: "close", Stage: 7, Idempotent: true, After: true, Loose: true},
	}
}

// SkippedStep is the one that some sagas do without.
const SkippedStep = "charge"

// stepNamed returns the step of that name.
func stepNamed(name string) (SagaStep, bool) {
	for _, s := range SagaSteps() {
		if s.Name == name {
			return s, true
		}
	}
	return SagaStep{}, false
}

// The times of each step.
const (
	sagaTimeout  = 3 * time.Second // of an attempt at a step that is not local
	sagaAttempts = 3               // before the pivot
	sagaWait     = 250 * time.Millisecond
	sagaWaitMax  = 2 * time.Second
)

// waitAfter is how long a step waits after its n-th attempt that failed.
func waitAfter(n int) time.Duration {
	d := sagaWait
	for ; n > 1 && d < sagaWaitMax; n-- {
		d *= 2
	}
	return min(d, sagaWaitMax)
}

// Reply is what becomes of an attempt that does not fail.
type Reply string

// Replies.
const (
	Says     Reply = "says"     // it is done, and the answer arrives
	Refuses  Reply = "refuses"  // the answer is no, now and later
	Silent   Reply = "silent"   // it is done, and the answer is lost
	Unheard  Reply = "unheard"  // the request is lost
	Twice    Reply = "twice"    // it is done, and the answer comes twice
	Contrary Reply = "contrary" // it is done, and after the answer comes one that says no
	Late     Reply = "late"     // it is done, and the answer comes when nobody waits any more
)

// Answer is what a participant is to do with the attempts at a step, or at its
// undoing: so many fail, then one has the Reply, and those after it just say.
type Answer struct {
	Fails int
	Reply Reply
}

// To returns what becomes of an attempt: whether it fails, and else its Reply.
func (a Answer) To(attempt int) (fails bool, reply Reply) {
	switch {
	case attempt <= a.Fails:
		return true, ""
	case attempt == a.Fails+1 || a.Reply == Refuses:
		return false, a.Reply
	}
	return false, Says
}

// unanswered reports whether the first attempt that does not fail has no answer
// in time.
func (a Answer) unanswered() bool {
	return a.Reply == Silent || a.Reply == Unheard || a.Reply == Late
}

// SagaSettings are those of the Definition and the Engine of a run. They follow
// from its seed.
type SagaSettings struct {
	Deadline  time.Duration // of each saga; 0 is none
	PivotUndo bool          // the pivot has an Undo; without one it is asked for until there is an answer
	Gated     bool          // commands are held while all of a step fails
	Retention time.Duration // how long it is known how a saga ended
}

// SettingsOf returns the settings of a run.
func SettingsOf(seed uint64) (s SagaSettings) {
	s.PivotUndo, s.Gated = seed%2 == 0, seed%4 == 1
	if seed%3 == 0 {
		s.Deadline = 3500 * time.Millisecond
		if seed%2 == 0 {
			s.Deadline = 12 * time.Second
		}
	}
	if s.Retention = time.Hour; seed%7 == 0 {
		s.Retention = 40 * time.Second
	}
	return s
}

// Script says what is to happen in one saga. It follows from the run's seed and
// the saga's number alone.
type Script struct {
	SagaSettings
	N     int
	Event bool // it is started by an event, else by Engine.Start
	Again bool // it is started twice
	Skip  bool // SkippedStep is not done
	Do    map[string]Answer
	Undo  map[string]Answer
}

// SagaID is the id of the n-th saga of a run.
func SagaID(n int) string { return "s-" + strconv.Itoa(n) }

// sagaNumber is the opposite, -1 for what is no id of ours.
func sagaNumber(id string) int {
	text, ok := strings.CutPrefix(id, "s-")
	n, err := strconv.Atoi(text)
	if !ok || err != nil || SagaID(n) != id {
		return -1
	}
	return n
}

// ScriptOf returns the script of the n-th saga of a run.
func ScriptOf(seed uint64, n int) Script {
	r := rand.New(rand.NewPCG(seed^0x5a9a, uint64(n)))
	s := Script{
		SagaSettings: SettingsOf(seed),
		N:            n, Event: r.IntN(4) == 0, Again: r.IntN(8) == 0 && seed%7 != 0, Skip: r.IntN(5) == 0,
		Do: map[string]Answer{}, Undo: map[string]Answer{},
	}
	odd := []int{0, 15, 15, 30}[r.IntN(4)] // percent of a step's going wrong
	refused := -1                          // the step that says no
	if r.IntN(100) < 35 {
		refused = r.IntN(7) // up to the pivot
	}
	for i, step := range SagaSteps() {
		s.Do[step.Name], s.Undo[step.Name] = Answer{Reply: Says}, Answer{Reply: Says}
		if r.IntN(100) < odd {
			s.Do[step.Name] = step.answer(r, false)
		}
		if r.IntN(100) < odd {
			s.Undo[step.Name] = step.answer(r, true)
		}
		if i == refused {
			a := s.Do[step.Name]
			a.Reply = Refuses
			s.Do[step.Name] = a
		}
	}
	return s
}

// answer draws one that is not plain.
func (s SagaStep) answer(r *rand.Rand, undo bool) (a Answer) {
	a.Reply = Says
	forever := undo || s.After
	switch {
	case s.Kind == EmitStep && undo:
		return a // nobody answers
	case s.Kind == EmitStep:
	case forever:
		a.Fails = r.IntN(4)
	case r.IntN(2) == 0:
		a.Fails = r.IntN(sagaAttempts + 1) // the last number is too often
	}
	if s.Kind != LocalStep {
		a.Reply = []Reply{Silent, Unheard, Twice, Twice, Contrary, Late, Late}[r.IntN(7)]
	}
	if s.Kind == EmitStep && a.Reply == Unheard {
		a.Reply = Silent
	}
	if forever && a.Reply == Contrary {
		a.Reply = Twice // a no where there is no way back is for people to decide
	}
	return a
}

// Does reports whether the saga has this step.
func (s Script) Does(step SagaStep) bool { return !s.Skip || step.Name != SkippedStep }

// Ends says how the saga ends if nothing goes wrong but what is written here,
// and whether it must end so whatever else goes wrong: what was refused cannot
// come to a good end.
func (s Script) Ends() (phase string, whatever bool) {
	phase = donePhase
	for _, step := range SagaSteps() {
		a := s.Do[step.Name]
		if step.After || !s.Does(step) {
			continue
		}
		spent := a.Fails
		if a.unanswered() {
			spent++
		}
		asked := step.Pivot && !s.PivotUndo // for ever, once an attempt may have done it
		certain := true
		switch {
		case a.Reply == Refuses && a.Fails < sagaAttempts:
		case a.Fails >= sagaAttempts:
			certain = !s.Gated && !asked // a gate that is shut has attempts cost nothing
		case a.unanswered() && asked:
			continue
		case a.unanswered() && !step.Idempotent, spent >= sagaAttempts:
			certain = a.Reply != Late && (!step.Idempotent || !s.Gated) // or it may come in time where all is late
		default:
			continue
		}
		if phase = undonePhase; certain {
			return phase, true
		}
	}
	return phase, false
}

// What phases are called in the records of sagas that have ended.
const (
	donePhase   = "done"
	undonePhase = "undone"
)
