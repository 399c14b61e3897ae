package kafkatest

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// virtualTimeout is Cluster.Timeout in virtual time: what a test waits for
	// may be an hour's retry and what follows it.
	virtualTimeout = 2 * time.Hour
	// longestReal is the longest wait that is granted in real time to a test
	// that was written for virtual time.
	longestReal = 100 * time.Millisecond
	// settleTime is how long, in virtual time, a bubble goes on after all of it
	// was closed, so that what still waits for a timer can end.
	settleTime = time.Minute
)

// flagHint is what a test needs to hear that waits for virtual time and has none.
const flagHint = "the test was built without -tags synctests, so its time is real and long waits are refused: run go test -tags synctests"

// Test runs f in virtual time, with a Kafka of its own that has the named topics
// (written as for NewCluster). The clock stands still while anything is at work
// and jumps ahead when all of it waits: an hour's retry passes in milliseconds,
// and the times that f reads are exact.
//
// It is testing/synctest.Test with an embedded broker and a network in memory
// inside the bubble, whatever KAFKATEST_BROKERS says. The rules of a bubble hold:
// f must not call t.Run, t.Parallel (call it before Test) or t.Deadline; channels,
// clients and goroutines that f uses are made in f; what f starts ends with f. The
// broker, clients of Client, and what Run runs see to that themselves: they end,
// the last first, in t's cleanups, which are inside the bubble. A client that was
// opened with options from Opts and was left open is closed after them.
//
// It needs go test -tags synctests: by that tag kgo chooses locks that do not stop
// virtual time. Without the tag f runs in real time, and a wait that would be long
// is refused, with the flag in the message: a Sleep or a None of more than 100 ms
// at once, a Next or a Fault's Wait after at most 10 s.
//
// It does not hang. Where nothing in the bubble can ever go on, or goroutines are
// left over at its end, the test fails with their stacks, and other tests go on.
// A test that takes more than 30 s of real time is taken for stuck: the process
// ends with the stacks of all goroutines, as at go test's own -timeout. See
// Cluster.WallLimit; with -timeout 0, as debuggers set it, there is no such limit.
func Test(t *testing.T, topics []string, f func(t *testing.T, k *Cluster)) {
	t.Helper()
	if inBubble(t) {
		t.Fatalf("kafkatest: Test inside a synctest bubble: Test makes its own, call it outside")
	}
	w := watch(t)
	defer w.stop()
	if !tagged {
		k := &Cluster{Timeout: embeddedTimeout, untagged: true, watchdog: w}
		k.embed(t, parseTopics(t, topics), kfake.NumBrokers(1))
		f(t, k)
		return
	}
	b := &bubble{}
	defer b.explain(t)
	defer runs.enter(t.Name())()
	synctest.Test(t, func(t *testing.T) {
		b.id = bubbleID()
		// What is registered first runs last: by then all is closed.
		t.Cleanup(func() { time.Sleep(settleTime) })
		k := &Cluster{Timeout: virtualTimeout, virtual: true, watchdog: w}
		network := &kfake.VirtualNetwork{}
		k.network.base = network.DialContext
		w.clock.Store(&k.network)
		k.embed(
			t, parseTopics(t, topics),
			kfake.Ports(firstPort), // the virtual network does not allot ports
			kfake.ListenFn(network.Listen),
		)
		t.Cleanup(k.closeForgotten)
		f(t, k)
	})
}

// firstPort is the port of an embedded broker's first node in virtual time.
const firstPort = 9092

// virtualOpts are the options of clients in virtual time, where a request costs
// about 20 µs and a wait nothing. Fetches wait for as long as kgo lets them by
// default. The interval of heartbeats must be below every session time-out that a
// user sets, and real brokers allow 6 s. Metadata is asked for less often than in
// real time, for as often it is asked for where a topic is missing.
func (k *Cluster) virtualOpts() []kgo.Opt {
	return []kgo.Opt{
		kgo.FetchMaxWait(5 * time.Second),
		kgo.HeartbeatInterval(5 * time.Second),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.WithHooks(&k.clients),
	}
}

// Virtual tells whether the time of the test is virtual: true in a Test that was
// built with -tags synctests. A test that makes no sense in real time, even with
// a message, may skip itself without it.
func (k *Cluster) Virtual() bool { return k.virtual }

// Sleep lets d pass, and then waits until everything in the test is at rest: what
// was due within d, and took no time, is done when it returns. It is time.Sleep
// and synctest.Wait, so call it from the test's own goroutine.
//
// In real time it sleeps for up to 100 ms and ends the test at a longer d.
func (k *Cluster) Sleep(t testing.TB, d time.Duration) {
	t.Helper()
	k.refuseLong(t, "Sleep", d)
	time.Sleep(d)
	if k.virtual {
		synctest.Wait()
	}
}

// refuseLong ends a test that asks for more real time than it should.
func (k *Cluster) refuseLong(t testing.TB, what string, d time.Duration) {
	t.Helper()
	switch {
	case k.virtual || d <= longestReal:
	case k.untagged:
		t.Fatalf("kafkatest: %s of %v: %s", what, d, flagHint)
	case what == "Sleep":
		t.Fatalf("kafkatest: %s of %v in real time: use kafkatest.Test, where time is virtual", what, d)
	}
}

// longest is k.Timeout, less where it was set for virtual time and there is none.
func (k *Cluster) longest() time.Duration {
	if k.untagged {
		return min(k.Timeout, embeddedTimeout)
	}
	return k.Timeout
}

// hint is what the message of a wait in vain ends with.
func (k *Cluster) hint() string {
	if k.untagged {
		return "\n\t" + flagHint
	}
	return ""
}
