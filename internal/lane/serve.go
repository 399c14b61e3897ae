package lane

import "time"

// tender returns how many more units may begin than the pool knows of. What
// changes what may begin calls it, and offers that many after unlocking.
func (l *Lane) tender() (more int) {
	more = l.units() - l.issued
	if more <= 0 {
		return 0
	}
	l.issued += more
	return more
}

// units is how many units may begin now.
func (l *Lane) units() int {
	n := l.fresh.len + len(l.late)
	switch {
	case n == 0, l.Order == InTurn && l.working():
		return 0
	case l.narrow:
		if l.peek().seq != l.marks.Lowest() {
			return 0
		}
		return 1
	case l.Order == InTurn && (n >= l.Size || l.Linger == 0 || l.lingered || len(l.late) > 0):
		return 1
	case l.Order == InTurn:
		l.await()
		return 0
	case l.Linger == 0 || l.lingered || len(l.late) > 0:
		return (n + l.Size - 1) / l.Size
	}
	if n%l.Size != 0 {
		l.await()
	}
	return n / l.Size
}

// await lets a unit that is not full begin after Linger.
func (l *Lane) await() {
	if l.linger == nil {
		l.linger = time.AfterFunc(l.Linger, func() {
			l.mu.Lock()
			l.lingered, l.linger = true, nil
			n := l.tender()
			l.mu.Unlock()
			l.Pool.offer(l, n)
		})
	}
}

// peek returns the oldest record that may begin.
func (l *Lane) peek() *Item {
	if len(l.late) > 0 && (l.fresh.head == nil || l.late[0].seq < l.fresh.head.seq) {
		return l.late[0]
	}
	return l.fresh.head
}

// take begins a unit; nil when there is none any more.
func (l *Lane) take() *Unit {
	if l.Until.Err() != nil {
		l.halt()
	}
	if l.cut || l.units() == 0 {
		return nil
	}
	size := l.Size
	if l.narrow {
		size = 1
	}
	first := l.peek()
	u := &first.own
	*u = Unit{lane: l, held: true}
	u.items = u.one[:0]
	for len(u.items) < size {
		it := l.peek()
		if it == nil {
			break
		}
		if it == l.fresh.head {
			l.fresh.pop()
		} else {
			l.late.pop()
		}
		u.add(it)
	}
	l.lingered = false
	u.before, u.after = &l.calls, l.calls.after
	u.before.after, u.after.before = u, u
	return u
}

// serve works on one unit after the other that the lane has, and reports
// whether it still has its slot.
func (l *Lane) serve() bool {
	l.mu.Lock()
	l.issued--
	u := l.take()
	l.mu.Unlock()
	for u != nil {
		u.run()
		held := u.held
		// A lane goes on with its own work while no other waits for a slot.
		more := held && !l.Pool.wanted()
		l.mu.Lock()
		u.before.after, u.after.before = u.after, u.before
		for _, it := range u.items {
			l.open(it)
		}
		u = nil
		if more {
			u = l.take()
		}
		l.exit()
		n := l.tender()
		l.mu.Unlock()
		l.Pool.offer(l, n)
		if !held {
			return false
		}
	}
	return true
}

// open lets the record begin that waits for it.
func (l *Lane) open(it *Item) {
	ln := it.line
	if ln == nil {
		return
	}
	if next := ln.queue.pop(); next != nil {
		l.late.push(next)
		return
	}
	ln.busy = false
	l.forget(it)
}
