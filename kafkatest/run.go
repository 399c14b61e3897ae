package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"
)

// Runner is what works until its context ends: a wherry.Consumer, a server, or
// a RunFunc.
type Runner interface {
	Run(ctx context.Context) error
}

// RunFunc makes a function a Runner.
type RunFunc func(ctx context.Context) error

// Run calls f.
func (f RunFunc) Run(ctx context.Context) error { return f(ctx) }

// How long a Runner may take to be ready and to end. Both are far over what a
// cold broker under the race detector was seen to need (a few seconds).
const (
	readyWait = time.Minute
	endWait   = time.Minute
)

// Run runs r in a goroutine of its own until t's test ends. Where r has a method
// Ready() <-chan struct{}, Run returns when that channel is closed, and ends the
// test if r ends before, or is not ready within a minute.
//
// If r ends by itself with an error, the test fails at once with that error,
// and a Next or Send that waits in the same test or a subtest of it stops
// waiting. An early end with nil is no failure.
//
// When the test ends r's context is cancelled and Run's cleanup waits for r, up
// to a minute; an error other than context.Canceled fails the test. The stop
// function does the same earlier and returns r's error as it is, which then is
// the caller's to judge; it may be called more than once and from any goroutine.
func Run(t testing.TB, r Runner) (stop func() error) {
	t.Helper()
	// Not t.Context(): that one ends before the first cleanup runs, and all
	// Runners of a test would stop at once, in no order.
	ctx, cancel := context.WithCancel(context.Background())
	var ready <-chan struct{}
	if w, ok := r.(interface{ Ready() <-chan struct{} }); ok {
		ready = w.Ready()
	}
	var (
		err   error // r's, once done is closed
		done  = make(chan struct{})
		name  = fmt.Sprintf("%T", r)
		early = runs.add(t.Name())
	)
	go func() {
		defer close(done)
		err = r.Run(ctx)
		if ctx.Err() == nil && err != nil {
			t.Errorf("kafkatest: %s ended with an error: %v", name, err)
			early.fail(fmt.Errorf("%s ended with an error: %w", name, err))
		}
	}()
	wait := func() error {
		cancel()
		select {
		case <-done:
			return err
		case <-time.After(endWait):
			return fmt.Errorf("%s did not return within %v after its context ended; all goroutines:\n%s", name, endWait, stacks())
		}
	}
	t.Cleanup(func() {
		defer early.remove()
		judged := ctx.Err() != nil // by the caller of stop, or by t.Errorf above
		select {
		case <-done:
			judged = true
		default:
		}
		if err := wait(); err != nil && !judged && !errors.Is(err, context.Canceled) {
			t.Errorf("kafkatest: %s, stopped: %v", name, err)
		}
	})
	if ready == nil {
		return wait
	}
	select {
	case <-ready:
	case <-done:
		t.Fatalf("kafkatest: %s ended before it was ready: %v", name, err)
	case <-time.After(readyWait):
		t.Fatalf("kafkatest: %s was not ready within %v", name, readyWait)
	}
	return wait
}

// stacks returns the stacks of all goroutines, up to 1 MiB.
func stacks() []byte {
	buf := make([]byte, 1<<20)
	return buf[:runtime.Stack(buf, true)]
}
