package reqreply

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// until is a context that ends at a time, as one of context.WithDeadline does.
// It takes a timer and a place among its parent's children only once somebody
// waits for its end, which most calls and handlers are too short for.
type until struct {
	context.Context //nolint:containedctx // its parent

	at   time.Time // no later than the parent's deadline; zero: it ends with its parent
	over atomic.Bool

	mu   sync.Mutex // never held over a call that blocks
	full atomic.Pointer[limited]
}

// limited is a context that has all that.
type limited struct {
	context.Context //nolint:containedctx // it is one
	cancel          context.CancelFunc
}

// set makes u a context under parent that ends at a time.
func (u *until) set(parent context.Context, at time.Time) {
	u.Context = parent
	if end, ok := parent.Deadline(); !ok || at.Before(end) {
		u.at = at
	}
}

// end is what a context.CancelFunc is.
func (u *until) end() {
	u.over.Store(true)
	u.mu.Lock()
	defer u.mu.Unlock()
	if full := u.full.Load(); full != nil {
		full.cancel()
	}
}

// fill returns the context that u stands for.
func (u *until) fill() *limited {
	if full := u.full.Load(); full != nil {
		return full
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if full := u.full.Load(); full != nil {
		return full
	}
	full := &limited{}
	if u.at.IsZero() {
		full.Context, full.cancel = context.WithCancel(u.Context)
	} else {
		full.Context, full.cancel = context.WithDeadline(u.Context, u.at)
	}
	if u.over.Load() {
		full.cancel()
	}
	u.full.Store(full)
	return full
}

func (u *until) Deadline() (time.Time, bool) {
	if u.at.IsZero() {
		return u.Context.Deadline()
	}
	return u.at, true
}

func (u *until) Done() <-chan struct{} { return u.fill().Done() }

func (u *until) Err() error {
	if u.full.Load() == nil && !u.over.Load() && (u.at.IsZero() || time.Now().Before(u.at)) {
		return u.Context.Err()
	}
	return u.fill().Err()
}

func (u *until) Value(key any) any {
	if full := u.full.Load(); full != nil {
		return full.Value(key) // context.Cause finds its own there
	}
	return u.Context.Value(key)
}
