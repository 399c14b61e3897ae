package wherry

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/lane"
)

const defaultBatch = 100

// Batch returns a route that decodes and validates records of the topic one by
// one and calls fn with up to 100 of them together; [Route.Sized] asks for
// another number. fn returns a result for each message, in their order, or nil
// when all are done. Any other number of results is a failure of each record.
//
// Every record has policies of its own: one that does not decode is not in the
// batch, one that fails is retried or dead-lettered alone, and those that fail
// together and are to be tried again at the same time come together again. A
// batch counts as one of the Consumer's Concurrency.
//
// fn publishes with the Context of the message that an output belongs to. The
// context it is given has no record and serves for everything else. With
// either, [Wait] parks the batch as a whole; when such a wait is interrupted
// none of its records counts as handled. The Consumer's Timeout is for a call
// of fn.
//
// The records of a batch pass their policies side by side until they meet at
// fn: a policy must not let one of them wait for another, as with a lock that
// it holds while it calls the next handler.
//
// The messages of a batch are in the order of their partition. [ByPartition],
// the next batch begins when all records of the one before are done, so a
// record that is tried again comes after those of its batch that were done at
// once. [ByKey], a batch has at most one record of each key.
func (e Event[T]) Batch(fn func(ctx context.Context, batch []Message[T]) []error) Route {
	handle := func(ctx context.Context, r *kgo.Record) error {
		v, err := e.Decode(r)
		if err != nil {
			return err
		}
		m := Message[T]{Context: ctx, Record: r, Value: v}
		d := deliveryFrom(ctx)
		if d == nil {
			return each(ctx, []Message[T]{m}, fn)[0]
		}
		own := d.tick(nil) // the clock of the batch counts
		own.stop()
		d.message = arrival[T]{m, own}
		d.result = &RecordError{Cause: CausePanic, Err: errGoexit} // unless fn returns
		d.item.Arrive(func(items []*lane.Item) { together(d, items, fn) })
		d.message = nil
		d.tick(own)
		own.start()
		return d.result
	}
	return Route{Topic: e.Topic, Handler: handle, Size: defaultBatch}
}

// Sized returns a route of [Event.Batch] for batches of up to size records,
// which wait up to linger for that many: 0 means that they do not wait.
func (r Route) Sized(size int, linger time.Duration) Route {
	r.Size, r.Linger = size, linger
	return r
}

// arrival is a message that has come to its batch, with the clock of its own
// attempt.
type arrival[T any] struct {
	Message[T]
	clock *clock
}

// together calls fn with the messages of the deliveries that have arrived, and
// hands each its result.
func together[T any](d *delivery, items []*lane.Item, fn func(context.Context, []Message[T]) []error) {
	batch := make([]Message[T], len(items))
	deliveries, clocks := make([]*delivery, len(items)), make([]*clock, len(items))
	for i, it := range items {
		deliveries[i] = it.Value.(*delivery)
		own := deliveries[i].message.(arrival[T])
		batch[i], clocks[i] = own.Message, own.clock
	}
	ctx := context.WithValue(d.Context, batchKey{}, d)
	if limit := d.run.c.Timeout; limit > 0 {
		limited, all := within(ctx, limit)
		defer all.end()
		for _, d := range deliveries {
			d.tick(all)
		}
		// The messages' own contexts end with that of the batch.
		defer context.AfterFunc(limited, func() {
			for _, own := range clocks {
				own.strike()
			}
		})()
		ctx = limited
	}
	results := each(ctx, batch, fn)
	interrupted := slices.ContainsFunc(deliveries, func(d *delivery) bool { return d.interrupted.Load() })
	for i, d := range deliveries {
		d.result = results[i]
		if interrupted { // the call was cut short, and with it what it did for the others
			d.interrupted.Store(true)
		}
	}
}

// batchKey is for a record of a batch, in the context of the batch.
type batchKey struct{}

// each calls fn and returns a result for each message, whatever fn does.
func each[T any](ctx context.Context, batch []Message[T], fn func(context.Context, []Message[T]) []error) []error {
	var results []error
	err := guard(func(ctx context.Context, _ *kgo.Record) error {
		results = fn(ctx, batch)
		return nil
	})(ctx, nil)
	switch {
	case err == nil && results == nil:
		return make([]error, len(batch))
	case err == nil && len(results) == len(batch):
		return results
	case err == nil:
		err = Permanent(fmt.Errorf("the batch handler returned %d results for %d records", len(results), len(batch)))
	}
	results = make([]error, len(batch))
	for i := range results {
		results[i] = err
	}
	return results
}
