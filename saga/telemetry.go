package saga

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kotel"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	hdr "github.com/wherry-go/wherry/internal/header"
)

const scope = "github.com/wherry-go/wherry/saga"

// Attributes of spans and metrics.
const (
	attrSaga    = attribute.Key("wherry.saga.name")
	attrID      = attribute.Key("wherry.saga.id")
	attrStep    = attribute.Key("wherry.saga.step")
	attrUndo    = attribute.Key("wherry.saga.undo")
	attrAttempt = attribute.Key("wherry.saga.attempt")
	attrInput   = attribute.Key("wherry.saga.input")
	attrMove    = attribute.Key("wherry.saga.transition")
	attrOutcome = attribute.Key("wherry.saga.outcome")
)

// instruments are what an Engine is seen by.
type instruments struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
	meter      metric.Meter
	name       attribute.KeyValue
	traces     bool // somebody makes spans

	moves    metric.Int64Counter
	ends     metric.Int64Counter
	strays   metric.Int64Counter
	lateness metric.Float64Histogram
	moveSets []metric.AddOption // by move
}

func newInstruments(s *shell, tp trace.TracerProvider, pr propagation.TextMapPropagator, mp metric.MeterProvider) *instruments {
	if tp == nil {
		tp = otel.GetTracerProvider()
	}
	if pr == nil {
		pr = otel.GetTextMapPropagator()
	}
	if mp == nil {
		mp = otel.GetMeterProvider()
	}
	in := &instruments{tracer: tp.Tracer(scope), propagator: pr, meter: mp.Meter(scope), name: attrSaga.String(s.name)}
	_, probe := in.tracer.Start(context.Background(), "saga "+s.name)
	in.traces = probe.SpanContext().IsValid()
	// An SDK refuses an instrument only for its name, which is fixed here; the
	// instrument is then one that does nothing.
	in.moves, _ = in.meter.Int64Counter("wherry.saga.transitions", metric.WithUnit("{transition}"), metric.WithDescription("What happened to sagas."))
	in.ends, _ = in.meter.Int64Counter("wherry.saga.ended", metric.WithUnit("{saga}"), metric.WithDescription("Sagas that ended, by outcome."))
	in.strays, _ = in.meter.Int64Counter("wherry.saga.stray_inputs", metric.WithUnit("{record}"), metric.WithDescription("Inputs of sagas that have ended, or that nobody knows."))
	in.lateness, _ = in.meter.Float64Histogram("wherry.saga.timer.lateness", metric.WithUnit("s"), metric.WithDescription("How long after it was due a timer was handled."))
	for m := range moveEnded + 1 {
		in.moveSets = append(in.moveSets, metric.WithAttributeSet(attribute.NewSet(in.name, attrMove.String(m.String()))))
	}
	return in
}

// observe registers what is measured when somebody asks.
func (in *instruments) observe(s *shell) (unregister func(), err error) {
	gauge := func(name, unit, text string) metric.Int64ObservableGauge {
		g, _ := in.meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(text))
		return g
	}
	active := gauge("wherry.saga.active", "{saga}", "Sagas that have begun and not ended, of the partitions of this process.")
	queued := gauge("wherry.saga.queued", "{saga}", "Sagas that wait until there is a place for one more.")
	early := gauge("wherry.saga.early_events", "{record}", "Events that wait for their saga, or their step.")
	held := gauge("wherry.saga.waiting_commands", "{attempt}", "Attempts that the gates of steps hold, about.")
	oldest, _ := in.meter.Float64ObservableGauge("wherry.saga.oldest", metric.WithUnit("s"), metric.WithDescription("Age of the oldest active saga."))
	set := metric.WithAttributeSet(attribute.NewSet(in.name))
	r, err := in.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		all := s.sums(true)
		o.ObserveInt64(active, int64(all.active), set)
		o.ObserveInt64(queued, int64(all.queued), set)
		o.ObserveInt64(early, int64(all.early), set)
		o.ObserveInt64(held, int64(s.gates.held()), set)
		age := 0.0
		if all.oldest > 0 {
			age = time.Since(time.UnixMilli(all.oldest)).Seconds()
		}
		o.ObserveFloat64(oldest, age, set)
		return nil
	}, active, queued, early, held, oldest)
	if err != nil {
		return nil, err
	}
	return func() { _ = r.Unregister() }, nil
}

func (in *instruments) moved(ctx context.Context, m move) {
	if in.moves.Enabled(ctx) && int(m) < len(in.moveSets) {
		in.moves.Add(ctx, 1, in.moveSets[m])
	}
}

func (in *instruments) late(ctx context.Context, d time.Duration) {
	if in.lateness.Enabled(ctx) {
		in.lateness.Record(ctx, d.Seconds(), metric.WithAttributeSet(attribute.NewSet(in.name)))
	}
}

func (in *instruments) stray(ctx context.Context, k kind) {
	if in.strays.Enabled(ctx) {
		in.strays.Add(ctx, 1, metric.WithAttributeSet(attribute.NewSet(in.name, attrInput.String(k.String()))))
	}
}

// ended counts a saga whose end was committed just now.
func (s *shell) ended(p Phase) {
	ctx := context.Background()
	if s.in.ends.Enabled(ctx) {
		s.in.ends.Add(ctx, 1, metric.WithAttributeSet(attribute.NewSet(s.in.name, attrOutcome.String(p.String()))))
	}
}

// String is "reply" for what has no kind.
func (k kind) String() string {
	if k == kindReply {
		return "reply"
	}
	return string(k)
}

const traceparent = "traceparent"

// traceparentOf returns the trace that a record belongs to.
func traceparentOf(r *kgo.Record) string {
	text, _ := hdr.Get(r, traceparent)
	return text
}

// traceparent returns the trace of ctx, "" if there is none.
func (in *instruments) traceparent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[traceparent]
}

// handling begins the span of an input: it belongs to the saga's trace, which is
// that of its start, and is linked to the input's own.
func (in *instruments) handling(ctx context.Context, h *handling) (context.Context, func(error)) {
	of := h.in.trace
	if of == "" {
		of = traceparentOf(h.r)
	}
	if of == "" && !in.traces {
		return ctx, func(error) {}
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{traceparent: of})
	opts := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(in.name, attrID.String(h.id), attrInput.String(h.kind.String()))}
	if len(h.r.Headers) > 0 {
		if own := trace.SpanContextFromContext(in.propagator.Extract(context.Background(), kotel.NewRecordCarrier(h.r))); own.IsValid() {
			opts = append(opts, trace.WithLinks(trace.Link{SpanContext: own}))
		}
	}
	ctx, span := in.tracer.Start(ctx, "saga "+h.name, opts...)
	if h.kind == kindReply && span.IsRecording() {
		span.SetAttributes(ofOp(h.op)...)
	}
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		if span.IsRecording() && h.in != nil {
			span.SetAttributes(attribute.String("wherry.saga.phase", h.in.phase.String()))
		}
		span.End()
	}
}

func ofOp(op Op) []attribute.KeyValue {
	return []attribute.KeyValue{attrStep.String(op.Step), attrUndo.Bool(op.Undo), attrAttempt.Int(op.Attempt)}
}

// local begins the span of an attempt at a local step, inside that of its input.
func (in *instruments) local(ctx context.Context, handler context.Context, op Op) (context.Context, func(error)) {
	if !in.traces && !trace.SpanContextFromContext(handler).IsValid() {
		return ctx, func(error) {}
	}
	ctx = trace.ContextWithSpan(ctx, trace.SpanFromContext(handler))
	ctx, span := in.tracer.Start(ctx, "saga "+op.Saga+" "+op.Step, trace.WithAttributes(append(ofOp(op), in.name, attrID.String(op.ID))...))
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}

// carry puts the saga's trace into what it sends: that of the span in ctx, or else
// what it was started with.
func (in *instruments) carry(ctx context.Context, r *kgo.Record, started string) {
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() && !sc.IsRemote() {
		in.propagator.Inject(ctx, kotel.NewRecordCarrier(r))
	}
	if started != "" && !slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool { return strings.EqualFold(h.Key, traceparent) }) {
		hdr.Add(r, traceparent, started)
	}
}
