package wherry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	d := waiterFrom(ctx)
	if d != nil && wait > d.run.c.maxWait() {
		return &WaitError{Wait: wait, MaxWait: d.run.c.maxWait()}
	}
	for wait > 0 { // again where the clock was put back meanwhile
		timer := time.NewTimer(wait)
		err := park(ctx, d, until, timer.C, nil)
		timer.Stop()
		if err != nil {
			return err
		}
		wait = time.Until(until)
	}
	return nil
}

// Await parks the record in hand as [Wait] does, until ch is closed or
// something can be received from it. It has no limit.
func Await(ctx context.Context, ch <-chan struct{}) error {
	return park(ctx, waiterFrom(ctx), never, nil, ch)
}

// never is later than any time that is waited for.
var never = time.Unix(1<<40, 0)

// waiterFrom returns the record in hand of ctx; of the context of a batch, one
// of its records: when one of them waits all do.
func waiterFrom(ctx context.Context) *delivery {
	if d := deliveryFrom(ctx); d != nil {
		return d
	}
	d, _ := ctx.Value(batchKey{}).(*delivery)
	return d
}

// Interrupted reports whether the work on the record in hand was cut short:
// its partition was taken away, or the Consumer stops. What its handler
// returns is then no failure and does not count, and what is staged for it is
// not sent. A policy asks before it counts or reports an error.
//
// Exactly once, it may also turn true after the handler returned: the record
// is handled again, because a broker refused its outputs or because it rests on
// what was rolled back. What a policy keeps in memory of a record is void then.
func Interrupted(ctx context.Context) bool {
	d := waiterFrom(ctx)
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
func park(ctx context.Context, d *delivery, until time.Time, due <-chan time.Time, ch <-chan struct{}) (err error) {
	var drained <-chan struct{}
	if d != nil {
		d.detach(ctx)
		drained = d.item.Drained()
		if d.park(until) {
			defer func() {
				if !d.unpark() {
					err = cmp.Or(err, d.interrupt())
				}
			}()
		}
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-drained:
		return d.interrupt()
	case <-due:
	case <-ch:
	}
	return nil
}

// interrupt notes that the record is not handled, whatever its handler says,
// and returns the reason.
func (d *delivery) interrupt() error {
	d.interrupted.Store(true)
	return cmp.Or(context.Cause(d.Context), errDrained)
}

// park gives the record's place away, and stops the clock of the attempt,
// until unpark. Several goroutines of a handler may wait: the place is given
// away while one does. It reports false if the handler has returned: what it
// left behind has no place.
func (d *delivery) park(until time.Time) bool {
	if d.outputs.isClosed() {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.parked++; d.parked == 1 {
		d.stopped = d.clock
		d.stopped.stop()
		d.parking = d.item.Park(until)
	}
	return true
}

// unpark takes the place back and reports whether it has.
func (d *delivery) unpark() bool {
	d.mu.Lock()
	d.parked--
	left, parking, stopped := d.parked, d.parking, d.stopped
	d.mu.Unlock()
	if left > 0 {
		return true
	}
	defer stopped.start()
	return parking.End()
}
