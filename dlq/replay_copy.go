package dlq

import (
	"context"
	"math"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kotel"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/header"
)

// replayCopy returns the record that a replay of l produces.
func (r *Replayer) replayCopy(l *Letter) *kgo.Record {
	c := l.Original()
	if r.To != "" && r.To != l.Topic {
		// The group was one of the topic that the record failed in.
		header.Strip(c, func(key string) bool { return key == header.Only })
	}
	if r.To != "" {
		c.Topic = r.To
	}
	if r.Group != "" {
		header.Set(c, header.Only, r.Group)
	}
	header.Set(c, header.DeadReplays, header.FormatInt(replays(l)+1))
	if r.KeepTime {
		c.Timestamp = l.Timestamp
	}
	return c
}

// replays is how often the record was replayed. What other frameworks write
// as dead letters has it in a header of the record, which they carry on.
func replays(l *Letter) int {
	n, _ := header.Int(&kgo.Record{Headers: l.Headers}, header.DeadReplays)
	return max(l.Replays, int(min(n, math.MaxInt32)))
}

// parkedCopy returns the dead letter as it is, for another topic.
func parkedCopy(l *Letter, topic string) *kgo.Record {
	return &kgo.Record{Topic: topic, Key: l.Record.Key, Value: l.Record.Value, Headers: slices.Clone(l.Record.Headers)}
}

// tracing makes the spans of copies.
type tracing struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
	off        bool // nobody has an SDK
}

func newTracing(t wherry.Telemetry) tracing {
	tp, in := t.TracerProvider, tracing{propagator: t.Propagator}
	if tp == nil {
		tp = otel.GetTracerProvider()
	}
	if in.propagator == nil {
		in.propagator = otel.GetTextMapPropagator()
	}
	in.tracer = tp.Tracer("github.com/wherry-go/wherry/dlq")
	return in
}

// begin begins the span of a copy: the root of a trace, with a link to the one
// that the dead letter belongs to, because the first trace has long ended. A
// replay carries it on in its headers; what is parked stays as it is. The
// function returned ends it; nil is none.
func (t *tracing) begin(ctx context.Context, l *Letter, c *kgo.Record, a Action) (end func(marked, error)) {
	if t.off {
		if a == Replay {
			t.propagator.Inject(ctx, kotel.NewRecordCarrier(c))
		}
		return nil
	}
	old := trace.SpanContextFromContext(t.propagator.Extract(context.Background(), kotel.NewRecordCarrier(l.Record)))
	opts := []trace.SpanStartOption{
		trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(
			semconv.MessagingSystemKafka,
			semconv.MessagingOperationName("send"),
			semconv.MessagingOperationTypeSend,
			semconv.MessagingDestinationName(c.Topic),
			attribute.String("wherry.dlq.action", string(a)),
			attribute.String("wherry.dlq.letter", l.Record.Topic+"/"+strconv.Itoa(int(l.Record.Partition))+"/"+strconv.FormatInt(l.Record.Offset, 10)),
		),
	}
	if old.IsValid() {
		opts = append(opts, trace.WithLinks(trace.Link{SpanContext: old}))
	}
	spanCtx, span := t.tracer.Start(ctx, "send "+c.Topic, opts...)
	t.off = !span.SpanContext().IsValid() // which those of an SDK always are
	if a == Replay {
		t.propagator.Inject(spanCtx, kotel.NewRecordCarrier(c))
	}
	return func(m marked, err error) {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		} else {
			span.SetAttributes(
				semconv.MessagingDestinationPartitionID(strconv.Itoa(int(m.copy.Partition))),
				semconv.MessagingKafkaOffset(int(m.copy.Offset)))
		}
		span.End()
	}
}
