package saga

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// past tells which records of a partition may have been handled before without
// being committed, so that local steps of theirs may have been done: those that
// were there when the partition came to its owner, and those that he handles
// again himself, because what they rested on was rolled back.
type past struct {
	mu    sync.Mutex // never held over a call that blocks
	era   int        // which of its owners this is
	end   int64      // where the inbox ended when the partition was owned already
	known chan struct{}
	begun map[string]int64
}

// anew is for a partition that comes, or comes back.
func (p *past) anew() (era int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.era++
	p.known, p.begun = make(chan struct{}), map[string]int64{}
	return p.era
}

// ends says where the inbox ended.
func (p *past) ends(era int, end int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.era == era {
		p.end = end
		close(p.known)
	}
}

// begin notes that local steps of a saga run for a record.
func (p *past) begin(id string, offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begun == nil {
		p.begun = map[string]int64{}
	}
	p.begun[id] = offset
}

// over notes that a record of the saga was committed.
func (p *past) over(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.begun, id)
}

// includes reports whether a record is one of those. Where nobody knows when ctx
// ends, it may be one.
func (p *past) includes(ctx context.Context, id string, offset int64) bool {
	p.mu.Lock()
	before, ok := p.begun[id]
	known := p.known
	p.mu.Unlock()
	if ok && before == offset {
		return true
	}
	select {
	case <-known:
	case <-ctx.Done():
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return offset < p.end
}

// handledBefore reports whether local steps may have been done for the record
// in hand before.
func (h *handling) handledBefore() bool {
	return (h.plan == nil || h.plan.local) && h.index.past.includes(h.ctx, h.id, h.r.Offset)
}

// asker asks where the inbox ends, for partitions that have just come.
type asker struct {
	mu   sync.Mutex // never held over a call that blocks
	come []arrival
	wake chan struct{}
}

type arrival struct {
	x   *index
	era int
}

func newAsker() *asker { return &asker{wake: make(chan struct{}, 1)} }

// owned takes note of a partition that has come.
func (a *asker) owned(x *index) {
	era := x.past.anew()
	a.mu.Lock()
	a.come = append(a.come, arrival{x, era})
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// run asks until ctx is done.
func (a *asker) run(ctx context.Context, adm *kadm.Client, inbox string) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		}
		a.mu.Lock()
		come := a.come
		a.come = nil
		a.mu.Unlock()
		for len(come) > 0 && ctx.Err() == nil {
			ends, err := adm.ListEndOffsets(ctx, inbox)
			var left []arrival
			for _, c := range come {
				end, ok := ends.Lookup(inbox, c.x.partition)
				if err == nil && ok && end.Err == nil {
					c.x.past.ends(c.era, end.Offset)
				} else {
					left = append(left, c)
				}
			}
			if come = left; len(come) > 0 {
				select {
				case <-ctx.Done():
				case <-time.After(250 * time.Millisecond):
				}
			}
		}
	}
}
