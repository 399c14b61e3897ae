package dlq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric"

	"github.com/wherry-go/wherry"
)

// A Queue is a [wherry.Policy] that hands on records which cannot be handled to
// a dead-letter topic, and lets their Consumer go on:
//
//	Policies: []wherry.Policy{wherry.Telemetry{}, &dlq.Queue{Topic: "billing.dlq"}, retry.Policy{…}},
//
// It belongs outside of what retries. The letter is an output of the record
// (see [wherry.Publish]): the record counts as done when the letter is
// acknowledged, so none is lost, and after a crash one may be there twice; with
// wherry.ExactlyOnce it is there once. What the handler staged is dropped. Work
// that was cut short by a shutdown or a rebalance is never dead-lettered.
//
// Where the letter itself cannot be written, the Consumer stops with an error
// and the record stays uncommitted. A letter that is too large is tried without
// its stack and without its error text before. Where the broker refused an
// output of the handler, the letter says wherry.CauseRejected.
//
// A letter has the key of its record and goes to the partition that the
// client's partitioner chooses for it, so those of one key are in order, as far
// as the key was never redacted. It is not the partition of the record: the
// dead-letter topic may have fewer.
//
// The topic is made if it does not exist, with as many partitions as the
// Consumer's first topic has. How long letters stay there is its retention.ms,
// of which the broker's default is 7 days: make the topic with
// [wherry.EnsureTopics] before, to say something else. Its max.message.bytes
// should be 16 KiB above those of the topics read.
//
// A Queue may serve several Consumers at once, and must not be changed after
// the first began to run.
type Queue struct {
	// Topic is the dead-letter topic. The Consumer must not read it. Required.
	Topic string
	// Format is FormatWherry or FormatEnvelope; see [Letter.Encode]. "" means
	// FormatWherry.
	Format Format
	// Redact changes what is stored of a record: its key, value and headers,
	// and the texts of the error. It is called once for each letter, with copies
	// of the bytes. What it makes of Topic, Partition and Offset is ignored. If
	// it panics the Consumer stops, for the record may neither be lost nor be
	// stored as it is. A replay sends what was stored. It must be safe for
	// concurrent use. nil means no change.
	Redact func(*Letter)
	// Gate stops the dead-lettering while everything fails.
	Gate Gate
	// MeterProvider is for the metrics wherry.dlq.letters (dead letters by
	// topic, group and cause) and wherry.dlq.gate.changes (by group and state,
	// "shut" or "open"). nil means the global one.
	MeterProvider metric.MeterProvider
}

// runKey is where a handler's context has the run that it belongs to.
type runKey struct{ q *Queue }

// run is what a Queue knows of one run of a Consumer.
type run struct {
	log  *slog.Logger
	gate *breaker // nil where it is off
}

// Prepare declares the topic and reports all that is wrong with q.
func (q *Queue) Prepare(s *wherry.Setup) error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("dlq: "+format, args...)) }
	switch {
	case q.Topic == "":
		fault("no topic: set Queue.Topic")
	case slices.Contains(s.Topics, q.Topic):
		fault("%s is read by this Consumer: dead letters never go into their own source", q.Topic)
	default:
		spec := wherry.TopicSpec{Name: q.Topic}
		if len(s.Topics) > 0 {
			spec.Like = s.Topics[0]
		}
		s.Need(spec)
	}
	switch q.Format {
	case "", FormatWherry, FormatEnvelope:
	default:
		fault("Queue.Format is %q: %s and %s can be written", q.Format, FormatWherry, FormatEnvelope)
	}
	if err := q.Gate.check(); err != nil {
		fault("%w", err)
	}
	this := &run{log: s.Logger}
	if this.log == nil {
		this.log = slog.Default()
	}
	if q.Gate.After >= 0 {
		this.gate = q.Gate.breaker()
	}
	s.WithValue(runKey{q}, this)
	return errors.Join(faults...)
}

// Wrap returns next with the Queue around it. Without [Queue.Prepare], which
// the Consumer calls, there is no Gate.
func (q *Queue) Wrap(next wherry.Handler) wherry.Handler {
	w := &desk{Queue: q, instruments: q.instruments()}
	return func(ctx context.Context, r *kgo.Record) error {
		this, ok := ctx.Value(runKey{q}).(*run)
		if !ok {
			this = &run{log: slog.Default()}
		}
		t := tried{at: sourceOf(ctx, r), hop: wherry.HopFrom(ctx) != nil, attempts: wherry.Attempt(ctx) - 1}
		if this.gate != nil {
			return w.gated(ctx, r, this, t, next)
		}
		err := next(ctx, r)
		if err == nil || wherry.Interrupted(ctx) {
			return err
		}
		t.and(err)
		return w.bury(ctx, r, this, t)
	}
}

// gated handles r when the gate lets it, and holds it while the gate is shut.
func (w *desk) gated(ctx context.Context, r *kgo.Record, this *run, t tried, next wherry.Handler) error {
	p := &passage{b: this.gate}
	defer p.leave() // also where the handler ends its goroutine
	for attempt := ctx; ; attempt = wherry.WithAttempt(ctx, t.attempts+1) {
		if err := p.enter(ctx); err != nil {
			return err
		}
		err := next(attempt, r)
		if wherry.Interrupted(ctx) {
			return err
		}
		if _, failed := wherry.Outcome(ctx); err == nil && failed != nil {
			// A policy inside has handed the record on, as retry.Topics does.
			handed := t
			handed.and(failed)
			_, what, since := p.result(handed.blame())
			w.changed(ctx, this, what, since, handed)
			return nil
		}
		t.and(err)
		held, what, since := p.result(t.blame())
		w.changed(ctx, this, what, since, t)
		switch {
		case held:
		case err == nil:
			return nil
		default:
			return w.bury(ctx, r, this, t)
		}
	}
}

// desk is a Queue at work around one handler.
type desk struct {
	*Queue
	instruments
}

// bury stages the letter of a record. Its error is why that is not possible.
func (w *desk) bury(ctx context.Context, r *kgo.Record, this *run, t tried) error {
	if hop := wherry.HopFrom(ctx); t.at.topic == w.Topic || hop != nil && hop.Topic == w.Topic {
		return fmt.Errorf("dlq: %s is read by this Consumer, dead letters never go into their own source: %w", w.Topic, t.err)
	}
	if out := refused(t.err); out != nil && out.Topic == w.Topic {
		return fmt.Errorf("dlq: the dead letter itself was refused, set max.message.bytes of topic %s to 16 KiB more than its sources have if it is too large: %w", w.Topic, t.err)
	}
	if read := wherry.RecordFrom(ctx); read != nil {
		r = read // a policy outside may have handed on a copy with other bytes
	}
	l := newLetter(r, wherry.GroupFrom(ctx), t)
	l.Format = w.Format
	if err := w.redact(l); err != nil {
		return err
	}
	if err := w.stage(ctx, l); err != nil {
		return err
	}
	w.count(ctx, l)
	this.log.WarnContext(ctx, "dlq: record dead-lettered", "to", w.Topic, "topic", l.Topic, "partition", l.Partition, "offset", l.Offset,
		"cause", string(l.Cause), "attempts", l.Attempts, "replays", l.Replays, "error", clip(l.Error, maxErrorType))
	return nil
}

// redact calls Redact. A panic is returned without the letter's texts, which it
// may have left as they were.
func (w *desk) redact(l *Letter) (err error) {
	if w.Redact == nil {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = &wherry.RecordError{
				Cause: wherry.CausePanic, Stack: string(debug.Stack()),
				Err: fmt.Errorf("dlq: Redact panicked, so nothing is written to %s: %v", w.Topic, p),
			}
		}
	}()
	topic, partition, offset, format := l.Topic, l.Partition, l.Offset, l.Format
	l.Key, l.Value, l.Headers = slices.Clone(l.Key), slices.Clone(l.Value), slices.Clone(l.Headers)
	for i := range l.Headers {
		l.Headers[i].Value = slices.Clone(l.Headers[i].Value)
	}
	w.Redact(l)
	l.Topic, l.Partition, l.Offset, l.Format = topic, partition, offset, format
	return nil
}

// stage publishes the letter, with less and less of its texts while it is too
// large, and as FormatWherry at last, which adds least to the record.
func (w *desk) stage(ctx context.Context, l *Letter) error {
	shed := []func(){
		func() { l.Stack = "" },
		func() { l.Error = clip(l.Error, 256) },
		func() { l.Error, l.ErrorType = "", "" },
		func() { l.Format = FormatWherry },
	}
	for {
		out, err := l.Encode(w.Topic)
		if err == nil {
			err = wherry.Publish(ctx, out)
		}
		switch {
		case err == nil:
			return nil
		case len(shed) > 0 && !wherry.Interrupted(ctx):
			shed[0]()
			shed = shed[1:]
			continue
		}
		if tooLarge, ok := errors.AsType[*wherry.OutputError](err); ok {
			err = fmt.Errorf("set kgo.ProducerBatchMaxBytes of the client, and max.message.bytes of the topic, to more than %d: %w", tooLarge.Size, err)
		}
		return fmt.Errorf("dlq: the dead letter of %s/%d@%d cannot be written: %w", l.Topic, l.Partition, l.Offset, err)
	}
}
