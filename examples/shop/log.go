package main

import (
	"context"
	"io"
	"log/slog"
)

// newLogger logs lines of text, each with the time of the day: who reads a story
// knows the date.
func newLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.String(slog.TimeKey, a.Value.Time().Format("15:04:05.000"))
			}
			return a
		},
	}))
}

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
