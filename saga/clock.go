package saga

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// clock sends ticks when timers are due, and admits when places are free. It
// decides nothing: those are records of the inbox, and what they do is done in
// their transaction.
type clock struct {
	send  func(r *kgo.Record)
	inbox string
	limit int // active sagas of a partition

	woken chan struct{}
	asker *asker

	mu      sync.Mutex
	indexes map[int32]*index
}

func newClock(inbox string, limit int) *clock {
	return &clock{inbox: inbox, limit: limit, woken: make(chan struct{}, 1), asker: newAsker(), indexes: map[int32]*index{}}
}

// wake has the clock look again. It never blocks.
func (c *clock) wake() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// owns begins to look after the index of a partition, or ends it.
func (c *clock) owns(x *index, yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case yes:
		c.indexes[x.partition] = x
		c.asker.owned(x)
	case c.indexes[x.partition] == x:
		delete(c.indexes, x.partition)
	}
}

// of returns the index of a partition, nil if it is not owned.
func (c *clock) of(partition int32) *index {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.indexes[partition]
}

func (c *clock) all() []*index {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.indexes))
}

// run sends what is due until ctx is done.
func (c *clock) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.woken:
		case <-timer.C:
		}
		next := c.pass(time.Now())
		if next.IsZero() {
			timer.Stop()
			continue
		}
		timer.Reset(time.Until(next))
	}
}

// pass sends what is due and returns when the next pass is to be, the zero time
// if only a wake tells.
func (c *clock) pass(now time.Time) (next time.Time) {
	ms := now.UnixMilli() // rounded down: nothing is early
	first := int64(0)
	for _, x := range c.all() {
		ids, at := x.due(ms)
		for _, id := range ids {
			c.send(inboxRecord(c.inbox, x.partition, id, kindTick))
		}
		admitted, again := x.admits(c.limit, ms)
		for _, id := range admitted {
			c.send(inboxRecord(c.inbox, x.partition, id, kindAdmit))
		}
		first = earlier(first, earlier(at, again))
	}
	if first == 0 {
		return time.Time{}
	}
	return time.UnixMilli(first)
}
