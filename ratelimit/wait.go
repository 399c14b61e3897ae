package ratelimit

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wherry-go/wherry"
)

// Wait returns nil when an event of key that costs 1 may happen, and has
// counted it. See [Limiter.WaitFor].
func (l *Limiter) Wait(ctx context.Context, key string) error { return l.WaitFor(ctx, key, 1) }

// WaitFor returns nil when an event of key may happen that costs so much, and
// has counted it.
//
// Those of this process who wait for a key do so in the order in which they
// came, and only the first of them asks the store; Allow and Take, and other
// processes, may come in between. When ctx ends WaitFor returns its cause; it
// returns a [*LimitError] of context.DeadlineExceeded at once when ctx would end
// before there is room. What did not happen was not counted.
//
// In a handler the record in hand is parked meanwhile, see wherry.Wait, and a
// wait beyond the Consumer's MaxWait is refused with a LimitError of a
// *wherry.WaitError. That counts from when one is first in the line: to stand
// in it has no limit but ctx.
func (l *Limiter) WaitFor(ctx context.Context, key string, cost int) error {
	var d Decision
	if !l.lines.any(key) {
		if err := l.take(ctx, key, cost, &d); err != nil || d.OK {
			return err
		}
	}
	c, err := l.get()
	if err != nil {
		return err
	}
	since := time.Now()
	place := l.lines.join(key)
	defer l.lines.leave(key, place)
	if err := wherry.Await(ctx, place.Value.(chan struct{})); err != nil {
		return err
	}
	for {
		if err := l.take(ctx, key, cost, &d); err != nil {
			return err
		}
		if d.OK {
			c.metrics.waited(ctx, since)
			return nil
		}
		until := time.Now().Add(d.Wait)
		if end, limited := ctx.Deadline(); limited && end.Before(until) {
			return c.cannotWait(&d, context.DeadlineExceeded)
		}
		if err := wherry.Wait(ctx, until); err != nil {
			if _, tooLong := errors.AsType[*wherry.WaitError](err); tooLong {
				return c.cannotWait(&d, err)
			}
			return err
		}
	}
}

func (c *ready) cannotWait(d *Decision, err error) error {
	e := &LimitError{Limiter: c.rules.Name, Wait: d.Wait, Err: err}
	if names := d.Refused(); len(names) > 0 {
		e.Tier = names[0]
	}
	return e
}

// lines are those who wait, by key. The first of a line has its turn: its
// channel is closed.
type lines struct {
	waiting atomic.Int64
	mu      sync.Mutex
	of      map[string]*list.List
}

// any reports whether somebody waits for the key.
func (l *lines) any(key string) bool {
	if l.waiting.Load() == 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of[key] != nil
}

func (l *lines) join(key string) *list.Element {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := l.of[key]
	turn := make(chan struct{})
	if line == nil {
		if l.of == nil {
			l.of = map[string]*list.List{}
		}
		line = list.New()
		l.of[key] = line
		close(turn)
	}
	l.waiting.Add(1)
	return line.PushBack(turn)
}

func (l *lines) leave(key string, place *list.Element) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := l.of[key]
	first := line.Front() == place
	line.Remove(place)
	l.waiting.Add(-1)
	switch {
	case line.Len() == 0:
		delete(l.of, key)
	case first:
		close(line.Front().Value.(chan struct{}))
	}
}
