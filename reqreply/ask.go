package reqreply

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kotel"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/wherry-go/wherry/internal/header"
)

var asClient = trace.WithSpanKind(trace.SpanKindClient)

// asking is a request that was sent, and its span.
type asking struct {
	call *call
	span trace.Span
}

// ask sends req. What it returns must be given to end.
func (m Method[Req, Resp]) ask(ctx context.Context, caller *Caller, req Req, most int) (_ *asking, err error) {
	if caller == nil {
		return nil, errors.New("no Caller")
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	l, err := caller.await(ctx)
	if err != nil {
		return nil, err
	}
	ctx, span := caller.tracer.Start(ctx, "call "+m.Topic, asClient)
	defer func() {
		if err != nil {
			fail(span, err)
			span.End()
		}
	}()
	if span.IsRecording() {
		span.SetAttributes(
			semconv.MessagingSystemKafka, semconv.MessagingOperationName("call"), semconv.MessagingOperationTypeSend,
			semconv.MessagingDestinationName(m.Topic), semconv.MessagingConsumerGroupName(m.Group))
	}
	r, err := m.record(ctx, req)
	if err != nil {
		return nil, err
	}
	h, err := l.listen(ctx, m.ReplyTopicName(), m.Profile.named())
	if err != nil {
		return nil, err
	}
	if m.Group != "" {
		if err := l.responder(ctx, served{m.Group, m.Topic}); err != nil {
			return nil, err
		}
	}
	if ctx.Err() != nil { // nobody would wait for it
		return nil, context.Cause(ctx)
	}
	caller.propagator().Inject(ctx, kotel.NewRecordCarrier(r))
	c, err := l.begin(ctx, h, r, most)
	if err != nil {
		return nil, err
	}
	return &asking{call: c, span: span}, nil
}

// end ends the request, with what the call returns.
func (a *asking) end(err error) {
	a.call.line.end(a.call)
	if err != nil {
		fail(a.span, err)
	}
	a.span.End()
}

func fail(span trace.Span, err error) {
	if !span.IsRecording() {
		return
	}
	kind := "failed"
	if e, ok := errors.AsType[*Error](err); ok {
		kind = "answer"
		if e.Code != "" {
			kind = e.Code
		}
	} else if errors.Is(err, context.DeadlineExceeded) {
		kind = "timeout"
	}
	span.SetAttributes(semconv.ErrorTypeKey.String(kind))
	span.SetStatus(codes.Error, err.Error())
}

// record returns the request, but for where its replies go.
func (m Method[Req, Resp]) record(ctx context.Context, req Req) (*kgo.Record, error) {
	r, err := encode(m.codec(), m.Topic, req)
	if err != nil {
		return nil, err
	}
	// With room for what follows: ours, the trace, and where replies go.
	r.Headers = append(make([]kgo.RecordHeader, 0, len(r.Headers)+6), r.Headers...)
	if m.Key != nil {
		if key := m.Key(req); key != "" {
			r.Key = []byte(key)
		}
	}
	if m.Headers != nil {
		r.Headers = append(r.Headers, m.Headers(ctx, req)...)
	}
	if m.ID != nil {
		if id := m.ID(req); id != "" {
			header.Add(r, header.RequestID, id)
		}
	}
	if end, ok := ctx.Deadline(); ok {
		header.Add(r, header.Deadline, header.FormatTime(end))
	}
	return r, nil
}
