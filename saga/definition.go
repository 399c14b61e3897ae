package saga

import (
	"time"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/retry"
)

// A Definition says what a saga is: its steps, in order, each with what undoes
// it. S is the saga's state, the payload that it was started with and that its
// steps change. A Definition is data: an [Engine] runs it, the linter checks it
// ([Definition.Check]), and [Definition.Mermaid] draws it.
type Definition[S any] struct {
	// Name names the saga and its topics. All Definitions of one [Engine] have
	// the same. Required: letters, digits, '.', '_' and '-'.
	Name string
	// Version tells Definitions of one Name apart. A saga keeps the one that it
	// began with; new ones begin with the highest. 0 means 1; at most 2147483647.
	Version int
	// Start are the events that start a saga, besides [Engine.Start].
	Start []Trigger[S]
	// Steps are done one after the other. At least one.
	Steps []Step[S]
	// Deadline is how long a saga may take until its pivot is done. Then the step
	// in hand counts as rejected, and is undone too where an attempt is out, since
	// that may have been done. 0 means none.
	Deadline time.Duration
	// StuckAfter is how long an undo, or a step after the pivot, may fail, or be
	// held by a [Gate], before the saga shows as stuck; it goes on trying. 0 means
	// 15 minutes.
	StuckAfter time.Duration
	// Codec turns S into bytes and back; nil means [wherry.JSON].
	Codec wherry.Codec
	// Upcast turns a state as this Version once wrote it into what Codec reads
	// today; it must leave alone what has today's form already. nil means that
	// nothing has changed.
	Upcast func(state []byte) ([]byte, error)
}

// A Step is one thing that a saga does.
type Step[S any] struct {
	// Name names the step within its Definition; it is part of the idempotency
	// key of what it does, see [Op]. Required, unique, at most 64 bytes of
	// letters, digits, '_', '-' and ' '.
	Name string
	// Do is what is done: a [Call], an [Emit], a [Local], a [Do] or an [Await].
	// Required, except in a step with Parallel.
	Do Action[S]
	// Undo is what takes it back, when a later step is rejected. It is tried
	// for ever, and must tolerate being done twice and finding nothing to undo.
	Undo Action[S]
	// NoUndo says that there is nothing to take back: without it, a step before
	// the pivot needs an Undo.
	NoUndo bool
	// Timeout is how long an attempt may take, to do or to undo. After it the
	// outcome is unknown: a step that is Idempotent is tried again, any other is
	// undone. 0 means until the saga's Deadline, and for an undo a minute.
	Timeout time.Duration
	// Idempotent says that doing the step again under the same [Op] changes
	// nothing.
	Idempotent bool
	// Retry says when an attempt that failed is made again, and an unknown one if
	// the step is Idempotent. The zero Policy makes 3 attempts. Undoing, and after
	// the pivot, its Attempts and Within do not count.
	Retry retry.Policy
	// Parallel are steps that are done at the same time, as one stage; the next
	// step begins when all are done. They have no Parallel of their own, and the
	// step that has them has nothing else but a Name and a When.
	Parallel []Step[S]
	// When says whether the step is done at all, from the state when it is
	// reached. It must be pure. nil means yes.
	When func(S) bool
	// Pivot is the point of no return: until it is done, what goes wrong is
	// undone; after it the saga only goes forward. At most one step.
	Pivot bool
	// Durable makes a Local step wait until what was done before it is committed.
	// Otherwise a crash may have the Local steps before it, and this one, done once
	// more. If one of those before it then ends differently than the first time,
	// this one is undone, if it has an Undo. A pivot always waits.
	Durable bool
}

// defaultStuckAfter is that of [Definition].StuckAfter.
const defaultStuckAfter = 15 * time.Minute
