package lane

import "github.com/twmb/franz-go/pkg/kgo"

// Item is a record in the hands of a lane's Work.
type Item struct {
	Record  *kgo.Record
	Offset  int64 // the record's, whatever became of its fields
	Refused error // why Again was called; nil in the first run
	Value   any   // for Work's own use

	lane *Lane
	seq  uint64
	size int
	due  int64 // in nanoseconds since 1970, where it is delayed
	unit *Unit
	own  Unit  // its unit where it is begun alone
	next *Item // in a queue

	hash    uint64
	line    *line
	before  *Item // of the same line, begun before and not finished
	after   *Item // of the same line, begun after this one
	pending bool  // finished, but for before
}

// Unit is what the item was begun together with.
func (it *Item) Unit() *Unit { return it.unit }

// Finish says that the record is done: its offset may be committed.
func (it *Item) Finish() {
	l := it.lane
	l.mu.Lock()
	if !l.cut {
		// A record of a key is done when all before it are: what is handled
		// once more after a crash is handled in order.
		if it.pending = it.before != nil; !it.pending {
			l.done(it)
		}
	}
	l.end()
	n := 0
	if refilled := l.refill(l.refillAt()); refilled || l.narrow {
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
	for ; it != nil; it = it.after {
		l.marks.Done(it.seq)
		l.held--
		l.bytes -= it.size
		it.Record, it.Value = nil, nil // its neighbours may stay for long
		if ln := it.line; ln != nil && ln.last == it {
			ln.last = nil
			l.forget(it)
		}
		if it.after != nil {
			it.after.before = nil
			if !it.after.pending {
				return
			}
		}
	}
}

// forget drops the line of an item when nothing is left of it.
func (l *Lane) forget(it *Item) {
	if ln := it.line; !ln.busy && ln.queue.head == nil && ln.last == nil {
		delete(l.lines, it.hash)
	}
}

// Again has Work called once more for the record, before any that waits for
// it.
func (it *Item) Again(refused error) {
	l := it.lane
	l.mu.Lock()
	it.Refused = refused
	switch {
	case l.cut:
	case it.line != nil && it.line.busy:
		it.line.queue.pushFront(it)
	default:
		if it.line != nil {
			it.line.busy = true
		}
		l.late.push(it)
	}
	n := l.tender()
	l.mu.Unlock()
	l.Pool.offer(l, n)
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
	defer l.mu.Unlock()
	l.halt()
	l.end()
}

// end counts an item that is no longer in hand.
func (l *Lane) end() {
	l.begun--
	if l.begun == 0 && l.draining {
		close(l.idle)
		l.exit()
	}
}
