package wherry

import (
	"context"
	"fmt"
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
// context it is given has no record and serves for everything else.
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
		d.message = m
		d.item.Arrive(func(items []*lane.Item) { together(d, items, fn) })
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

// together calls fn with the messages of the deliveries that have arrived, and
// hands each its result.
func together[T any](d *delivery, items []*lane.Item, fn func(context.Context, []Message[T]) []error) {
	batch := make([]Message[T], len(items))
	for i, it := range items {
		d, _ := it.Value.(*delivery)
		batch[i], _ = d.message.(Message[T])
		d.result = errGoexit // unless fn returns
	}
	ctx := d.Context
	if limit := d.run.c.Timeout; limit > 0 {
		limited, clock := within(ctx, limit)
		defer clock.end()
		ctx = limited
	}
	results := each(ctx, batch, fn)
	for i, it := range items {
		it.Value.(*delivery).result = results[i]
	}
}

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
