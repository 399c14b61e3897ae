package reqreply

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"
)

// call is a request that waits for replies.
type call struct {
	limit  until // when nobody waits any more
	in     *instruments
	labels *labels
	ctx    context.Context //nolint:containedctx // with the span, under limit
	span   trace.Span
	began  time.Time // zero where nobody measures

	line  *line  // nil before it was sent
	n     uint64 // of its correlation id
	topic string // where the replies come
	most  int    // how many replies may wait to be taken

	mu    sync.Mutex
	queue []answer
	first [1]answer // of queue, which most calls need no more of
	err   error     // after the queue, why no more come
	wake  chan struct{}

	// Guarded by line.mu: the place is free when both are true.
	acked, ended bool
}

// answer is a reply and what it says.
type answer struct {
	record *kgo.Record
	reply
}

// put adds a reply.
func (c *call) put(a answer) {
	c.mu.Lock()
	switch {
	case c.err != nil:
	case len(c.queue) < c.most:
		c.queue = append(c.queue, a)
	default:
		c.err = fmt.Errorf("%d replies wait to be taken, and that is the limit", c.most)
	}
	c.mu.Unlock()
	c.signal()
}

// fail ends the call with err, after the replies that are there.
func (c *call) fail(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	c.mu.Unlock()
	c.signal()
}

func (c *call) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// next waits for a reply.
func (c *call) next() (answer, error) {
	if c.limit.at.IsZero() {
		return c.within(nil)
	}
	timer := c.line.timer(c.limit.at)
	a, err := c.within(timer.C) // cheaper than the end of c.limit
	timer.Stop()
	c.line.timers.Put(timer)
	return a, err
}

// within waits for a reply until limit fires, or the context ends that the call
// was given.
func (c *call) within(limit <-chan time.Time) (answer, error) {
	for {
		c.mu.Lock()
		if len(c.queue) > 0 {
			a := c.queue[0]
			c.queue = c.queue[1:]
			c.mu.Unlock()
			return a, nil
		}
		err := c.err
		c.mu.Unlock()
		if err != nil {
			return answer{}, err
		}
		select {
		case <-c.wake:
		case <-limit:
			c.line.doubt(c.topic)
			return answer{}, context.DeadlineExceeded
		case <-c.limit.Context.Done():
			c.line.doubt(c.topic)
			return answer{}, whyOver(c.limit.Context)
		}
	}
}
