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
	mu      sync.Mutex
	timer   *time.Timer
	left    time.Duration
	started time.Time
	over    bool
}

// within returns a context that ends after limit.
func within(ctx context.Context, limit time.Duration) (context.Context, *clock) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &clock{left: limit, started: time.Now()}
	c.timer = time.AfterFunc(limit, func() {
		cancel(fmt.Errorf("the attempt took longer than the Consumer's Timeout of %v: %w", limit, context.DeadlineExceeded))
	})
	return ctx, c
}

func (c *clock) stop() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
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
	if !c.over {
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
}
