package lane

import "github.com/twmb/franz-go/pkg/kgo"

// Item is a record in the hands of a lane's Work.
type Item struct {
	Record  *kgo.Record // nil when the item has ended
	Offset  int64       // the record's, whatever became of its fields
	Refused error       // why Again was called; nil in the first run
	Value   any         // for Work's own use; nil when the item has ended

	lane   *Lane
	seq    uint64
	size   int
	staged int    // bytes of what it left to be committed
	due    int64  // in nanoseconds since 1970: until then it is delayed, or waits for more to begin with
	era    uint64 // of the lane, when it was last begun
	unit   *Unit
	own    Unit  // its unit where it is begun first of it
	next   *Item // in a queue

	hash    uint64
	line    *line
	before  *Item // of the same line, begun before and not finished
	after   *Item // of the same line, begun after this one
	pending bool  // finished, but for before
	inHand  bool  // it has begun
	spoiled bool  // one before it in its line is run again since it began
	atWork  bool  // its Work has not returned
	again   bool  // and it is to be called again then

	inCall  bool // of Arrive; guarded by unit.mu, as is
	parking *Parking
}

// Finish says that the record is done: its offset may be committed.
func (it *Item) Finish() {
	l := it.lane
	l.mu.Lock()
	heavy := l.heavy()
	if !l.cut {
		// A record of a key is done when all before it are: what is handled
		// once more after a crash is handled in order.
		if it.pending = it.before != nil; !it.pending {
			l.done(it)
		}
	}
	l.end()
	n := 0
	if refilled := l.refill(l.refillAt()); refilled || l.narrow || heavy {
		n = l.tender()
	}
	room := !l.cut && l.makeRoom()
	l.mu.Unlock()
	l.Pool.offer(l, n)
	l.Finished()
	if room {
		l.Room()
	}
}

// done counts a record, and those that were done but for it.
func (l *Lane) done(it *Item) {
	for it != nil {
		l.marks.Done(it.seq)
		l.held--
		l.bytes -= it.size
		it.unstage()
		it.Record, it.Value = nil, nil // its neighbours in memory may stay for long
		if ln := it.line; ln != nil && ln.last == it {
			ln.last = nil
			l.forget(it)
		}
		after := it.after
		it.after = nil // or it would keep all of its line that came later
		if after != nil {
			after.before = nil
			if !after.pending {
				return
			}
		}
		it = after
	}
}

// forget drops the line of an item when nothing is left of it.
func (l *Lane) forget(it *Item) {
	if ln := it.line; ln.holder == nil && ln.queue.head == nil && ln.last == nil {
		delete(l.lines, it.hash)
	}
}

// Again has Work called once more for the record, before any that waits for
// it; refused must not be nil. If Work has not returned yet, that comes first.
func (it *Item) Again(refused error) {
	l := it.lane
	l.mu.Lock()
	it.Refused = refused
	it.unstage()
	switch {
	case l.cut:
		l.end()
	case it.atWork:
		it.again = true
	default:
		l.rerun(it)
	}
	n := l.tender()
	l.mu.Unlock()
	l.Pool.offer(l, n)
}

// rerun lets a record begin again, and its line after it.
func (l *Lane) rerun(it *Item) {
	if l.Order == InTurn {
		for u := l.calls.after; u != &l.calls; u = u.after {
			for _, at := range u.items {
				at.spoiled = at.spoiled || at.seq > it.seq
			}
		}
	}
	if ln := it.line; ln != nil {
		if h := ln.holder; h != nil {
			h.spoiled = h.spoiled || h.atWork && h.seq > it.seq
			if h.atWork || h.seq < it.seq {
				ln.queue.insert(it)
				return
			}
			if !l.late.remove(h) {
				l.fresh.remove(h)
			}
			ln.queue.insert(h)
		}
		ln.holder = it
	}
	l.late.push(it)
}

// Drop says that the work was cut short: the record is neither done nor
// failed, and comes again.
func (it *Item) Drop() {
	l := it.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
}

// Fail says that the record could not be handled. Its offset stays
// uncommitted, and the lane begins no other.
func (it *Item) Fail() {
	l := it.lane
	l.mu.Lock()
	l.halt()
	l.end()
	n := l.tender()
	l.mu.Unlock()
	l.Pool.offer(l, n)
}

// end counts an item that is no longer in hand.
func (l *Lane) end() {
	l.begun--
	l.exit()
}
