package events

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kotel"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
)

var tracer = otel.Tracer("github.com/wherry-go/wherry/examples/shop")

// Send produces r outside of a handler, in the trace of ctx, and returns when it is
// acknowledged or ctx is done: then it may be sent all the same. It never waits for
// room in the client's buffer.
func Send(ctx context.Context, cl *kgo.Client, r *kgo.Record) error {
	ctx, span := tracer.Start(ctx, "send "+r.Topic, trace.WithSpanKind(trace.SpanKindProducer))
	defer span.End()
	otel.GetTextMapPropagator().Inject(ctx, kotel.NewRecordCarrier(r))
	sent := make(chan error, 1)
	cl.TryProduce(ctx, r, func(_ *kgo.Record, err error) { sent <- err })
	select {
	case err := <-sent:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
