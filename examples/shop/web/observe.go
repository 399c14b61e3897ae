package web

import (
	"cmp"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// observed writes one line for each request, when it is answered, tells the
// client the trace, and answers 500 when a handler panics. If the answer has
// begun by then, the connection is cut, so that the client does not take it for
// whole.
//
// The trace is told in traceresponse, the field that the editors' draft of W3C's
// Trace Context has for it; its value has the form of traceparent's. It is the
// only one that anybody has specified for this: X-Trace-Id and its like are
// each company's own.
func (s *Server) observed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun, ctx := time.Now(), r.Context()
		if c := trace.SpanContextFromContext(ctx); c.IsValid() && !c.IsRemote() {
			w.Header().Set("traceresponse", "00-"+c.TraceID().String()+"-"+c.SpanID().String()+"-"+c.TraceFlags().String())
		}
		rec := &recorder{ResponseWriter: w}
		defer func() {
			p := recover()
			if p != nil && p != http.ErrAbortHandler { //nolint:errorlint // it is panicked with as it is
				s.Logger.ErrorContext(ctx, "http: a handler panicked", "method", r.Method, "path", cut(r.URL.Path), "panic", p, "stack", string(debug.Stack()))
				if rec.status == 0 {
					fault{status: http.StatusInternalServerError, message: internal}.write(rec, r)
					p = nil
				}
			}
			s.log(r, rec, time.Since(begun), p != nil)
			if p != nil {
				panic(http.ErrAbortHandler)
			}
		}()
		next.ServeHTTP(rec, r)
	})
}

// log is the line of a request. The Logger adds the trace, see the shop's log.go.
func (s *Server) log(r *http.Request, rec *recorder, took time.Duration, aborted bool) {
	level := slog.LevelInfo
	if watching(r) {
		level = slog.LevelDebug
	}
	attrs := []slog.Attr{
		slog.String("method", cut(r.Method)),
		slog.String("route", cmp.Or(r.Pattern, "none")),
		slog.String("path", cut(r.URL.Path)),
		slog.Int("status", cmp.Or(rec.status, http.StatusOK)),
		slog.Int64("bytes", rec.bytes),
		slog.Duration("duration", took),
		slog.String("client", s.clients().Client(r).String()),
		slog.String("user_agent", cut(r.UserAgent())),
	}
	if aborted {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	s.Logger.LogAttrs(r.Context(), level, "http: request", attrs...)
}

// cut shortens what a client may make as long as it likes.
func cut(text string) string {
	const most = 128
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// recorder notes what is answered.
type recorder struct {
	http.ResponseWriter
	status int // 0 until the answer begins
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= http.StatusOK { // 1xx come before the answer
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	r.status = cmp.Or(r.status, http.StatusOK)
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController and huma, which set deadlines.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
