package wherry

import (
	"context"
	"time"
)

// Wait parks the record in hand until a time, and returns nil when it has
// come. The record's lane stays shut meanwhile: what must come after the
// record waits too, what need not flows on, and the record's place among the
// Consumer's Concurrency is given to another. So a policy that retries is a
// plain loop.
//
// When the Consumer drains or loses the partition, Wait returns the cause at
// once. The record then counts as not handled, whatever its handler returns:
// it stays uncommitted and comes again, and its wait begins anew. A time
// further off than the Consumer's MaxWait is refused with an error, and is
// for package retry's Topics.
//
// Outside of a handler Wait sleeps until the time or the end of ctx.
func Wait(ctx context.Context, until time.Time) error {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// Await parks the record in hand as [Wait] does, until ch is closed or
// something can be received from it. It has no limit.
func Await(ctx context.Context, ch <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-ch:
		return nil
	}
}

// Interrupted reports whether the work on the record in hand was cut short:
// its partition was taken away, or the Consumer stops. What its handler
// returns is then no failure and does not count, and what is staged for it is
// not sent. A policy asks before it counts or reports an error.
func Interrupted(ctx context.Context) bool {
	return deliveryFrom(ctx) != nil && ctx.Err() != nil
}
