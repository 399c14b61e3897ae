package saga

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
)

// past tells which records of a partition may have been handled before without
// being committed, so that local steps of theirs may have been done: those that
// were there when the partition came to its owner, and those that he handles
// again himself, because what they rested on was rolled back.
type past struct {
	asking sync.Mutex // held while it is asked where the inbox ends

	mu    sync.Mutex // never held over a call that blocks
	era   int        // of what owner this is
	end   int64      // where the inbox ended when the partition was owned already; -1 not known
	begun map[string]int64
}

// anew is for a partition that comes, or comes back.
func (p *past) anew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.era++
	p.end, p.begun = -1, map[string]int64{}
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

func (p *past) look(id string, offset int64) (is, known bool, era int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if before, ok := p.begun[id]; ok && before == offset {
		return true, true, p.era
	}
	return offset < p.end, p.end >= 0, p.era
}

// includes reports whether a record is one of those. ask tells where the inbox
// ends; where nobody knows, it may be one.
func (p *past) includes(id string, offset int64, ask func() (int64, error)) bool {
	is, known, _ := p.look(id, offset)
	if known {
		return is
	}
	p.asking.Lock()
	defer p.asking.Unlock()
	is, known, era := p.look(id, offset)
	if known {
		return is
	}
	end, err := ask()
	if err != nil {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.era == era {
		p.end = end
	}
	return offset < end
}

// handledBefore reports whether local steps may have been done for the record
// in hand before.
func (h *handling) handledBefore() bool {
	if h.plan == nil || !h.plan.local {
		return false
	}
	return h.index.past.includes(h.id, h.r.Offset, func() (int64, error) { return h.inboxEnd(h.ctx) })
}

func (h *handling) inboxEnd(ctx context.Context) (int64, error) {
	ends, err := kadm.NewClient(h.client).ListEndOffsets(ctx, h.inbox)
	if err != nil {
		return 0, err
	}
	end, _ := ends.Lookup(h.inbox, h.r.Partition)
	return end.Offset, end.Err
}
