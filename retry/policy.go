package retry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// Forever as the number of attempts never gives up. It wants a Max.
const Forever = math.MaxInt

// Policy says how often and when to try again. As a [wherry.Policy] it tries
// in place: the record waits in hand, see [wherry.Wait]. The zero Policy makes
// 3 attempts, with 1 s and 2 s between them.
//
// A Policy is a value, safe for concurrent use, and serves any number of
// Consumers and calls of Do.
type Policy struct {
	// Attempts is how often to call, with the first time; 1 means never again,
	// [Forever] without an end. 0 means 3, as with Spring's @RetryableTopic.
	Attempts int
	// Initial is the wait after the first failure. 0 means 1s; for hardly any
	// wait set a nanosecond.
	Initial time.Duration
	// Multiplier makes each wait longer than the one before; 1 keeps them
	// equal. 0 means 2.
	Multiplier float64
	// Max is the longest wait, with its jitter. 0 means no limit (in place,
	// the Consumer's MaxWait is one).
	Max time.Duration
	// Jitter spreads waits at random, by up to this part of them, 0 to 1, to
	// both sides: 0.2 turns 10 s into 8 s to 12 s. 0 means none.
	Jitter float64
	// Within is the overall time from the begin of the first attempt. No
	// attempt begins after it, and a wait that would end after it is not begun.
	// 0 means no limit.
	Within time.Duration
	// Rules are for errors that want another schedule; the first that matches
	// counts. Errors that are permanent are not asked for.
	Rules []Rule
}

// Wrap returns next with the attempts around it, for a Consumer's Policies.
//
// Waits end at once when the Consumer stops or loses the partition; the record
// then comes again, here or elsewhere, and its attempts begin anew. If a wait
// that the handler asked for with [After] is longer than the Consumer's
// MaxWait, the record's error names both.
func (p Policy) Wrap(next wherry.Handler) wherry.Handler {
	return func(ctx context.Context, r *kgo.Record) error {
		began := time.Now()
		made := wherry.Attempt(ctx) - 1 // by policies outside
		var first time.Time
		for n := 1; ; n++ {
			err := next(wherry.WithAttempt(ctx, made+1), r)
			if err == nil || wherry.Interrupted(ctx) {
				return err
			}
			f := failureOf(r, err)
			made = max(made+1, f.attempts)
			if first.IsZero() {
				first = f.first
			}
			fail := func(cause wherry.Cause, err error) error {
				if made == 1 {
					first = time.Time{}
				}
				return &wherry.RecordError{Cause: cause, Attempts: made, First: first, Stack: f.stack, Err: err}
			}
			wait, cause := p.next(n, p.left(time.Since(began)), f)
			if cause != "" {
				return fail(cause, f.err)
			}
			logRetry(ctx, r, made, wait, f.err)
			switch refused := wherry.Wait(ctx, time.Now().Add(wait)); {
			case refused == nil:
			case wherry.Interrupted(ctx):
				return refused
			default:
				return fail(wherry.CauseExhausted, fmt.Errorf("%w; not tried again: %w", f.err, refused))
			}
		}
	}
}

// Prepare checks the policy against the Consumer's MaxWait.
func (p Policy) Prepare(s *wherry.Setup) error {
	faults := p.check()
	for name, sched := range p.schedules() {
		if n, wait := sched.beyond(s.MaxWait, p.Within); n > 0 {
			faults = append(faults, fmt.Errorf("%s waits %v after attempt %d, and the Consumer's MaxWait is %v: set Max, use retry.Topics, or raise MaxWait", name, wait, n, s.MaxWait))
		}
	}
	s.WithValue(loggerKey{}, s.Logger)
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("retry.Policy: %w", err)
	}
	return nil
}

// Do calls f until it returns nil, and returns its last error when no attempt
// is left or the error is permanent. f finds its attempt with
// [wherry.Attempt]; a panic of f is not caught.
//
// When ctx ends, Do returns f's error joined with the cause; it does so at once
// where ctx would end before the next attempt. Within a handler the waits park
// the record in hand.
func (p Policy) Do(ctx context.Context, f func(context.Context) error) error {
	if err := errors.Join(p.check()...); err != nil {
		return fmt.Errorf("retry.Policy: %w", err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	began := time.Now()
	for n := 1; ; n++ {
		err := f(wherry.WithAttempt(ctx, n))
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ended(err, context.Cause(ctx))
		}
		wait, cause := p.next(n, p.left(time.Since(began)), failureOf(nil, err))
		switch end, limited := ctx.Deadline(); {
		case cause != "" && n == 1:
			return err
		case cause != "":
			return fmt.Errorf("%s after %d attempts: %w", cause, n, err)
		case limited && time.Until(end) <= wait:
			return fmt.Errorf("%w; the next attempt, in %v, would come too late: %w", err, wait, context.DeadlineExceeded)
		}
		if cut := wherry.Wait(ctx, time.Now().Add(wait)); cut != nil {
			return ended(err, cut)
		}
	}
}

// ended joins the reason why no further attempt is made, if err does not have
// it already.
func ended(err, cause error) error {
	if errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w; not tried again: %w", err, cause)
}

func (p Policy) left(elapsed time.Duration) time.Duration {
	if p.Within == 0 {
		return math.MaxInt64
	}
	return p.Within - elapsed
}
