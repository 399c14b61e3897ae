package kafkatest

import (
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"
)

// wallLimit is how much real time a Test may take, unless WallLimit says
// otherwise.
const wallLimit = 30 * time.Second

// watchdog ends the process when a Test takes too long in real time. It lives
// outside the bubble: inside, its timer would be virtual.
type watchdog struct {
	test  string
	limit chan time.Duration // what WallLimit says
	end   chan struct{}      // closed when the test has ended
	clock atomic.Pointer[network]
}

// watch starts the watchdog of a test. It must be stopped.
func watch(t *testing.T) *watchdog {
	w := &watchdog{test: t.Name(), limit: make(chan time.Duration), end: make(chan struct{})}
	limit := wallLimit
	if _, ok := t.Deadline(); !ok {
		limit = 0
	}
	go w.run(time.Now(), limit)
	return w
}

func (w *watchdog) stop() { close(w.end) }

func (w *watchdog) run(begin time.Time, limit time.Duration) {
	for {
		var over <-chan time.Time
		if limit > 0 {
			timer := time.NewTimer(time.Until(begin.Add(limit)))
			defer timer.Stop()
			over = timer.C
		}
		select {
		case <-w.end:
			return
		case limit = <-w.limit:
		case <-over:
			// Nothing gentler is left: the test's goroutine may be blocked for
			// ever, and only it can fail the test. The testing package ends a
			// test that is too long in the same way.
			debug.SetTraceback("all")
			panic(w.report(limit))
		}
	}
}

// report says what is known of a test that seems stuck.
func (w *watchdog) report(limit time.Duration) string {
	head := fmt.Sprintf("kafkatest: %s has not ended within %v of real time", w.test, limit)
	if !tagged {
		return head + ": " + flagHint
	}
	passed := "no request was made yet"
	if n := w.clock.Load(); n != nil {
		if at := n.clock.Load(); at != 0 {
			passed = fmt.Sprintf("virtual time when the last request was made: %v", time.Unix(0, at).UTC().Sub(bubbleBegin))
		}
	}
	return head + " (" + passed + ").\n" +
		"If that time stands at what the test should have reached, something stops the clock: a goroutine that computes without end,\n" +
		"waits for a sync.Mutex whose holder waits, reads a socket or a file, or uses a channel from outside the test's function.\n" +
		"If it is far ahead, the test waits for what never comes while heartbeats and fetches keep the clock running.\n" +
		"If the test is right and only long, allow it more with Cluster.WallLimit.\n" +
		"The stacks of all goroutines follow; those of the test say \"synctest bubble\", those that stop its clock lack \"durable\"."
}

// bubbleBegin is when time begins in every bubble, by testing/synctest's documentation.
var bubbleBegin = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// WallLimit sets how much real time the whole Test may take before the process is
// ended as stuck, in place of 30 s; 0 means no limit. It is for a simulation that
// is long in earnest: a day of one idle consumer takes about a second. Outside
// Test it does nothing.
func (k *Cluster) WallLimit(d time.Duration) {
	if k.watchdog == nil {
		return
	}
	select {
	case k.watchdog.limit <- d:
	case <-k.watchdog.end:
	}
}
