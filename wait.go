package wherry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// Wait parks the record in hand until a time, and returns nil when it has
// come. What must come after the record waits too, what need not flows on, and
// the record's place among the Consumer's Concurrency is given to another: so
// a policy that retries is a plain loop, and the attempts are on its stack.
//
// When the Consumer drains or loses the partition, Wait returns the cause at
// once. The record then counts as not handled, whatever its handler returns:
// it stays uncommitted and comes again, and its wait begins anew. A time
// further off than the Consumer's MaxWait is refused with a [*WaitError]: it
// is for package retry's Topics.
//
// Outside of a handler Wait sleeps until the time or the end of ctx.
func Wait(ctx context.Context, until time.Time) error {
	wait := time.Until(until)
	if wait <= 0 {
		return context.Cause(ctx)
	}
	d := deliveryFrom(ctx)
	if d != nil && wait > d.run.c.maxWait() {
		return &WaitError{Wait: wait, MaxWait: d.run.c.maxWait()}
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	return park(ctx, d, until, timer.C, nil)
}

// Await parks the record in hand as [Wait] does, until ch is closed or
// something can be received from it. It has no limit.
func Await(ctx context.Context, ch <-chan struct{}) error {
	return park(ctx, deliveryFrom(ctx), time.Unix(math.MaxInt32, 0), nil, ch)
}

// Interrupted reports whether the work on the record in hand was cut short:
// its partition was taken away, or the Consumer stops. What its handler
// returns is then no failure and does not count, and what is staged for it is
// not sent. A policy asks before it counts or reports an error.
func Interrupted(ctx context.Context) bool {
	d := deliveryFrom(ctx)
	return d != nil && (d.Err() != nil || d.interrupted.Load())
}

// WaitError says that a record cannot wait in hand for so long.
type WaitError struct {
	Wait    time.Duration // the wait that was asked for
	MaxWait time.Duration // the Consumer's
}

func (e *WaitError) Error() string {
	return fmt.Sprintf("a wait of %v is longer than the Consumer's MaxWait of %v: raise it, or use retry.Topics", e.Wait.Round(time.Millisecond), e.MaxWait)
}

var errDrained = errors.New("the Consumer stops or its partition is taken away")

// park waits for due or ch, and gives the record's place away meanwhile.
func park(ctx context.Context, d *delivery, until time.Time, due <-chan time.Time, ch <-chan struct{}) error {
	var drained <-chan struct{}
	if d != nil {
		d.detach(ctx)
		drained = d.park(until)
		defer d.unpark()
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-drained:
		d.interrupted.Store(true)
		if cause := context.Cause(d); cause != nil {
			return cause
		}
		return errDrained
	case <-due:
	case <-ch:
	}
	return nil
}

// park gives the record's place away, and stops the clock of the attempt,
// until unpark. Several goroutines of a handler may wait: the place is given
// away while one does.
func (d *delivery) park(until time.Time) (drained <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.parked++
	if d.parked == 1 {
		d.clock.stop()
		d.drained = d.item.Park(until)
	}
	return d.drained
}

func (d *delivery) unpark() {
	d.mu.Lock()
	d.parked--
	last := d.parked == 0
	d.mu.Unlock()
	if last {
		d.item.Unpark()
		d.clock.start()
	}
}
