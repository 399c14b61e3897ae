package wherry

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A Handler does the work for one record. nil means done: the record's offset
// may be committed once the outputs that it staged with [Publish] are
// acknowledged. An error that no [Policy] handles stops the Consumer with a
// [*RecordError] and the offset uncommitted; a panic counts as an error.
//
// ctx carries the record ([RecordFrom]), the group ([GroupFrom]) and the
// attempt ([Attempt]). It ends when the partition is taken away or when the
// drain time after a shutdown is over, and what a handler returns after that
// is neither counted nor committed: the record comes again. So a handler must
// bear to see a record twice.
//
// r is shared by all layers around a handler: a layer that wants to hand on
// another record passes a copy. r must not be kept after the handler returned.
type Handler func(ctx context.Context, r *kgo.Record) error

// A Route says which handler takes the records of a topic. [Event.Handler]
// makes one; a Consumer takes a list of them.
type Route struct {
	// Topic is the topic to read.
	Topic string
	// Handler is called for each record of it.
	Handler Handler
	// Match, if set, says whether this route takes r. The first route of a
	// topic that matches takes the record; a record that none takes is an
	// error of cause [CauseUndecodable]. At most one route of a topic, the last
	// one, has none. It must be pure and safe for concurrent use.
	Match func(r *kgo.Record) bool
	// Key, if set, returns what [ByKey] orders the records of Topic by, in place
	// of their keys: those for which it returns the same are handled one after
	// the other, and nil is in no order. It is called for records of delay topics
	// too. Of several routes of a topic the first that has one counts. It must be
	// pure, quick and safe for concurrent use.
	Key func(r *kgo.Record) []byte
	// Size and Linger are of batches, see [Event.Batch]: how many records at
	// most, and how long fewer wait for more. Size 0 means one by one.
	Size   int
	Linger time.Duration
	// Prepare, if set, takes part in the configuration as that of a [Preparer]
	// does, after those of the policies.
	Prepare func(*Setup) error
}

// When returns the route narrowed to the records that match.
func (r Route) When(match func(r *kgo.Record) bool) Route {
	r.Match = match
	return r
}

// HasHeader matches records whose last header of that key has that value.
func HasHeader(key, value string) func(*kgo.Record) bool {
	return func(r *kgo.Record) bool {
		for i := len(r.Headers) - 1; i >= 0; i-- {
			if r.Headers[i].Key == key {
				return string(r.Headers[i].Value) == value
			}
		}
		return false
	}
}

// router calls the first of a topic's routes that takes the record.
func router(routes []Route) Handler {
	if len(routes) == 1 && routes[0].Match == nil {
		return routes[0].Handler
	}
	return func(ctx context.Context, r *kgo.Record) error {
		for _, route := range routes {
			if route.Match == nil || route.Match(r) {
				return route.Handler(ctx, r)
			}
		}
		return &RecordError{Cause: CauseUndecodable, Err: fmt.Errorf("no route of topic %s matches the record", r.Topic)}
	}
}

// guard turns a panic of h into a *RecordError of cause CausePanic.
func guard(h Handler) Handler {
	return func(ctx context.Context, r *kgo.Record) (err error) {
		defer func() {
			if p := recover(); p != nil {
				cause, ok := p.(error)
				if !ok {
					cause = fmt.Errorf("%v", p)
				}
				err = &RecordError{Cause: CausePanic, Err: fmt.Errorf("panic: %w", cause), Stack: string(debug.Stack())}
			}
		}()
		return h(ctx, r)
	}
}
