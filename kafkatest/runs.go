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
}

// run is one Runner of the named test; err is set when it failed.
type run struct {
	board *board
	test  string
	err   error
}

// waiter is one call that waits in the named test.
type waiter struct {
	test   string
	cancel context.CancelCauseFunc
}

// add enters a Runner of the named test; remove takes it away.
func (b *board) add(test string) *run {
	r := &run{board: b, test: test}
	b.mu.Lock()
	defer b.mu.Unlock()
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
		if below(w.test, r.test) {
			w.cancel(err)
		}
	}
}

// watch returns a context that ends, with the error as its cause, when a Runner
// of the named test or of one above it fails or has failed.
func (b *board) watch(test string) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	w := &waiter{test: test, cancel: cancel}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiters == nil {
		b.waiters = map[*waiter]struct{}{}
	}
	b.waiters[w] = struct{}{}
	for r := range b.runs {
		if r.err != nil && below(test, r.test) {
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
