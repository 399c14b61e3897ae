// Package trouble makes services go wrong as they are told, so that it can be
// watched what becomes of a checkout then.
package trouble

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/saga"
)

// A Mode says how a service goes. The zero Mode is OK.
type Mode string

// Modes.
const (
	OK      Mode = "ok"
	Refuse  Mode = "refuse"  // it says no
	Fail    Mode = "fail"    // every attempt fails
	Flaky   Mode = "flaky"   // the first two attempts fail
	Timeout Mode = "timeout" // it does what it is asked for and does not answer
)

var modes = []Mode{OK, Refuse, Fail, Flaky, Timeout}

// Set reads a Mode, as [flag.Value] does.
func (m *Mode) Set(text string) error {
	if !slices.Contains(modes, Mode(text)) {
		var names []string
		for _, m := range modes {
			names = append(names, string(m))
		}
		return fmt.Errorf("choose from %s", strings.Join(names, ", "))
	}
	*m = Mode(text)
	return nil
}

// String is what Set reads.
func (m *Mode) String() string { return string(*m) }

// flakyAttempts is how many attempts fail that are Flaky.
const flakyAttempts = 2

// In returns fn with that trouble, and with a line in the log for each time that
// it is called. An undo has no trouble: it would be tried for ever.
func In[Req, Resp any](m Mode, log *slog.Logger, fn func(context.Context, Req) (Resp, error)) func(context.Context, Req) (Resp, error) {
	return func(ctx context.Context, req Req) (resp Resp, err error) {
		op, _ := saga.OpFrom(ctx)
		how := m
		if op.Undo {
			how = OK
		}
		switch {
		case how == Refuse:
			err = &reqreply.Error{Code: "refused", Message: "no"}
		case how == Fail, how == Flaky && op.Attempt <= flakyAttempts:
			err = errors.New("it is broken")
		default:
			resp, err = fn(ctx, req)
		}
		if how == Timeout && err == nil {
			<-ctx.Done() // the end of the step's Timeout, or of the Consumer
			err = context.Cause(ctx)
		}
		if err != nil {
			log.WarnContext(ctx, "participant: not done", "op", op.Key(), "attempt", op.Attempt, "error", err)
		} else {
			log.InfoContext(ctx, "participant: done", "op", op.Key(), "attempt", op.Attempt)
		}
		return resp, err
	}
}
