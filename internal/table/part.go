package table

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Part is one partition of an owned table: what its log says, and over it what
// handlers wrote and no transaction has committed yet. It belongs to one
// assignment of its partition to one Consumer, whose transactions are the only
// ones that write to the partition meanwhile. [Restore] fills it.
//
// Its methods are safe for concurrent use and never wait for anything but each
// other.
type Part struct {
	mu        sync.RWMutex // never held over a call that blocks
	committed map[string]packed
	pending   map[string][]write // by key, in the order of Write
	writes    int                // how many are pending
	partition int32

	index Index // nil for none

	next  int64        // the log is taken in below it
	own   bool         // whether what is right below next is the last record of a transaction of ours
	start int64        // of the log, as far as known
	topic kadm.TopicID // of which all this is
	asOf  time.Time    // what compaction removed before it, of the log from next on, was not needed
}

// write is one that is pending.
type write struct {
	r    *kgo.Record // only to be compared: a client may be at work on it
	p    packed
	tomb bool
}

// An Index is kept beside a Part. It is called under the Part's lock.
type Index interface {
	// Take is given each committed record, and says whether the Part keeps it.
	Take(r *kgo.Record) (keep bool)
	// Reset forgets all.
	Reset()
}

// NewPart returns an empty Part. index may be nil.
func NewPart(index Index) *Part { return &Part{committed: map[string]packed{}, index: index} }

// Get returns what key has: its last pending write, or else what is committed.
// The Entry is a copy; the Offset of one that is pending is -1, and its Millis
// are 0 unless the record had a Timestamp when it was written.
func (p *Part) Get(key string) (Entry, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if ws := p.pending[key]; len(ws) > 0 {
		last := ws[len(ws)-1]
		if last.tomb {
			return Entry{}, false
		}
		return last.p.entry(key, p.partition), true
	}
	c, ok := p.committed[key]
	if !ok {
		return Entry{}, false
	}
	return c.entry(key, p.partition), true
}

// Write makes r, which was not produced yet, pending: Get and All show it until
// a Rollback. A nil value is a tombstone. What it shows is copied.
func (p *Part) Write(r *kgo.Record) {
	var millis int64
	if !r.Timestamp.IsZero() {
		millis = r.Timestamp.UnixMilli()
	}
	w := write{r: r, tomb: r.Value == nil}
	key, whole := pack(r, -1, millis)
	if !w.tomb {
		w.p = whole
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending == nil {
		p.pending = map[string][]write{}
	}
	p.pending[key] = append(p.pending[key], w)
	p.writes++
}

// Commit takes in rs: all the records of one transaction, now committed, that
// were given to Write, with their Partition, Offset and Timestamp as produced.
// Nobody may change them meanwhile. What is kept is what the log has, with the
// headers of now.
//
// Later writes of the same keys stay pending on top; earlier ones are dropped,
// for they cannot come after it any more. Calls are made in the order of the
// transactions.
func (p *Part) Commit(rs []*kgo.Record) {
	rs = ordered(rs)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pass(rs)
	for _, r := range rs {
		p.partition = r.Partition
		p.settle(r)
		p.take(r)
	}
	if p.writes == 0 {
		p.pending = nil
	}
}

// Rollback drops all that is pending: its handlers run again. Of a transaction
// that was aborted it may be given the records that the broker acknowledged,
// with their Offset; they change nothing, but Next can pass them.
func (p *Part) Rollback(aborted ...*kgo.Record) {
	aborted = ordered(aborted)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending, p.writes = nil, 0
	p.pass(aborted)
}

// All ranges over keys and entries as they are when the range begins, in no
// order. Each Entry is a copy.
func (p *Part) All() iter.Seq2[string, Entry] {
	return func(yield func(string, Entry) bool) {
		p.mu.RLock()
		partition, all := p.partition, maps.Clone(p.committed)
		for key, ws := range p.pending {
			if last := ws[len(ws)-1]; last.tomb {
				delete(all, key)
			} else {
				all[key] = last.p
			}
		}
		p.mu.RUnlock()
		for key, c := range all {
			if !yield(key, c.entry(key, partition)) {
				return
			}
		}
	}
}

// Len is the number of keys that All ranges over.
func (p *Part) Len() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	n := len(p.committed)
	for key, ws := range p.pending {
		_, was := p.committed[key]
		is := !ws[len(ws)-1].tomb
		switch {
		case is && !was:
			n++
		case was && !is:
			n--
		}
	}
	return n
}

// Pending is the number of writes that are pending, several of a key counted.
func (p *Part) Pending() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.writes
}

// Next is the offset from which Restore would read on: all below it was taken
// in. It follows the Part's own transactions as long as nothing else stands
// between them in the log but their marks; behind anything else, or an abort
// that Rollback was not told of, it stays, so that the next Restore looks at it.
func (p *Part) Next() int64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.next
}

// ordered returns rs by offset.
func ordered(rs []*kgo.Record) []*kgo.Record {
	byOffset := func(a, b *kgo.Record) int { return cmp.Compare(a.Offset, b.Offset) }
	if slices.IsSortedFunc(rs, byOffset) {
		return rs
	}
	return slices.SortedStableFunc(slices.Values(rs), byOffset)
}

// pass moves next over the records of one transaction, ended, and over the mark
// of the one before: that must stand between the two.
func (p *Part) pass(rs []*kgo.Record) {
	at := now()
	for i, r := range rs {
		mark := i == 0 && p.own && r.Offset == p.next+1
		if r.Offset != p.next && !mark {
			return
		}
		p.next, p.own, p.asOf = r.Offset+1, true, at
	}
}

// settle drops r from what is pending, and what was written to its key before.
func (p *Part) settle(r *kgo.Record) {
	ws := p.pending[string(r.Key)]
	i := slices.IndexFunc(ws, func(w write) bool { return w.r == r })
	if i < 0 {
		return
	}
	p.writes -= i + 1
	if i+1 == len(ws) {
		delete(p.pending, string(r.Key))
	} else {
		p.pending[string(r.Key)] = slices.Clone(ws[i+1:]) // a copy lets go of the others
	}
}

// take makes a committed record the last of its key.
func (p *Part) take(r *kgo.Record) {
	keep := p.index == nil || p.index.Take(r)
	if r.Value == nil || !keep {
		delete(p.committed, string(r.Key))
		return
	}
	key, whole := pack(r, r.Offset, r.Timestamp.UnixMilli())
	p.committed[key] = whole
}

// now is the wall clock's: the monotonic one stands still while a machine is
// suspended, and a broker's does not.
func now() time.Time { return time.Now().Round(0) }
