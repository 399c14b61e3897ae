package reqreply

import (
	"context"
	"errors"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// outcome is what became of a call, or of a request.
type outcome int

const (
	okay outcome = iota
	fault
	timeout
	noResponder
	busy
	ended
	canceled
	failed
	// Of requests, besides fault and failed.
	answered
	expired
	refused
	repeated
	handled
	outcomes
)

var outcomeNames = [outcomes]string{
	"ok", "fault", "timeout", "no_responder", "busy", "ended", "canceled", "failed",
	"answered", "expired", "refused", "repeated", "event",
}

func (o outcome) String() string { return outcomeNames[o] }

// outcomeOf returns what became of a call that returns err.
func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return okay
	case errors.Is(err, ErrNoResponder):
		return noResponder
	case errors.Is(err, ErrBusy):
		return busy
	case errors.Is(err, ErrEnded):
		return ended
	case errors.Is(err, context.DeadlineExceeded):
		return timeout
	case errors.Is(err, context.Canceled):
		return canceled
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return fault
	}
	return failed
}

var outcomeKey = attribute.Key("wherry.outcome")

// measurement is the attributes of measurements, ready to be given.
type measurement struct {
	add    []metric.AddOption
	record []metric.RecordOption
}

func measured(attributes ...attribute.KeyValue) measurement {
	set := metric.WithAttributeSet(attribute.NewSet(attributes...))
	return measurement{[]metric.AddOption{set}, []metric.RecordOption{set}}
}

// byOutcome returns those of each outcome.
func byOutcome(shared ...attribute.KeyValue) (all [outcomes]measurement) {
	for o := range outcomes {
		all[o] = measured(append(shared[:len(shared):len(shared)], outcomeKey.String(o.String()))...)
	}
	return all
}

func meterOf(provider metric.MeterProvider) metric.Meter {
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	return provider.Meter(scope)
}

// instruments are what a Caller measures with.
type instruments struct {
	tracer   trace.Tracer
	duration metric.Float64Histogram
	active   metric.Int64UpDownCounter
	strays   metric.Int64Counter

	mu      sync.RWMutex
	methods map[served]*labels
}

// labels are what the spans and metrics of a Method's calls share.
type labels struct {
	reply  string // the default of Method.ReplyTopic
	span   string
	start  []trace.SpanStartOption
	active []metric.AddOption
	ended  [outcomes]measurement
}

func newInstruments(tp trace.TracerProvider, mp metric.MeterProvider) *instruments {
	if tp == nil {
		tp = otel.GetTracerProvider()
	}
	in, meter := &instruments{tracer: tp.Tracer(scope), methods: map[served]*labels{}}, meterOf(mp)
	// An SDK refuses an instrument only for its name, which is fixed here.
	in.duration, _ = meter.Float64Histogram("wherry.reqreply.call.duration", metric.WithUnit("s"),
		metric.WithDescription("How long calls took, by what became of them."), buckets)
	in.active, _ = meter.Int64UpDownCounter("wherry.reqreply.active_calls", metric.WithUnit("{call}"), metric.WithDescription("Calls that wait."))
	in.strays, _ = meter.Int64Counter("wherry.reqreply.stray_replies", metric.WithUnit("{reply}"),
		metric.WithDescription("Replies that no call took: late, or unknown."))
	return in
}

// buckets are those of messaging.process.duration (semconv 1.43).
var buckets = metric.WithExplicitBucketBoundaries(.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10)

func (in *instruments) of(topic, group string) *labels {
	key := served{group, topic}
	in.mu.RLock()
	l := in.methods[key]
	in.mu.RUnlock()
	if l != nil {
		return l
	}
	destination := semconv.MessagingDestinationName(topic)
	start := []attribute.KeyValue{
		semconv.MessagingSystemKafka, semconv.MessagingOperationName("call"), semconv.MessagingOperationTypeSend, destination,
	}
	if group != "" {
		start = append(start, semconv.MessagingConsumerGroupName(group))
	}
	l = &labels{
		reply:  topic + replySuffix,
		span:   "call " + topic,
		start:  []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(start...)},
		active: measured(destination).add,
		ended:  byOutcome(destination),
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.methods[key] = l
	return l
}

// stray counts a reply that no call took.
func (in *instruments) stray(ctx context.Context, topic, what string) {
	if in.strays.Enabled(ctx) {
		in.strays.Add(ctx, 1, measured(semconv.MessagingDestinationName(topic), outcomeKey.String(what)).add...)
	}
}

// metrics are what the handlers of one Method in one Consumer measure with.
type metrics struct {
	requests metric.Int64Counter
	duration metric.Float64Histogram
	of       [outcomes]measurement
}

func newMetrics(provider metric.MeterProvider, topic, group string) *metrics {
	m, meter := &metrics{}, meterOf(provider)
	m.requests, _ = meter.Int64Counter("wherry.reqreply.requests", metric.WithUnit("{request}"),
		metric.WithDescription("Requests, and each attempt of one that failed, by what became of them."))
	m.duration, _ = meter.Float64Histogram("wherry.reqreply.handler.duration", metric.WithUnit("s"),
		metric.WithDescription("How long handlers took, by what became of the request."), buckets)
	m.of = byOutcome(semconv.MessagingDestinationName(topic), semconv.MessagingConsumerGroupName(group))
	return m
}
