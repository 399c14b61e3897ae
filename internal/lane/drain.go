package lane

import "time"

// Drain drops what has not begun, ends the waits of what has, and returns a
// channel that is closed when what is in hand has ended. What is to be run
// again still is.
func (l *Lane) Drain() <-chan struct{} {
	l.mu.Lock()
	l.halt()
	n := l.tender()
	l.mu.Unlock()
	l.Pool.offer(l, n)
	return l.idle
}

// Cut ends the contexts of what is in hand, with cause. Nothing begins any
// more, also not again, and nothing that ends afterwards counts.
func (l *Lane) Cut(cause error) {
	l.mu.Lock()
	l.cut = true
	l.halt()
	l.begun -= len(l.again())
	l.exit()
	l.mu.Unlock()
	l.cancel(cause)
}

// WasCut reports whether Cut was called.
func (l *Lane) WasCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

// Exited is closed when the last call of Work has returned.
func (l *Lane) Exited() <-chan struct{} { return l.exited }

// Forget says that the log has lost records: offsets that had finished before
// this assignment may stand for others now.
func (l *Lane) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.skip = nil
}

// halt drops what has not begun, but what is to be run again.
func (l *Lane) halt() {
	if l.draining {
		return
	}
	l.draining = true
	close(l.drained)
	for _, t := range []*time.Timer{l.alarm, l.linger} {
		if t != nil {
			t.Stop()
		}
	}
	l.backlog, l.delayed, l.fresh = nil, queue{}, queue{}
	for _, it := range l.again() {
		l.rerun(it)
	}
	l.exit()
}

// again takes out what may begin and what waits to, and returns what of it is
// to be run again.
func (l *Lane) again() (again []*Item) {
	keep := func(it *Item) {
		switch {
		case it.Refused != nil:
			again = append(again, it)
		case it.inHand: // what it did was undone
			l.begun--
		}
	}
	for _, ln := range l.lines {
		if ln.holder != nil && !ln.holder.atWork {
			ln.holder = nil
		}
		for it := ln.queue.pop(); it != nil; it = ln.queue.pop() {
			keep(it)
		}
	}
	for _, it := range l.late {
		keep(it)
	}
	l.late = nil
	return again
}

// working reports whether a call of Work has not returned.
func (l *Lane) working() bool { return l.calls.after != &l.calls }

// exit notes when nothing is in hand any more, and when the last call of Work
// has returned for good.
func (l *Lane) exit() {
	if !l.isIdle && l.draining && l.begun == 0 {
		l.isIdle = true
		close(l.idle)
	}
	if !l.over && !l.working() && (l.cut || l.isIdle) {
		l.over = true
		close(l.exited)
	}
}
