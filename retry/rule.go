package retry

import (
	"cmp"
	"errors"
	"time"

	"github.com/wherry-go/wherry"
)

// Rule is the schedule of a [Policy] for some errors.
//
//	Rules: []retry.Rule{
//		{If: retry.Is(ErrClosed), GiveUp: true},
//		{If: retry.As[*RateLimitError](), Attempts: 20, Initial: time.Minute, Multiplier: 1},
//	}
//
// Where errors of several kinds come one after the other the calls are counted
// together: the rule of the latest error says how many may be made in all, and
// the wait is that of its schedule after so many calls.
type Rule struct {
	// If says whether the rule is for an error. It gets what the handler
	// returned; a panic is a [*wherry.RecordError], see [Panicked]. It must be
	// pure and safe for concurrent use. Required.
	If func(error) bool
	// GiveUp makes no further attempt: the cause is [wherry.CausePermanent].
	GiveUp bool
	// Attempts, Initial, Multiplier and Max are as in [Policy]. 0 means the
	// Policy's.
	Attempts   int
	Initial    time.Duration
	Multiplier float64
	Max        time.Duration
}

func (r Rule) schedule(p Policy) schedule {
	s := p.schedule()
	s.attempts = cmp.Or(r.Attempts, s.attempts)
	s.initial = cmp.Or(r.Initial, s.initial)
	s.multiplier = cmp.Or(r.Multiplier, s.multiplier)
	s.max = cmp.Or(r.Max, s.max)
	return s
}

// Is matches errors as errors.Is does.
func Is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

// As matches errors as errors.As does.
func As[E error]() func(error) bool {
	return func(err error) bool {
		_, ok := errors.AsType[E](err)
		return ok
	}
}

// Panicked matches panics of the handler. They are tried again as errors are;
// {If: retry.Panicked, GiveUp: true} does not.
func Panicked(err error) bool {
	found, ok := errors.AsType[*wherry.RecordError](err)
	return ok && (found.Cause == wherry.CausePanic || found.Stack != "")
}

// After returns err with the wait until the next attempt, which then takes the
// place of the schedule's, as HTTP's Retry-After asks for (RFC 9110, 10.2.3).
// The attempt counts all the same. Max does not shorten the wait, Jitter only
// makes it longer, Within and in place the Consumer's MaxWait bound it: a wait
// beyond them is not begun. It returns nil for nil; 0 or less means at once.
//
// An error of another package says so with a method
// RetryAfter() time.Duration.
func After(err error, wait time.Duration) error {
	if err == nil {
		return nil
	}
	return &after{err, wait}
}

type after struct {
	err  error
	wait time.Duration
}

func (e *after) Error() string             { return e.err.Error() }
func (e *after) Unwrap() error             { return e.err }
func (e *after) RetryAfter() time.Duration { return e.wait }

// askedFor returns the wait that an error asks for.
func askedFor(err error) (wait time.Duration, ok bool) {
	type asks interface {
		error
		RetryAfter() time.Duration
	}
	if e, ok := errors.AsType[asks](err); ok {
		return max(e.RetryAfter(), 0), true
	}
	return 0, false
}
