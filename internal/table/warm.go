package table

import (
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// extent is where the log of one partition begins and ends.
type extent struct{ start, end int64 }

// begin makes the Part ready to be restored from a log: it drops what is
// pending, and forgets what is not of this log any more. It returns the offset
// to read from and, if all was forgotten, why.
//
// keep is how long the topic's tombstones are kept at least. A Part that is
// half as old may have missed one that is gone already, of a key that it has.
func (p *Part) begin(partition int32, topic kadm.TopicID, log extent, keep time.Duration) (next int64, anew string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending, p.writes = nil, 0
	p.partition = partition
	at := now()
	if p.next > 0 {
		switch {
		case p.topic != topic:
			anew = "the topic was made anew"
		case p.next > log.end:
			anew = "the log ends before what was read"
		case at.Sub(p.asOf) >= keep/2 || at.Before(p.asOf):
			anew = "tombstones may be gone that were not read"
		case p.next < log.start:
			anew = "the log begins after what was read"
		}
	}
	if anew != "" {
		p.forget()
	}
	if p.next == 0 {
		p.asOf = at
	}
	p.topic, p.own = topic, false
	p.trim(log.start)
	return p.next, anew
}

// warm reports whether the Part has read of a log.
func (p *Part) warm() bool { return p.Next() > 0 }

// reset empties the Part.
func (p *Part) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget()
}

func (p *Part) forget() {
	p.committed = map[string]packed{}
	if p.index != nil {
		p.index.Reset()
	}
	p.next, p.start, p.own = 0, 0, false
}

// apply takes in committed records that were read from a log that begins at
// start. It reports false, and takes nothing in, if they are not what follows.
func (p *Part) apply(start int64, rs []*kgo.Record) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trim(start)
	if len(rs) == 0 {
		return true
	}
	if rs[0].Offset < p.next {
		return false
	}
	for _, r := range rs {
		if !r.Attrs.IsControl() {
			p.take(r)
		}
	}
	p.next = rs[len(rs)-1].Offset + 1
	return true
}

// advance moves next over offsets at which there is nothing.
func (p *Part) advance(next int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = max(p.next, next)
}

// trim drops what is below the start of the log: a reader from the start does
// not find it, and the tombstones that would have deleted it may be gone too.
func (p *Part) trim(start int64) {
	if start <= p.start {
		return
	}
	for key, c := range p.committed {
		if c.offset(len(key)) < start {
			delete(p.committed, key)
			if p.index != nil {
				p.index.Take(&kgo.Record{Key: []byte(key), Partition: p.partition})
			}
		}
	}
	p.start, p.next = start, max(p.next, start)
}

// restored notes that the Part has all of the log as it was at a time.
func (p *Part) restored(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asOf = at
}
