package saga

import "context"

// An Op is what a participant is asked to do for a saga: a step, or its undoing.
// Key is the idempotency key, the same for every attempt.
type Op struct {
	Saga    string // the Definition's Name
	ID      string // the saga's id
	Step    string
	Undo    bool
	Attempt int // from 1; for logs only, never for a key
}

type opKey struct{}

// OpFrom is in the real file.
func opFrom(ctx context.Context) (Op, bool) { op, ok := ctx.Value(opKey{}).(Op); return op, ok }
