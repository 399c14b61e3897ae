// Package trouble makes services go wrong as they are told, so that it can be
// watched what becomes of a checkout then.
package trouble

import (
	"context"
	"errors"
	"fmt"
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

// In returns fn with that trouble. Undoing knows no trouble: it would be tried
// for ever.
func In[Req, Resp any](m Mode, fn func(context.Context, Req) (Resp, error)) func(context.Context, Req) (Resp, error) {
	return func(ctx context.Context, req Req) (none Resp, err error) {
		op, _ := saga.OpFrom(ctx)
		switch {
		case m == Refuse:
			return none, &reqreply.Error{Code: "refused", Message: "no"}
		case m == Fail, m == Flaky && op.Attempt <= flakyAttempts:
			return none, errors.New("it is broken")
		}
		resp, err := fn(ctx, req)
		if m == Timeout && err == nil {
			<-ctx.Done() // the end of the step's Timeout, or of the Consumer
			return none, context.Cause(ctx)
		}
		return resp, err
	}
}
