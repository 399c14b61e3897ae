package reqreply

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kotel"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/wherry-go/wherry/internal/header"
)

var errNoCaller = errors.New("no Caller")

// ask sends req. The call that it returns must be ended.
func (m Method[Req, Resp]) ask(ctx context.Context, caller *Caller, req Req, most int) (_ *call, err error) {
	if caller == nil {
		return nil, errNoCaller
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	caller.init()
	c := &call{most: most, in: caller.in, labels: caller.in.of(m.Topic, m.Group)}
	c.limit.set(ctx, time.Now().Add(cmp.Or(m.Timeout, defaultTimeout)))
	ctx = c.begin()
	defer func() {
		if err != nil {
			c.end(err)
		}
	}()
	l, err := caller.await(ctx)
	if err != nil {
		return nil, err
	}
	r, err := m.record(ctx, req)
	if err != nil {
		return nil, err
	}
	h, err := l.listen(ctx, cmp.Or(m.ReplyTopic, c.labels.reply), m.Profile.named())
	if err != nil {
		return nil, err
	}
	if m.Group != "" {
		if err := l.responder(ctx, served{m.Group, m.Topic}); err != nil {
			return nil, err
		}
	}
	if ctx.Err() != nil { // nobody would wait for it
		return nil, whyOver(ctx)
	}
	caller.propagator().Inject(ctx, kotel.NewRecordCarrier(r))
	return c, l.begin(ctx, h, r, c)
}

// hear waits until replies are read, so that the time for that is not the
// call's.
func (m Method[Req, Resp]) hear(ctx context.Context, caller *Caller) error {
	if caller == nil {
		return errNoCaller
	}
	ctx, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	l, err := caller.await(ctx)
	if err == nil {
		_, err = l.listen(ctx, m.ReplyTopicName(), m.Profile.named())
	}
	return err
}

// begin begins the span of a call, and returns its context.
func (c *call) begin() context.Context {
	c.ctx, c.span = c.in.tracer.Start(&c.limit, c.labels.span, c.labels.start...)
	if c.in.duration.Enabled(c.ctx) {
		c.began = time.Now()
	}
	c.in.active.Add(c.ctx, 1, c.labels.active...)
	return c.ctx
}

// end ends the call, with what it returns.
func (c *call) end(err error) {
	if c.line != nil {
		c.line.end(c)
	}
	out := okay
	if err != nil {
		out = outcomeOf(err)
		fail(c.span, err, out)
	}
	c.in.active.Add(c.ctx, -1, c.labels.active...)
	if !c.began.IsZero() {
		c.in.duration.Record(c.ctx, time.Since(c.began).Seconds(), c.labels.ended[out].record...)
	}
	c.span.End()
	c.limit.end()
}

func fail(span trace.Span, err error, out outcome) {
	if !span.IsRecording() {
		return
	}
	kind := out.String()
	if e, ok := errors.AsType[*Error](err); ok && out == fault && e.Code != "" {
		kind = e.Code
	}
	span.SetAttributes(semconv.ErrorTypeKey.String(kind))
	span.SetStatus(codes.Error, err.Error())
}

// record returns the request, but for where its replies go.
func (m Method[Req, Resp]) record(ctx context.Context, req Req) (*kgo.Record, error) {
	r, err := m.Request(ctx, req)
	if err != nil {
		return nil, err
	}
	if end, ok := ctx.Deadline(); ok {
		header.AddTime(r, header.Deadline, end)
	}
	return r, nil
}
