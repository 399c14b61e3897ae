package main

import (
	"context"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// newLogger logs lines of text, each with the time of the day, since who reads a
// story knows the date, and with the trace that it belongs to.
func newLogger(w io.Writer) *slog.Logger {
	return slog.New(traced{slog.NewTextHandler(w, &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.String(slog.TimeKey, a.Value.Time().Format("15:04:05.000"))
			}
			return a
		},
	})})
}

// traced adds trace_id and span_id to the lines whose context has them, under the
// names that OpenTelemetry gives them in logs that are not its own. All lines about
// an order, from the request to the last notification, have one trace_id.
type traced struct{ slog.Handler }

// Handle adds the ids to a line.
func (h traced) Handle(ctx context.Context, r slog.Record) error {
	if c := trace.SpanContextFromContext(ctx); c.IsValid() {
		r.AddAttrs(slog.String("trace_id", c.TraceID().String()), slog.String("span_id", c.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs goes on adding them.
func (h traced) WithAttrs(attrs []slog.Attr) slog.Handler { return traced{h.Handler.WithAttrs(attrs)} }

// WithGroup goes on adding them.
func (h traced) WithGroup(name string) slog.Handler { return traced{h.Handler.WithGroup(name)} }

// atLeast is a handler that takes nothing below a level. The Kafka client gets
// one: it asks its logger which levels to bother with, and below warnings it has
// more to tell than the whole shop.
type atLeast struct {
	slog.Handler
	level slog.Level
}

// Enabled reports whether a line of that level is taken.
func (h atLeast) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= h.level && h.Handler.Enabled(ctx, level)
}

// WithAttrs keeps the level, which the embedded handler would drop.
func (h atLeast) WithAttrs(attrs []slog.Attr) slog.Handler {
	return atLeast{h.Handler.WithAttrs(attrs), h.level}
}

// WithGroup keeps the level too.
func (h atLeast) WithGroup(name string) slog.Handler {
	return atLeast{h.Handler.WithGroup(name), h.level}
}
