package wherry

import (
	"context"
	"errors"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/lane"
)

// work handles one record of a lane: the chain of policies and handler, then
// the outputs. The record finishes when its outputs are acknowledged, while
// the lane goes on with the next one.
func (r *run) work(ctx context.Context, it *lane.Item) {
	rec := it.Record
	d := &delivery{group: r.c.Group, record: rec}
	d.outputs.init(r.limit, func() error { return context.Cause(ctx) })
	if it.Refused != nil {
		d.refused, _ = errors.AsType[*OutputError](it.Refused)
	}
	err := r.handlers[rec.Topic](context.WithValue(ctx, deliveryKey{}, d), rec)
	outputs := d.outputs.close(errReturned)
	switch {
	case ctx.Err() != nil:
		// Cut short: it is neither done nor failed, and comes again.
	case err != nil:
		it.Fail()
		r.fail(recordError(rec, err))
	case len(outputs) == 0:
		it.Finish()
	default:
		r.produce(ctx, it, outputs)
	}
}

// produce sends the outputs of a record and ends it when all are decided.
func (r *run) produce(ctx context.Context, it *lane.Item, outputs []*kgo.Record) {
	var (
		mu      sync.Mutex
		left    = len(outputs)
		refused *OutputError
		undone  bool
	)
	decided := func(out *kgo.Record, err error) {
		mu.Lock()
		defer mu.Unlock()
		left--
		switch {
		case err == nil:
		case ctx.Err() != nil, errors.Is(err, kgo.ErrClientClosed), errors.Is(err, context.Canceled):
			undone = true
		case refused == nil:
			refused = &OutputError{Topic: out.Topic, Key: out.Key, Size: size(out), Err: err}
		}
		switch {
		case left > 0 || undone:
		case refused == nil:
			it.Finish()
		case it.Refused == nil:
			it.Again(refused)
		default: // the outputs of the second run were refused as well
			it.Fail()
			r.fail(recordError(it.Record, &RecordError{Cause: CauseRejected, Err: refused}))
		}
	}
	for _, out := range outputs {
		sent := sending(out)
		r.cl.Produce(ctx, out, func(out *kgo.Record, err error) {
			sent(err)
			decided(out, err)
		})
	}
}
