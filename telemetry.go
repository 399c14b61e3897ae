package wherry

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kotel"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/messagingconv"
	"go.opentelemetry.io/otel/trace"
)

const scope = "github.com/wherry-go/wherry"

// Telemetry is a [Policy] that makes spans and metrics after OpenTelemetry's
// messaging conventions (semconv 1.43, whose messaging part is still in
// development), and carries the trace from a record to the outputs of its
// handler in their headers. It belongs outermost in the list of policies.
//
// Spans: "process <topic>" for each record, a child of the trace in its
// headers; "send <topic>" for each output, from its being sent to its being
// acknowledged. Metrics: messaging.process.duration,
// messaging.client.consumed.messages and messaging.client.sent.messages; an
// error.type is the [Cause] of the error, or "rejected" for an output.
//
// Only OpenTelemetry's API is used: without an SDK nothing is recorded.
type Telemetry struct {
	TracerProvider trace.TracerProvider          // nil means the global one
	MeterProvider  metric.MeterProvider          // nil means the global one
	Propagator     propagation.TextMapPropagator // nil means the global one
}

// Wrap returns next with a span and metrics around it.
func (t Telemetry) Wrap(next Handler) Handler {
	in := t.instruments()
	var cache labelsCache
	return func(ctx context.Context, r *kgo.Record) error {
		d := deliveryFrom(ctx)
		if d != nil {
			d.instruments = in
		}
		if len(r.Headers) > 0 {
			ctx = in.propagator.Extract(ctx, kotel.NewRecordCarrier(r))
		}
		l := cache.of(r, GroupFrom(ctx))
		ctx, span := in.tracer.Start(ctx, l.name, l.start...)
		defer span.End()
		if span.IsRecording() {
			span.SetAttributes(semconv.MessagingOperationTypeProcess, semconv.MessagingKafkaOffset(int(r.Offset)), semconv.MessagingMessageBodySize(len(r.Value)))
			if r.Key != nil {
				span.SetAttributes(semconv.MessagingKafkaMessageKey(string(r.Key)))
			}
			if r.Value == nil {
				span.SetAttributes(semconv.MessagingKafkaMessageTombstone(true))
			}
		}
		measured := in.duration.Enabled(ctx) || in.consumed.Enabled(ctx)
		var begun time.Time
		if measured {
			begun = time.Now()
		}
		err := next(ctx, r)
		set := l.set
		if err != nil && ctx.Err() == nil && !Interrupted(ctx) {
			kind := semconv.ErrorTypeKey.String(string(recordError(r, err).Cause))
			set = attribute.NewSet(append(slices.Clone(l.shared), kind)...)
			span.SetStatus(codes.Error, err.Error())
			span.SetAttributes(kind)
		}
		if measured {
			in.consumed.AddSet(ctx, 1, set)
			in.duration.RecordSet(ctx, time.Since(begun).Seconds(), set)
		}
		return err
	}
}

// labels are what the spans and metrics of a partition's records share.
type labels struct {
	name   string // of the span
	shared []attribute.KeyValue
	set    attribute.Set // of shared
	start  []trace.SpanStartOption
}

// labelsCache has the labels of a Consumer's partitions, which are few.
type labelsCache struct {
	all atomic.Pointer[map[topicPartition]*labels]
}

func (c *labelsCache) of(r *kgo.Record, group string) *labels {
	tp := topicPartition{r.Topic, r.Partition}
	before := c.all.Load()
	if before != nil {
		if l := (*before)[tp]; l != nil {
			return l
		}
	}
	l := &labels{name: "process " + r.Topic, shared: []attribute.KeyValue{
		messagingSystem,
		semconv.MessagingOperationName("process"),
		semconv.MessagingDestinationName(r.Topic),
		semconv.MessagingDestinationPartitionID(strconv.Itoa(int(r.Partition))),
		semconv.MessagingConsumerGroupName(group),
	}}
	l.set = attribute.NewSet(l.shared...)
	l.start = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(l.shared...)}
	after := map[topicPartition]*labels{tp: l}
	if before != nil {
		maps.Copy(after, *before)
	}
	c.all.CompareAndSwap(before, &after) // else another one is added, and this one next time
	return l
}

var messagingSystem = semconv.MessagingSystemKafka

// instruments is a Telemetry with its defaults looked up.
type instruments struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
	duration   messagingconv.ProcessDuration
	consumed   messagingconv.ClientConsumedMessages
	sent       messagingconv.ClientSentMessages
}

func (t Telemetry) instruments() *instruments {
	tp, mp, in := t.TracerProvider, t.MeterProvider, &instruments{propagator: t.Propagator}
	if tp == nil {
		tp = otel.GetTracerProvider()
	}
	if mp == nil {
		mp = otel.GetMeterProvider()
	}
	if in.propagator == nil {
		in.propagator = otel.GetTextMapPropagator()
	}
	in.tracer = tp.Tracer(scope)
	meter := mp.Meter(scope)
	// An SDK refuses an instrument only for its name, which is fixed here; the
	// instrument is then one that does nothing.
	in.duration, _ = messagingconv.NewProcessDuration(meter)
	in.consumed, _ = messagingconv.NewClientConsumedMessages(meter)
	in.sent, _ = messagingconv.NewClientSentMessages(meter)
	return in
}

// sending begins the span of an output that d staged under a Telemetry, and puts its
// trace into the output's headers. The function returned ends it; nil where
// there is no Telemetry.
func sending(d *delivery, out *kgo.Record) (sent func(error)) {
	if d == nil || d.instruments == nil {
		return nil
	}
	in := d.instruments
	shared := []attribute.KeyValue{
		messagingSystem,
		semconv.MessagingOperationName("send"),
		semconv.MessagingDestinationName(out.Topic),
	}
	ctx, span := in.tracer.Start(out.Context, "send "+out.Topic, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(shared...))
	// Cloned: a forwarded record shares its headers with the one it was read as.
	out.Headers = slices.Clone(out.Headers)
	in.propagator.Inject(ctx, kotel.NewRecordCarrier(out))
	return func(err error) {
		shared = append(shared, semconv.MessagingDestinationPartitionID(strconv.Itoa(int(out.Partition))))
		if err != nil {
			shared = append(shared, semconv.ErrorTypeKey.String(string(CauseRejected)))
			span.SetStatus(codes.Error, err.Error())
		} else if span.IsRecording() {
			span.SetAttributes(semconv.MessagingOperationTypeSend, semconv.MessagingKafkaOffset(int(out.Offset)))
		}
		span.SetAttributes(shared[3:]...)
		in.sent.AddSet(ctx, 1, attribute.NewSet(shared...))
		span.End()
	}
}
