package lane

import (
	"context"
	"math"
	"sync"
)

// Pool shares slots among lanes: as many records as there are slots are worked
// on at once. Lanes that have work take turns, so a long queue of one does not
// starve the others. Its methods are safe for concurrent use; only acquire
// blocks.
type Pool struct {
	unlimited bool

	mu    sync.Mutex
	free  int             // slots that nobody has
	lanes []*Lane         // that have tickets, each once, in turn
	back  []chan struct{} // of those whose wait is over, first come first served
}

// NewPool returns a pool of so many slots; 0 means without a limit.
func NewPool(slots int) *Pool {
	if slots == 0 {
		return &Pool{free: math.MaxInt, unlimited: true}
	}
	return &Pool{free: slots}
}

// offer says that n more units of l may begin.
func (p *Pool) offer(l *Lane, n int) {
	if n == 0 {
		return
	}
	p.mu.Lock()
	if l.tickets == 0 {
		p.lanes = append(p.lanes, l)
	}
	l.tickets += n
	n = min(n, p.free)
	p.free -= n
	p.mu.Unlock()
	for range n {
		go p.work()
	}
}

// next returns the lane whose turn it is, or nil after giving up the slot.
func (p *Pool) next() *Lane {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.back) > 0 {
		p.hand()
		return nil
	}
	if len(p.lanes) == 0 {
		p.free++
		return nil
	}
	l := p.lanes[0]
	p.lanes[0] = nil
	p.lanes = p.lanes[1:]
	if l.tickets--; l.tickets > 0 {
		p.lanes = append(p.lanes, l)
	}
	return l
}

// wanted reports whether others wait for a slot.
func (p *Pool) wanted() bool {
	if p.unlimited {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.back)+len(p.lanes) > 0
}

// hand gives a slot to the first of those whose wait is over.
func (p *Pool) hand() {
	close(p.back[0])
	p.back[0] = nil
	p.back = p.back[1:]
}

// work works with one slot until no lane has anything to begin.
func (p *Pool) work() {
	for l := p.next(); l != nil; l = p.next() {
		if !l.serve() {
			return // the slot was given up
		}
	}
}

// release gives up a slot for a while.
func (p *Pool) release() {
	p.mu.Lock()
	switch {
	case len(p.back) > 0:
		p.hand()
	case len(p.lanes) > 0:
		go p.work()
	default:
		p.free++
	}
	p.mu.Unlock()
}

// acquire takes a slot again, before anything that has not begun. It reports
// whether it has, before ctx or stop ended.
func (p *Pool) acquire(ctx context.Context, stop <-chan struct{}) bool {
	p.mu.Lock()
	if p.free > 0 {
		p.free--
		p.mu.Unlock()
		return true
	}
	mine := make(chan struct{})
	p.back = append(p.back, mine)
	p.mu.Unlock()
	select {
	case <-mine:
		return true
	case <-ctx.Done():
	case <-stop:
	}
	p.mu.Lock()
	for i, ch := range p.back {
		if ch == mine {
			p.back = append(p.back[:i], p.back[i+1:]...)
			p.mu.Unlock()
			return false
		}
	}
	p.mu.Unlock()
	return true // it was handed over at the same moment
}
