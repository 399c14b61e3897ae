package saga

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// input is one thing that happens to an instance.
type input struct {
	kind inputKind
	// op is what a reply or a local result answers.
	op Op
	// record is that of a reply or an event.
	record *kgo.Record
	// err is why a local step did not succeed, and result what it returned.
	err    error
	result any
	// start: the encoded state, or the first state of a trigger.
	payload []byte
	trace   string
	// queue has a start wait for its inAdmit.
	queue bool
	// verb.
	verb verb
}

type inputKind uint8

const (
	// inStart begins the saga: with the payload, or with an event of a trigger,
	// the record.
	inStart inputKind = iota + 1
	inAdmit           // a queued saga may begin
	inReply
	inEvent
	inLocal
	inTick // look at the timers
	inGo   // go on: what was decided is committed
	inVerb
)

// verb is what an operator asks for.
type verb struct {
	id     string // the same where it is sent twice
	name   VerbName
	actor  string
	reason string
	step   string // skip, complete, retry: which one; "" the one in hand
	state  []byte // complete: a new state; nil leaves it
}

// VerbName is what an operator may do with a saga.
type VerbName string

// Verbs.
const (
	// Cancel rejects the step in hand, before the pivot: attempts that are out
	// settle, and what was done is undone.
	Cancel VerbName = "cancel"
	// Retry tries the step in hand again at once, its attempts counted anew:
	// also of a saga that is parked, stuck or quarantined.
	Retry VerbName = "retry"
	// Skip passes the step in hand by, doing or undoing, as if it were nothing.
	Skip VerbName = "skip"
	// Complete has the step in hand count as done, or as undone: an operator
	// did it by hand.
	Complete VerbName = "complete"
	// Undo is Cancel without waiting: attempts that are out count as unknown,
	// and are undone.
	Undo VerbName = "undo"
	// Pause begins no further attempt; what comes in is taken in.
	Pause VerbName = "pause"
	// Resume ends a Pause, a quarantine, and what was parked for want of code.
	Resume VerbName = "resume"
	// Purge forgets a saga at once, whatever it was doing.
	Purge VerbName = "purge"
)

// env is what the machine needs to know of the world.
type env struct {
	now time.Time
	// gate says until when no attempt of a step may begin; the zero time means
	// now. nil means never closed.
	gate func(step int) time.Time
	// eventTTL is how long an event waits; 0 means 1 h.
	eventTTL time.Duration
	// full says that no more events may wait: they expire at once.
	full bool
	// again says that the input may have been handled before, by somebody who
	// did not come to commit it: local steps may have been done then.
	again bool
}

// effect is one thing to be done after next.
type effect struct {
	kind effectKind
	op   Op  // of what is sent or run
	step int // its index in the plan
	// record of a send: key, value, topic and headers, but not yet where its
	// reply goes.
	record *kgo.Record
	// timeout of a send or a local, 0 means none.
	timeout time.Duration
	// durable local effects wait until the instance is committed.
	durable bool
	// refused is the answer to a verb that was not applied.
	refused string
	// event of an expiry: what waited for too long.
	event waiting
	// stuck is what the operators are told.
	stuck Stuck
}

type effectKind uint8

const (
	effectSend   effectKind = iota + 1
	effectLocal             // run it, and give the result to next
	effectExpire            // an event goes to the dead letters
	effectRefuse            // a verb cannot be applied
	effectForget            // purge: delete the instance
	effectStuck             // tell the operators
)
