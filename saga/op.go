package saga

import (
	"context"
	"fmt"

	"github.com/wherry-go/wherry"
	headers "github.com/wherry-go/wherry/internal/header"
	"github.com/wherry-go/wherry/reqreply"
)

// An Op is what a participant is asked to do for a saga: a step, or its undoing.
// Handlers of those who are called, and Local steps, get it from [OpFrom].
//
// # What a participant must tolerate
//
// A saga asks again, under the same [Op.Key], when an answer was a failure or did
// not come in time, and a Consumer reads a record again after a crash. And an undo
// may come before what it undoes, which then must not be done any more. What that
// takes depends on where the handler's effects are:
//
//   - Idempotent in themselves (an upsert by the saga's id, a call of a service
//     that takes Op.Key as its idempotency key): a Consumer that is at least once,
//     the default, is enough. It answers 3 to 5 ms sooner, since it waits for no
//     transaction (BenchmarkParticipant in internal/interop/participants).
//   - In a database: the same, with a [Barrier] in the handler's transaction.
//   - Kafka records ([wherry.Publish]) or owned tables: a Consumer with Delivery
//     ExactlyOnce, and [reqreply.Method].Dedupe with HandlerUndo.
//
// A Consumer without ExactlyOnce that is cut off before its offset is committed
// publishes its records again and answers again; the saga ignores the second
// answer.
type Op struct {
	Saga string // the Definition's Name
	ID   string // the saga's id, at most 256 bytes
	Step string
	Undo bool // take back what the step did
	// Done is of an Undo: the saga knows that the step was done. Otherwise it may
	// not have been, or be in hand yet.
	Done    bool
	Attempt int // from 1, of Do and of Undo; for logs only, never for a key
}

// Key is the idempotency key: the saga, its id, the step and the direction, the
// same for each attempt and for no other Op. It is printable ASCII without
// spaces, of as many bytes as those have and a few more: three for each of a
// character that is not allowed in a URL's path.
func (o Op) Key() string { return headers.Op(o).Key() }

// String is for people.
func (o Op) String() string {
	return fmt.Sprintf("saga %s %q: %s %s, attempt %d", o.Saga, o.ID, headers.Op(o).Direction(), o.Step, o.Attempt)
}

type opKey struct{}

// OpFrom returns what the handler that was given ctx is asked for: in a Local
// step, and in the handler of a [reqreply.Method] whose request is a saga's, of
// whatever Profile. Elsewhere, and where the headers of a request contradict each
// other, it is not ok.
//
// Whoever can write to a topic of requests can pretend to be a saga.
func OpFrom(ctx context.Context) (op Op, ok bool) {
	if op, ok := ctx.Value(opKey{}).(Op); ok {
		return op, true
	}
	r := wherry.RecordFrom(ctx)
	if r == nil {
		return Op{}, false
	}
	saga, _ := headers.Get(r, headers.Saga)
	if saga == "" {
		return Op{}, false
	}
	direction, _ := headers.Get(r, headers.SagaDirection)
	_, done := headers.Get(r, headers.SagaDone)
	found, ok := headers.OpOf(saga, direction, reqreply.CorrelationID(ctx), done)
	return Op(found), ok
}

// WithOp returns a context in which [OpFrom] is op: for the tests of handlers, and
// for participants that are asked in another way than over Kafka.
func WithOp(ctx context.Context, op Op) context.Context { return context.WithValue(ctx, opKey{}, op) }
