package wherry

import (
	"context"
	"errors"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/lane"
)

// worker returns what a lane of tp does with a record.
func (r *run) worker(tp topicPartition) lane.Work {
	handle := r.handlers[tp.topic]
	return func(ctx context.Context, it *lane.Item) { r.work(ctx, tp, handle, it) }
}

// work handles one record of a lane: the chain of policies and handler, then
// the outputs. The record finishes when its outputs are acknowledged, while
// the lane goes on with the next one.
func (r *run) work(ctx context.Context, tp topicPartition, handle Handler, it *lane.Item) {
	rec := it.Record
	at := &kgo.Record{Topic: tp.topic, Partition: tp.partition, Offset: it.Offset}
	rec.Topic, rec.Partition, rec.Offset = at.Topic, at.Partition, at.Offset // as before a first run
	fail := func(err error) {
		it.Fail()
		r.fail(recordError(at, err))
	}
	returned := false
	defer func() {
		if !returned { // t.FailNow does this
			fail(&RecordError{Cause: CausePanic, Err: errors.New("the handler ended its goroutine with runtime.Goexit")})
		}
	}()
	d := &delivery{group: r.c.Group, record: rec}
	if hop, ok := r.setup.hops[tp.topic]; ok {
		if hop.Due != nil {
			_ = Wait(ctx, hop.Due(rec))
		}
		if hop.Origin != nil {
			origin, err := hop.Origin(rec)
			if err != nil {
				fail(&RecordError{Cause: CauseUndecodable, Err: err})
				returned = true
				return
			}
			d.record, d.hop, rec = origin, rec, origin
		}
	}
	d.outputs.init(r.limit, func() error { return context.Cause(ctx) })
	if it.Refused != nil {
		d.refused, _ = errors.AsType[*OutputError](it.Refused)
	}
	err := handle(context.WithValue(ctx, deliveryKey{}, d), rec)
	returned = true
	outputs := d.outputs.close(errReturned)
	switch {
	case ctx.Err() != nil:
		// Cut short: it is neither done nor failed, and comes again.
	case err != nil:
		fail(err)
	case len(outputs) == 0:
		it.Finish()
	default:
		r.produce(ctx, it, outputs, fail)
	}
}

// produce sends the outputs of a record and ends it when all are decided.
func (r *run) produce(ctx context.Context, it *lane.Item, outputs []*kgo.Record, fail func(error)) {
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
			fail(&RecordError{Cause: CauseRejected, Err: refused})
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
