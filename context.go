package wherry

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
)

type (
	deliveryKey struct{}
	attemptKey  struct{}
	stageKey    struct{}
)

// delivery is one record on its way through the chain of policies. It is in
// the handler's context, so that the functions below cost one lookup.
type delivery struct {
	group   string
	record  *kgo.Record
	hop     *kgo.Record // the record as read, where it came by a hop
	outputs outputs
	refused *OutputError // set in the second run of a chain, see refusable
}

func deliveryFrom(ctx context.Context) *delivery {
	d, _ := ctx.Value(deliveryKey{}).(*delivery)
	return d
}

// stageFrom returns the innermost stage of ctx: that of the layer in whose
// call ctx was made.
func stageFrom(ctx context.Context) *stage {
	if s, ok := ctx.Value(stageKey{}).(*stage); ok {
		return s
	}
	if d := deliveryFrom(ctx); d != nil {
		return &d.outputs.root
	}
	return nil
}

// RecordFrom returns the record whose handler was given ctx, nil outside of
// one. It must not be kept after the handler returned.
func RecordFrom(ctx context.Context) *kgo.Record {
	if d := deliveryFrom(ctx); d != nil {
		return d.record
	}
	return nil
}

// GroupFrom returns the consumer group whose handler was given ctx, "" outside
// of one.
func GroupFrom(ctx context.Context) string {
	if d := deliveryFrom(ctx); d != nil {
		return d.group
	}
	return ""
}

// Attempt returns how often the record in hand has been tried, with this
// time: 1 at first, and outside of a handler.
func Attempt(ctx context.Context) int {
	if n, ok := ctx.Value(attemptKey{}).(int); ok {
		return n
	}
	return 1
}

// WithAttempt returns a context in which [Attempt] is n. Policies that call
// their handler again give it one.
func WithAttempt(ctx context.Context, n int) context.Context {
	return context.WithValue(ctx, attemptKey{}, n)
}
