package ratelimit

import (
	"errors"
	"fmt"
	"time"

	"github.com/wherry-go/wherry"
)

// ErrStore is in every error about a [Store] that could not decide.
var ErrStore = errors.New("the rate limit's store did not answer")

// ErrFull is the error, beside [ErrStore], of a [Memory] that refuses new keys.
var ErrFull = errors.New("Memory.MaxKeys is reached")

// LimitError says that an event was refused and could not wait for so long.
// Package retry waits for RetryAfter before it tries again.
type LimitError struct {
	Limiter string
	Tier    string        // the first that refused
	Wait    time.Duration // how long it would have had to wait
	// Err is why it could not: context.DeadlineExceeded, or a *wherry.WaitError
	// in a handler.
	Err error
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("rate limit %s: tier %s has room in %v: %v", e.Limiter, e.Tier, e.Wait.Round(time.Millisecond), e.Err)
}

// Unwrap returns why the event could not wait.
func (e *LimitError) Unwrap() error { return e.Err }

// RetryAfter is the wait that would have been needed.
func (e *LimitError) RetryAfter() time.Duration { return e.Wait }

// CostError says that an event costs more than a tier ever has, or less than
// nothing. It is permanent (see wherry.ErrPermanent), and nothing was counted.
type CostError struct {
	Limiter string
	Tier    string // the first that it is too much for; "" for a negative cost
	Cost    int
	Limit   int // the tier's
}

func (e *CostError) Error() string {
	if e.Cost < 0 {
		return fmt.Sprintf("rate limit %s: an event cannot cost %d", e.Limiter, e.Cost)
	}
	return fmt.Sprintf("rate limit %s: an event that costs %d can never pass tier %s, whose Limit is %d", e.Limiter, e.Cost, e.Tier, e.Limit)
}

// Is reports that a CostError is a wherry.ErrPermanent.
func (e *CostError) Is(target error) bool { return target == wherry.ErrPermanent }
