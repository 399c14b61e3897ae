package kafkatest

import (
	"context"
	"sync"
)

// runs is where a Next that waits hears of a Runner that failed. The two meet
// by the name of their test, because Run takes no Cluster and a test may fail
// only from its own goroutine.
var runs board

// board is a set of Runners and of those who wait, each under a test's name.
type board struct {
	mu      sync.Mutex
	runs    map[*run]struct{}
	waiters map[*waiter]struct{}
	bubbles map[string]struct{} // names of tests that are in virtual time now
}

// run is one Runner of the named test; err is set when it failed.
type run struct {
	board  *board
	test   string
	bubble string
	err    error
}

// waiter is one call that waits in the named test.
type waiter struct {
	test   string
	bubble string
	cancel context.CancelCauseFunc
}

// hears tells whether a Runner's failure ends a wait. Who is in a bubble must not
// be woken from outside it: the runtime ends the process at that.
func (w *waiter) hears(r *run) bool { return below(w.test, r.test) && w.bubble == r.bubble }

// enter notes that the named test is in a bubble, until leave.
func (b *board) enter(test string) (leave func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bubbles == nil {
		b.bubbles = map[string]struct{}{}
	}
	b.bubbles[test] = struct{}{}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.bubbles, test)
	}
}

// bubble returns the test in whose bubble the named one is, or "".
func (b *board) bubble(test string) string {
	for name := range b.bubbles {
		if below(test, name) {
			return name
		}
	}
	return ""
}

// add enters a Runner of the named test; remove takes it away.
func (b *board) add(test string) *run {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := &run{board: b, test: test, bubble: b.bubble(test)}
	if b.runs == nil {
		b.runs = map[*run]struct{}{}
	}
	b.runs[r] = struct{}{}
	return r
}

// remove forgets the Runner: its test has ended, and its name may come again.
func (r *run) remove() {
	r.board.mu.Lock()
	defer r.board.mu.Unlock()
	delete(r.board.runs, r)
}

// fail ends the waits of r's test and of its subtests, now and later.
func (r *run) fail(err error) {
	r.board.mu.Lock()
	defer r.board.mu.Unlock()
	r.err = err
	for w := range r.board.waiters {
		if w.hears(r) {
			w.cancel(err)
		}
	}
}

// watch returns a context that ends, with the error as its cause, when a Runner
// of the named test or of one above it fails or has failed.
func (b *board) watch(test string) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	b.mu.Lock()
	defer b.mu.Unlock()
	w := &waiter{test: test, bubble: b.bubble(test), cancel: cancel}
	if b.waiters == nil {
		b.waiters = map[*waiter]struct{}{}
	}
	b.waiters[w] = struct{}{}
	for r := range b.runs {
		if r.err != nil && w.hears(r) {
			cancel(r.err)
		}
	}
	return ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.waiters, w)
		cancel(nil)
	}
}
