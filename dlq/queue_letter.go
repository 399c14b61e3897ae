package dlq

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/header"
)

// source is where a record was read.
type source struct {
	topic     string
	partition int32
	offset    int64
}

// sourceOf is asked before the handler is called, which may forward the record.
func sourceOf(ctx context.Context, r *kgo.Record) source {
	if read := wherry.RecordFrom(ctx); read != nil {
		r = read
	}
	return source{r.Topic, r.Partition, r.Offset}
}

// tried is what became of a record's attempts.
type tried struct {
	at       source
	hop      bool  // it came by a hop
	err      error // of the last one
	attempts int
	first    time.Time // when the first of them failed
}

// and adds the result of a call of the handler, or of what retries it.
func (t *tried) and(err error) {
	t.err = err
	if err == nil {
		return
	}
	first, attempts := time.Now(), 0
	if e := t.known(); e != nil {
		attempts = e.Attempts // with those before this call
		if !e.First.IsZero() {
			first = e.First
		}
	}
	if t.first.IsZero() || first.Before(t.first) {
		t.first = first
	}
	t.attempts = max(t.attempts+1, attempts)
}

// known finds what is known of the failure in its error, nil if nothing is. The
// error of another record, as of a Table that the handler waits for, is an
// error like any.
func (t *tried) known() *wherry.RecordError {
	e, ok := errors.AsType[*wherry.RecordError](t.err)
	if !ok || e.Topic != "" && (source{e.Topic, e.Partition, e.Offset}) != t.at {
		return nil
	}
	return e
}

// cause says why the record failed.
func (t *tried) cause() wherry.Cause {
	e := t.known()
	_, output := errors.AsType[*wherry.OutputError](t.err)
	switch {
	case output && (e == nil || e.Cause != wherry.CauseExhausted && e.Cause != wherry.CauseExpired):
		return wherry.CauseRejected // also by Publish, and where a policy called it permanent
	case e != nil && e.Cause != "":
		return e.Cause
	case errors.Is(t.err, wherry.ErrPermanent):
		return wherry.CausePermanent
	}
	return wherry.CauseFailed
}

// blame decides what the result tells of the surroundings.
func (t *tried) blame() blame {
	if t.err == nil {
		return nobody
	}
	switch t.cause() {
	case wherry.CauseUndecodable, wherry.CausePermanent, wherry.CauseRejected:
		return record
	case wherry.CauseExpired:
		// A hop's time may be over before it is tried again; without one it
		// was tried until its time was over.
		if e := t.known(); t.hop || e == nil || e.Attempts == 0 {
			return record
		}
	default:
	}
	return surroundings
}

// newLetter makes the letter of a record that failed.
func newLetter(r *kgo.Record, group string, t tried) *Letter {
	l := &Letter{
		Topic: t.at.topic, Partition: t.at.partition, Offset: t.at.offset, Timestamp: r.Timestamp,
		Group: group, Key: r.Key, Value: r.Value, Headers: r.Headers,
		Cause: t.cause(), Error: textOf(t.err), ErrorType: typeOf(t.err),
		Attempts: t.attempts, FirstFailed: t.first, Failed: time.Now(),
	}
	if e := t.known(); e != nil {
		l.Stack = e.Stack
	}
	if n, ok := header.Int(r, header.DeadReplays); ok {
		l.Replays = int(min(max(n, 0), math.MaxInt32))
	}
	// Headers of an earlier life go, but for those of a dead letter that failed
	// where dead letters are read: they are the record's own there.
	if from, ok := header.Get(r, header.DeadTopic); !ok || from == l.Topic {
		ours := func(h kgo.RecordHeader) bool { return wherryDialect.owns(h.Key) }
		if slices.ContainsFunc(l.Headers, ours) {
			l.Headers = slices.DeleteFunc(slices.Clone(l.Headers), ours)
		}
	}
	return l
}

// refused returns the output whose refusal by the broker err tells of: the
// Consumer runs the chain again with it as the handler's error.
func refused(err error) *wherry.OutputError {
	for {
		e, ok := errors.AsType[*wherry.RecordError](err)
		if !ok {
			return nil
		}
		if e.Cause == wherry.CauseRejected {
			out, _ := errors.AsType[*wherry.OutputError](e.Err)
			return out
		}
		err = e.Err
	}
}

// textOf is the error's text without what the letter says anyway. An Error
// method that panics must not keep its record from becoming a letter.
func textOf(err error) (text string) {
	defer func() {
		if p := recover(); p != nil {
			text = fmt.Sprintf("(the Error method of %T panicked)", err)
		}
	}()
	for {
		e, ok := err.(*wherry.RecordError) //nolint:errorlint // what is wrapped around one is kept
		if !ok || e.Err == nil {
			return err.Error()
		}
		err = e.Err
	}
}

// typeOf is the type of the error beneath those that only wrap another one.
func typeOf(err error) string {
	for {
		name := fmt.Sprintf("%T", err)
		inner := errors.Unwrap(err)
		switch {
		case inner == nil:
			return name
		case name == "*fmt.wrapError", name == "*wherry.RecordError", name == "*wherry.permanent":
			err = inner
		default:
			return name
		}
	}
}

// instruments are a Queue's metrics.
type instruments struct {
	letters, changes metric.Int64Counter
}

func (q *Queue) instruments() (in instruments) {
	provider := q.MeterProvider
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	meter := provider.Meter("github.com/wherry-go/wherry/dlq")
	// An SDK refuses an instrument only for its name, which is fixed here; the
	// instrument is then one that does nothing.
	in.letters, _ = meter.Int64Counter("wherry.dlq.letters", metric.WithUnit("{letter}"),
		metric.WithDescription("Records that were handed on to a dead-letter topic."))
	in.changes, _ = meter.Int64Counter("wherry.dlq.gate.changes", metric.WithUnit("{change}"),
		metric.WithDescription("How often dead-lettering was stopped because everything failed, and begun again."))
	return in
}

func (in instruments) count(ctx context.Context, l *Letter) {
	in.letters.Add(ctx, 1, metric.WithAttributes(
		semconv.MessagingSystemKafka,
		semconv.MessagingDestinationName(l.Topic),
		semconv.MessagingConsumerGroupName(l.Group),
		semconv.ErrorTypeKey.String(string(l.Cause)),
	))
}

// changed tells that the gate was shut or opened. The error is left out where it
// would have been redacted.
func (w *desk) changed(ctx context.Context, this *run, what change, since time.Time, t tried) {
	state := ""
	switch what {
	case unchanged:
		return
	case nowShut:
		state = "shut"
		attrs := []any{"to", w.Topic, "failures", this.gate.after, "cause", string(t.cause())}
		if w.Redact == nil {
			attrs = append(attrs, "error", clip(textOf(t.err), maxErrorType))
		}
		this.log.WarnContext(ctx, "dlq: everything fails, so records are held and probed instead of dead-lettered", attrs...)
	case nowOpen:
		state = "open"
		this.log.InfoContext(ctx, "dlq: a record was handled, all that were held go on", "to", w.Topic, "after", time.Since(since))
	}
	w.changes.Add(ctx, 1, metric.WithAttributes(
		semconv.MessagingConsumerGroupName(wherry.GroupFrom(ctx)),
		attribute.String("wherry.dlq.gate.state", state),
	))
}
