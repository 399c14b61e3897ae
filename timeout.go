package wherry

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// clock ends the context of an attempt that takes too long. It stands still
// while the attempt waits. A nil clock does nothing.
type clock struct {
	limit  time.Duration
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	timer   *time.Timer
	left    time.Duration
	started time.Time
	stops   int // how often it was stopped and not started again
	over    bool
}

// within returns a context that ends after limit.
func within(ctx context.Context, limit time.Duration) (context.Context, *clock) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &clock{limit: limit, cancel: cancel, left: limit, started: time.Now()}
	c.timer = time.AfterFunc(limit, c.strike)
	return ctx, c
}

// strike ends the context.
func (c *clock) strike() {
	c.cancel(fmt.Errorf("the attempt took longer than the Consumer's Timeout of %v: %w", c.limit, context.DeadlineExceeded))
}

// stop stops the clock until as many calls of start.
func (c *clock) stop() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stops++; c.stops > 1 || c.over {
		return
	}
	if c.timer.Stop() {
		c.left -= time.Since(c.started)
	} else {
		c.over = true
	}
}

func (c *clock) start() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stops--; c.stops == 0 && !c.over {
		c.started = time.Now()
		c.timer.Reset(max(c.left, 0))
	}
}

// end stops the clock for good.
func (c *clock) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	c.timer.Stop()
	c.cancel(errReturned)
}
