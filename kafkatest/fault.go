package kafkatest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Requests says which requests a fault hits. All that is set must match; the zero
// value is the next request of any kind.
//
// Requests of clients that were opened with Opts, or with the options of such a
// client, are seen; those of kafkatest itself (Send, Next, Create, …) are not, nor
// those of clients that have a kgo.Dialer of their own.
type Requests struct {
	Keys   []kmsg.Key // kinds, such as kmsg.Produce or kmsg.EndTxn; nil means all but those that begin a connection
	Topic  string     // those that name this topic; a fetch names only topics that are new to its session
	Group  string     // those that name this consumer group
	Txn    string     // those that name this transactional id
	Client string     // those of clients with this id (kgo.ClientID)

	Skip  int // how many to let pass first: 2 means that the third is hit
	Count int // how many to hit; 0 means 1, below 0 all until Remove
}

// effect is what a fault does.
type effect int

const (
	hold effect = iota
	drop
	refuse
	crash
	leave // a node goes away
)

// Fault is something that goes wrong, from when it was made until it has hit as
// often as it should, until Remove, or until the end of the test that made it: at
// its place among the cleanups, so that what was started before ends without it.
// Where several match a request the oldest that is not spent hits; for a request
// that another one hits, Skip does not count. All methods may be called from any
// goroutine.
type Fault struct {
	k      *Cluster
	which  Requests
	effect effect
	after  bool // when the broker has answered
	delay  time.Duration
	err    *kerr.Error
	node   string // the address of one that went away

	// Guarded by net.mu.
	left    int // how many hits there still can be; below 0: no limit
	skip    int
	hits    int
	removed bool
	changed chan struct{} // closed and made anew at each hit
}

// Drop breaks the connection in place of a request: the broker does not get it. A
// client does not know that, and asks again.
func (k *Cluster) Drop(t testing.TB, r Requests) *Fault {
	t.Helper()
	return k.fault(t, &Fault{which: r, effect: drop})
}

// DropAfter breaks the connection in place of the answer to a request: the broker
// has done what it was asked to, and the client does not know.
func (k *Cluster) DropAfter(t testing.TB, r Requests) *Fault {
	t.Helper()
	return k.fault(t, &Fault{which: r, effect: drop, after: true})
}

// Delay holds a request back for d, and what the client sends after it on the same
// connection. A broker that does not answer at all is a long delay: the client
// gives up when its own time is over. With 0 requests are only counted.
func (k *Cluster) Delay(t testing.TB, r Requests, d time.Duration) *Fault {
	t.Helper()
	return k.fault(t, &Fault{which: r, effect: hold, delay: d})
}

// Refuse answers a request with an error in the broker's place, which does not get
// it. The error stands for all that the request is about: each of its partitions,
// or the whole where the kind of request, or of error, has one answer for all.
//
// Requests.Keys must name the kinds: produce, fetch, offsets and positions,
// groups, transactions, making and deleting topics.
func (k *Cluster) Refuse(t testing.TB, r Requests, err *kerr.Error) *Fault {
	t.Helper()
	if err == nil {
		t.Fatalf("kafkatest: Refuse without an error: name one of package kerr")
	}
	if len(r.Keys) == 0 {
		t.Fatalf("kafkatest: Refuse without Requests.Keys: name the kinds of request")
	}
	for _, key := range r.Keys {
		if !refusable(key) {
			t.Fatalf("kafkatest: Refuse cannot answer requests of kind %s", key.Name())
		}
	}
	return k.fault(t, &Fault{which: r, effect: refuse, err: err})
}

// Crash ends the process of the client that makes a request, as seen from the
// brokers, before the request leaves: its connections break and it makes no new
// one, to the end of the test. The code of the client goes on and learns no more
// than that; end it as the test would end it otherwise (the stop function of Run).
//
// A process is the clients that were opened with the options of one call of Opts
// (Client calls it), and those that were opened with their options in turn. Its
// successor is made by another call.
func (k *Cluster) Crash(t testing.TB, r Requests) *Fault {
	t.Helper()
	return k.fault(t, &Fault{which: r, effect: crash})
}

// CrashAfter is Crash when the broker has done what the request asked for and the
// answer has not arrived.
func (k *Cluster) CrashAfter(t testing.TB, r Requests) *Fault {
	t.Helper()
	return k.fault(t, &Fault{which: r, effect: crash, after: true})
}

// fault enters a fault.
func (k *Cluster) fault(t testing.TB, f *Fault) *Fault {
	t.Helper()
	f.k = k
	f.which.Keys = slices.Clone(f.which.Keys)
	f.changed = make(chan struct{})
	f.skip = f.which.Skip
	if f.left = f.which.Count; f.left == 0 {
		f.left = 1
	}
	f.k.network.mu.Lock()
	f.k.network.faults = append(f.k.network.faults, f)
	f.k.network.mu.Unlock()
	t.Cleanup(f.Remove)
	return f
}

// Hits returns how many requests the fault has hit. A hit counts when it has its
// effect: the connection is broken, the process gone, the delay begun.
func (f *Fault) Hits() int {
	f.k.network.mu.Lock()
	defer f.k.network.mu.Unlock()
	return f.hits
}

// Remove ends the fault; what it did stays done. A node that was gone is back.
func (f *Fault) Remove() {
	f.k.network.mu.Lock()
	defer f.k.network.mu.Unlock()
	f.removed = true
	f.k.network.faults = slices.DeleteFunc(f.k.network.faults, func(o *Fault) bool { return o == f })
}

// Wait returns when the fault has hit n requests in all. It ends the test when
// that takes longer than the cluster's Timeout, and when a Runner of the test ends
// with an error meanwhile.
func (f *Fault) Wait(t testing.TB, n int) {
	t.Helper()
	limit := f.k.longest()
	ctx, cancel := f.k.within(t, limit)
	defer cancel()
	for {
		f.k.network.mu.Lock()
		hits, changed := f.hits, f.changed
		f.k.network.mu.Unlock()
		if hits >= n {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("kafkatest: the fault for %v has hit %d of %d within %v%s%s", f.which, hits, n, limit, cause(ctx), f.k.hint())
		}
	}
}

// String says which requests are meant.
func (r Requests) String() string {
	var b strings.Builder
	b.WriteString("requests")
	for i, key := range r.Keys {
		fmt.Fprintf(&b, "%s %s", []string{" of kind", " or"}[min(i, 1)], key.Name())
	}
	for _, part := range [][2]string{{"topic", r.Topic}, {"group", r.Group}, {"transactional id", r.Txn}, {"client", r.Client}} {
		if part[1] != "" {
			fmt.Fprintf(&b, ", %s %q", part[0], part[1])
		}
	}
	return b.String()
}

// fault returns the fault that hits a request, or nil.
func (n *network) fault(r *request) *Fault {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range n.faults {
		if f.effect == leave || f.left == 0 || f.after && r.silent() || !f.which.match(r, n.topics) {
			continue
		}
		if f.skip > 0 {
			f.skip--
			continue
		}
		if f.left > 0 {
			f.left--
		}
		return f
	}
	return nil
}

// handshake are the kinds of request that begin a connection.
var handshake = []kmsg.Key{kmsg.ApiVersions, kmsg.SASLHandshake, kmsg.SASLAuthenticate}

// match tells whether a request is one of those meant.
func (r Requests) match(q *request, topics map[[16]byte]string) bool {
	keys := slices.Contains(r.Keys, q.key)
	if len(r.Keys) == 0 {
		keys = !slices.Contains(handshake, q.key)
	}
	return keys &&
		(r.Client == "" || r.Client == q.client) &&
		(r.Topic == "" || q.names(r.Topic, topics, "Topic", "TopicID", "TopicNames", "SubscribedTopicNames")) &&
		(r.Group == "" || q.names(r.Group, nil, "Group", "Groups", "CoordinatorKey", "CoordinatorKeys")) &&
		(r.Txn == "" || q.names(r.Txn, nil, "TransactionalID", "TransactionalIDs", "TransactionID", "CoordinatorKey", "CoordinatorKeys"))
}

// hit counts a hit. Its caller holds net.mu.
func (f *Fault) hit() {
	f.hits++
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *Fault) hitNow() {
	f.k.network.mu.Lock()
	defer f.k.network.mu.Unlock()
	f.hit()
}

// giveBack takes back a hit that did not happen: the connection ended before.
func (f *Fault) giveBack() {
	f.k.network.mu.Lock()
	defer f.k.network.mu.Unlock()
	if f.left >= 0 {
		f.left++
	}
}
