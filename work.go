package wherry

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/client"
	"github.com/wherry-go/wherry/internal/header"
	"github.com/wherry-go/wherry/internal/lane"
)

var errGoexit = errors.New("the handler ended its goroutine with runtime.Goexit")

// worker returns what the lane of p does with a record.
func (r *run) worker(p *partition) lane.Work {
	handle, hop := r.handlers[p.topic], r.setup.hops[p.topic]
	return func(ctx context.Context, it *lane.Item) { r.work(ctx, p, handle, hop, it) }
}

// work handles one record of a lane: the chain of policies and handler, then
// the outputs. The record finishes when its outputs are acknowledged, or its
// transaction is committed, while the lane goes on with the next one.
func (r *run) work(ctx context.Context, p *partition, handle Handler, hop Hop, it *lane.Item) {
	rec, tp := it.Record, p.topicPartition
	if len(rec.Headers) > 0 {
		if group, ok := header.Get(rec, header.Only); ok && group != r.c.Group {
			r.finish(ctx, p, &delivery{}, it, nil) // it is for another group alone
			return
		}
	}
	if r.c.Order != ByPartition && it.Refused == nil {
		// kgo makes the records of a batch together: one that waits would keep
		// all of them.
		own := *rec
		rec, it.Record = &own, &own
	}
	rec.Topic, rec.Partition, rec.Offset = tp.topic, tp.partition, it.Offset // as before a first run
	returned := false
	defer func() {
		if !returned { // t.FailNow does this
			r.cannot(tp, it, &RecordError{Cause: CausePanic, Err: errGoexit})
		}
	}()
	d := &delivery{Context: ctx, run: r, partition: p, item: it, record: rec}
	it.Value = d
	d.outputs.init(ctx, r.limit)
	if r.exact != nil {
		d.outputs.owned = r.exact.tables.parts
	}
	if hop.Origin != nil {
		d.hop = rec
		if d.record, d.instead = origin(hop, rec); d.record == nil {
			d.record = rec
		}
	}
	if refused, ok := errors.AsType[*OutputError](it.Refused); ok {
		d.instead = &RecordError{Cause: CauseRejected, Err: refused}
	}
	err := handle(d, d.record)
	returned = true
	outputs := d.outputs.close(errReturned)
	switch {
	case ctx.Err() != nil || d.interrupted.Load():
		it.Drop() // cut short: it is neither done nor failed, and comes again
	case err != nil:
		r.cannot(tp, it, err)
	default:
		r.finish(ctx, p, d, it, outputs)
	}
}

// finish brings a record whose chain returned nil to its end.
func (r *run) finish(ctx context.Context, p *partition, d *delivery, it *lane.Item, outputs []*kgo.Record) {
	switch {
	case r.exact != nil:
		r.exact.join(p, d, it, outputs)
	case len(outputs) == 0:
		it.Finish()
	default:
		r.produce(ctx, p.topicPartition, d, it, outputs)
	}
}

// cannot ends the run with a record that could not be handled.
func (r *run) cannot(tp topicPartition, it *lane.Item, err error) {
	it.Fail()
	r.fail(recordError(&kgo.Record{Topic: tp.topic, Partition: tp.partition, Offset: it.Offset}, err))
}

// origin returns the record as it was before it took the hop.
func origin(hop Hop, rec *kgo.Record) (r *kgo.Record, err error) {
	err = guard(func(context.Context, *kgo.Record) (err error) {
		r, err = hop.Origin(rec)
		return err
	})(context.Background(), nil)
	if err == nil {
		return r, nil
	}
	if found, ok := errors.AsType[*RecordError](err); ok {
		return nil, found
	}
	return nil, &RecordError{Cause: CauseUndecodable, Err: err}
}

// produce sends the outputs of a record, which ends when all are decided.
func (r *run) produce(ctx context.Context, tp topicPartition, d *delivery, it *lane.Item, outputs []*kgo.Record) {
	f := &flight{run: r, ctx: ctx, tp: tp, by: d, it: it}
	if slices.ContainsFunc(outputs, client.IsLast) {
		var before []*kgo.Record
		for _, out := range outputs {
			if client.IsLast(out) {
				f.last = append(f.last, out)
			} else {
				before = append(before, out)
			}
		}
		if outputs = before; len(before) == 0 {
			outputs, f.last = f.last, nil
		}
	}
	f.sendAll(outputs)
}

// flight is the outputs of a record on their way to the brokers.
type flight struct {
	run *run
	ctx context.Context
	tp  topicPartition
	by  *delivery
	it  *lane.Item

	mu      sync.Mutex
	left    int
	last    []*kgo.Record // sent when all before are acknowledged
	refused *OutputError
	undone  bool
}

func (f *flight) sendAll(outputs []*kgo.Record) {
	f.left = len(outputs) // nobody else has f now
	for _, out := range outputs {
		f.send(out, false)
	}
}

// send sends an output; again says that its topic was found to be made anew.
func (f *flight) send(out *kgo.Record, again bool) {
	sent, seen := sending(f.by, out), f.run.remade.Seen(out.Topic)
	f.run.cl.Produce(f.ctx, out, func(out *kgo.Record, err error) {
		if sent != nil {
			sent(err)
		}
		switch {
		case f.ctx.Err() == nil && errors.Is(err, context.Canceled):
			// kgo fails what stands behind a record whose context has ended,
			// such as an output of a partition that was taken away.
			f.run.resend.push(func() { f.send(out, again) })
		case !again && client.IsRemade(err):
			f.run.resend.push(func() {
				f.run.remade.Forget(f.run.cl, out.Topic, seen)
				f.send(out, true)
			})
		default:
			f.decided(out, err)
		}
	})
}

// resend calls functions in order, on a goroutine of its own: a promise of
// kgo's must not produce, which may wait for promises.
type resend struct {
	mu    sync.Mutex
	queue []func()
}

func (q *resend) push(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(q.queue, f)
	if len(q.queue) == 1 {
		go q.work()
	}
}

func (q *resend) work() {
	for {
		q.mu.Lock()
		f := q.queue[0]
		q.mu.Unlock()
		f()
		q.mu.Lock()
		q.queue[0], q.queue = nil, q.queue[1:]
		over := len(q.queue) == 0
		q.mu.Unlock()
		if over {
			return
		}
	}
}

// decided takes the fate of one output, and that of the record from the last.
func (f *flight) decided(out *kgo.Record, err error) {
	f.mu.Lock()
	f.left--
	switch {
	case err == nil:
	case f.ctx.Err() != nil, errors.Is(err, kgo.ErrClientClosed):
		f.undone = true
	case f.refused == nil:
		f.refused = &OutputError{Topic: out.Topic, Key: out.Key, Size: size(out), Err: err}
	}
	left := f.left
	f.mu.Unlock()
	switch {
	case left > 0:
	case f.last != nil && !f.undone && f.refused == nil:
		last := f.last
		f.last = nil
		f.run.resend.push(func() { f.sendAll(last) })
	case f.undone:
		f.it.Drop()
	case f.refused == nil:
		f.it.Finish()
	case f.it.Refused == nil:
		f.it.Again(f.refused)
	default: // the outputs of the second run were refused as well
		f.run.cannot(f.tp, f.it, &RecordError{Cause: CauseRejected, Err: f.refused})
	}
}
