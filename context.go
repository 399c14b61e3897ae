package wherry

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/lane"
)

type (
	deliveryKey struct{}
	attemptKey  struct{}
	stageKey    struct{}
)

// delivery is one record on its way through the chain of policies. It is the
// handler's context, that of the lane but for itself, so that the functions
// below cost one lookup.
type delivery struct {
	context.Context // of the lane: it ends when the work is cut short

	run         *run
	partition   *partition
	item        *lane.Item
	record      *kgo.Record
	hop         *kgo.Record // the record as read, where it came by a hop
	outputs     outputs
	instruments *instruments // of the innermost Telemetry
	calls       int          // of the handler
	last        error        // what the handler's last call returned
	instead     error        // what stands for the handler's result: see instead()

	message any   // of a batch: the Message
	result  error // and what became of it

	interrupted atomic.Bool  // a wait was ended by a drain
	rests       atomic.Int64 // on which state of owned tables, see exact.rests; 0: on none

	mu      sync.Mutex
	parked  int // goroutines that wait
	parking *lane.Parking
	clock   *clock // of the attempt, nil without a Timeout
	stopped *clock // while it waits
}

func (d *delivery) Value(key any) any {
	if key == (deliveryKey{}) {
		return d
	}
	return d.Context.Value(key)
}

func deliveryFrom(ctx context.Context) *delivery {
	if d, ok := ctx.(*delivery); ok { // a Consumer without policies
		return d
	}
	d, _ := ctx.Value(deliveryKey{}).(*delivery)
	return d
}

// stageFrom returns the innermost stage of ctx: that of the layer in whose
// call ctx was made.
func stageFrom(ctx context.Context) *stage {
	switch ctx := ctx.(type) {
	case *delivery:
		return &ctx.outputs.root
	case *stage:
		return ctx
	}
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
		return d.run.c.Group
	}
	return ""
}

// KeyFrom returns what [ByKey] orders the record in hand by, also where the
// Consumer's Order is another one: what [Route].Key says, or its key. nil is in no
// order, and so is what is outside of a handler.
func KeyFrom(ctx context.Context) []byte {
	d := deliveryFrom(ctx)
	if d == nil {
		return nil
	}
	r := d.record
	if d.hop != nil {
		r = d.hop
	}
	if key := d.run.routes[d.partition.topic].Key; key != nil {
		return key(r)
	}
	return r.Key
}

// Outcome returns how often the handler itself was called for the record in
// hand, whatever policies did, and what its last call returned: a policy that
// gets nil learns whether the handler succeeded, or whether a policy inside
// handed the record on, to a delay topic say. 0 and nil outside of a handler.
func Outcome(ctx context.Context) (calls int, last error) {
	if d := deliveryFrom(ctx); d != nil {
		return d.calls, d.last
	}
	return 0, nil
}

// Refused returns why the broker refused outputs of the record in hand: the
// chain of policies then runs a second time, and its handler is not called but
// is seen to have failed with this error. A policy that stages without calling
// the handler asks, or it stages what is refused again, which stops the
// Consumer. nil in the first run and outside of a handler.
func Refused(ctx context.Context) error {
	if d := deliveryFrom(ctx); d != nil {
		return d.item.Refused
	}
	return nil
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

// detach copies the bytes of a record that waits: they are part of the fetch
// that it came with, all of which would stay in memory. It is for policies'
// waits: while a handler runs, others may read the record.
func (d *delivery) detach(ctx context.Context) {
	if s := stageFrom(ctx); s == nil || s.handler || d.hop != nil {
		return
	}
	r := d.record
	r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	r.Headers = slices.Clone(r.Headers)
	for i := range r.Headers {
		r.Headers[i].Value = bytes.Clone(r.Headers[i].Value)
	}
}

// tick sets the clock of the attempt that runs, and returns the one before.
func (d *delivery) tick(c *clock) (before *clock) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before, d.clock = d.clock, c
	return before
}
