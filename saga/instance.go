package saga

// A Phase is where a saga is in its life.
type Phase uint8

// Phases.
const (
	// Early is no saga yet: events for it came before its start, and wait.
	Early Phase = iota + 1
	// Queued is started and waits for one of those that are active to end.
	Queued
	// Running is doing its steps.
	Running
	// Undoing is taking back what was done.
	Undoing
	// Parked waits for an operator.
	Parked
	// Quarantined waits for an operator, because what came in for it cannot be
	// handled: see Instance.
	Quarantined
	// Done has ended well.
	Done
	// Undone has ended with all that was done taken back.
	Undone
)

// Ended reports whether nothing can happen any more.
func (p Phase) Ended() bool { return p == Done || p == Undone }

// String is its name in lower case.
func (p Phase) String() string {
	names := [...]string{"none", "early", "queued", "running", "undoing", "parked", "quarantined", "done", "undone"}
	if int(p) < len(names) {
		return names[p]
	}
	return "unknown"
}

// stepStatus is how far one step of one saga has come.
type stepStatus uint8

const (
	stepWaiting  stepStatus = iota // not begun
	stepDoing                      // an attempt is out
	stepBetween                    // between two attempts: due says when
	stepDone                       // it succeeded
	stepSkipped                    // When said no, or an operator
	stepRejected                   // it is known not to be done, and will not be
	stepUnknown                    // it may be done, and has to be undone
	stepUndoing                    // an attempt to undo it is out
	stepUndoWait                   // between two of those
	stepUndone                     // taken back
)

// stepState is a step of an instance.
type stepState struct {
	status  stepStatus
	doubt   bool  // the outcome of an attempt is not known
	attempt int32 // of what is going on, do or undo, from 1
	tries   int32 // those of them that count in the schedule and have failed
	began   int64 // when the first that counts began, milliseconds since 1970
	due     int64 // when the attempt times out, or the next one begins; 0 never
	stuckAt int64 // when it is stuck, if it fails until then; 0 never
}

// instance is a saga: what the state topic has of it. Times are in milliseconds
// since 1970.
type instance struct {
	id      string // the key
	version int    // of its Definition
	phase   Phase
	before  Phase // parked or quarantined: the phase that it had
	failing bool  // running, but only until the stage in hand has settled: then it is undone
	paused  bool
	stuck   bool
	haunted bool // what came while there was no code was perhaps handled before, by a process that has it
	stage   int  // the stage in hand
	steps   []stepState

	began, ended int64
	from         uint64 // hash of the payload that it was started with
	deadline     int64  // 0 for none, or when the pivot is done
	// why it is failing, undoing, parked or quarantined: the step, -1 for none,
	// and the text. Parked with no step is for want of code.
	whyStep int
	why     string
	// parked or quarantined: those of before.
	beforeStep int
	beforeWhy  string

	events  []waiting // that wait for their step, or for the saga
	expires int64     // when the first of them has waited long enough; 0 never
	seen    []uint64  // hashes of the last verbs and events that were taken in, which count once
	history []transition
	moves   uint64 // transitions in all; the history has the last of them
	trace   string // traceparent of what started it

	raw   []byte // the state, encoded
	state any    // a *S; nil until it is decoded
	dirty bool   // state was changed and raw is to be made anew
}

// waiting is an event that came before its time, or for want of code a reply.
type waiting struct {
	topic      string
	key, value []byte
	came       int64
	partition  int32 // of the topic
	offset     int64
	headers    []pair
	// a reply: what it answers; step is "" for an event.
	step    string
	undo    bool
	attempt int32
}

type pair struct{ key, value string }

// transition is one line of an instance's history.
type transition struct {
	at      int64
	what    move
	step    int // -1 for none
	attempt int32
	note    string // cut to 200 bytes
}

// move is what happened in a transition.
type move uint8

const (
	moveStarted move = iota + 1
	moveQueued
	moveSent     // an attempt to do a step began
	moveDone     // a step
	moveSkipped  // a step
	moveRejected // a step, see note
	moveFailed   // an attempt
	moveTimedOut // an attempt
	moveUndoing  // an attempt to undo a step began
	moveUndone   // a step
	moveUndoFailed
	moveDeadline
	moveEvent   // an event that waits
	moveIgnored // an input that changed nothing: late, doubled, or for nobody
	moveVerb
	moveParked
	moveQuarantined
	moveStuck
	moveGaveUp // a step, after the last attempt that its policy allows
	moveEnded
)

// maxHistory is how many transitions an instance keeps.
const maxHistory = 64

// String is its name in lower case.
func (m move) String() string {
	names := [...]string{
		"none", "started", "queued", "sent", "done", "skipped", "rejected", "failed", "timed out", "undoing", "undone",
		"undo failed", "deadline", "event", "ignored", "verb", "parked", "quarantined", "stuck", "gave up", "ended",
	}
	if int(m) < len(names) {
		return names[m]
	}
	return "unknown"
}

// String is its name in lower case.
func (s stepStatus) String() string {
	names := [...]string{
		"waiting", "doing", "between", "done", "skipped", "rejected", "unknown", "undoing", "undo wait", "undone",
	}
	if int(s) < len(names) {
		return names[s]
	}
	return "unknown"
}
