package retry

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// failure is what the error of one call says.
type failure struct {
	whole    error // what was returned
	err      error // the same without a RecordError around it
	final    wherry.Cause
	attempts int       // that a policy inside has made, 0 without one
	first    time.Time // when the first of them failed, or now
	stack    string
}

// failureOf reads an error of r, which may be nil.
func failureOf(r *kgo.Record, err error) failure {
	f := failure{whole: err, err: err, first: time.Now()}
	found, ok := errors.AsType[*wherry.RecordError](err)
	if ok && found.Topic != "" && r != nil && (found.Topic != r.Topic || found.Partition != r.Partition || found.Offset != r.Offset) {
		ok = false // it is about another record, as of a Table: an error like any
	}
	if ok {
		f.attempts, f.stack = found.Attempts, found.Stack
		if !found.First.IsZero() {
			f.first = found.First
		}
		if error(found) == err && found.Err != nil { //nolint:errorlint // is it wrapped at all?
			f.err = found.Err
		}
		switch found.Cause {
		case wherry.CausePermanent, wherry.CauseUndecodable, wherry.CauseRejected, wherry.CauseExpired:
			f.final = found.Cause
			return f
		default: // also exhausted: a policy inside has done its part
		}
	}
	if errors.Is(err, wherry.ErrPermanent) {
		f.final = wherry.CausePermanent
	}
	return f
}

type loggerKey struct{}

// maxKeyLogged bounds the key in a log line.
const maxKeyLogged = 64

// logRetry logs a failure that nobody else will hear of.
func logRetry(ctx context.Context, r *kgo.Record, attempt int, wait time.Duration, err error) {
	log, ok := ctx.Value(loggerKey{}).(*slog.Logger)
	if !ok {
		return // not in a Consumer
	}
	log.WarnContext(ctx, "retry: failed, trying again",
		"topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "key", cut(string(r.Key), maxKeyLogged), "attempt", attempt, "in", wait, "error", err)
}
