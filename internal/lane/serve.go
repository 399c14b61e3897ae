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
	case n == 0, l.holds > 0, l.Order == InTurn && l.working():
		return 0
	case l.narrow && !l.draining:
		if l.peek().seq > max(l.marks.Lowest(), l.reach) {
			return 0
		}
		return 1
	case l.heavy() && !l.draining:
		return 0
	}
	full := n / l.Size
	if n%l.Size > 0 && (l.Order != InTurn || full == 0) && l.lingered() {
		full++
	}
	if l.Order == InTurn {
		return min(full, 1)
	}
	return full
}

// lingered reports whether a unit may begin that is not full, and sees to it
// that it may in time.
func (l *Lane) lingered() bool {
	it := l.peek()
	if l.Linger == 0 || l.draining || it.inHand {
		return true
	}
	in := time.Until(time.Unix(0, it.due))
	switch {
	case in <= 0:
		return true
	case l.linger == nil:
		l.linger = time.AfterFunc(in, l.lingerEnds)
	case it.due < l.lingers:
		l.linger.Reset(in)
	default:
		return false
	}
	l.lingers = it.due
	return false
}

func (l *Lane) lingerEnds() {
	l.mu.Lock()
	l.linger = nil
	n := l.tender()
	l.mu.Unlock()
	l.Pool.offer(l, n)
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
	if !l.draining && l.Until.Err() != nil {
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
	if first.inHand { // a goroutine that its handler left behind may know that one
		u = new(Unit)
	}
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
	u.live = len(u.items)
	u.before, u.after = &l.calls, l.calls.after
	u.before.after, u.after.before = u, u
	return u
}

// serve works on one unit after the other that the lane has, and reports
// whether it still has its slot.
func (l *Lane) serve() (held bool) {
	l.mu.Lock()
	l.issued--
	u := l.take()
	l.mu.Unlock()
	held = true
	for u != nil {
		u, held = l.call(u)
	}
	return held
}

// call runs a unit and returns the next one, and whether the slot is still
// there for it.
func (l *Lane) call(u *Unit) (next *Unit, held bool) {
	returned := false
	defer func() {
		if returned {
			return
		}
		// Work has ended this goroutine with runtime.Goexit: another one takes
		// its slot.
		if _, held := l.close(u, false); held {
			go l.Pool.work()
		}
	}()
	u.run()
	returned = true
	return l.close(u, true)
}

// close ends a unit whose Work has returned. With more it returns the next one
// of the lane, if no other lane waits for the slot.
func (l *Lane) close(u *Unit, more bool) (next *Unit, held bool) {
	held = u.end()
	more = more && held && !l.Pool.wanted()
	l.mu.Lock()
	u.before.after, u.after.before = u.after, u.before
	for _, it := range u.items {
		l.open(it)
	}
	if more {
		next = l.take()
	}
	l.exit()
	n := l.tender()
	l.mu.Unlock()
	l.Pool.offer(l, n)
	return next, held
}

// open lets the record begin that waits for this one, or this one again.
func (l *Lane) open(it *Item) {
	it.atWork = false
	ln := it.line
	switch {
	case it.again && (l.cut || l.draining && it.Refused == nil):
		l.end()
	case it.again && ln == nil:
		l.late.push(it)
	case it.again:
		ln.queue.insert(it)
	}
	it.again = false
	if ln == nil {
		return
	}
	if ln.holder = ln.queue.pop(); ln.holder != nil {
		l.late.push(ln.holder)
		return
	}
	l.forget(it)
}
