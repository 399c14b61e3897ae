package kafkatest

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Cluster.Timeout on the embedded broker, and on a real one, which is five to ten
// times slower in its first minute than afterwards.
const (
	embeddedTimeout = 10 * time.Second
	realTimeout     = 30 * time.Second
)

// Cluster is a Kafka for one test and its subtests. All methods may be called
// from several goroutines; those that take a testing.TB end the test when they
// fail, so call them from the test's own goroutine.
type Cluster struct {
	// Timeout is how long Next and NextRecord wait for a record, Send for its
	// acknowledgement, and Fault.Wait for a hit. NewCluster sets 10s for the
	// embedded broker and 30s for a real one, Test sets 2h of virtual time;
	// change it before the first use.
	Timeout time.Duration

	brokers  []string
	opts     []kgo.Opt      // how to reach the brokers: addresses, dialer, TLS, SASL
	embedded *kfake.Cluster // nil: a real one
	virtual  bool           // whether time is virtual
	untagged bool           // whether time would be virtual with -tags synctests
	watchdog *watchdog      // of a Test
	network  network        // what clients dial
	clients  clients        // the open ones, in virtual time
	admin    *kgo.Client    // our own client: produces for Send, asks for Create and reports
	begin    kadm.Offsets   // ends of the topics that were there before the test (a real broker only)

	mu      sync.Mutex
	readers map[string]*reader // by topic, made at first use
}

// NewCluster returns a Kafka with the named topics, for the length of t's test.
//
// It is an embedded broker (kfake: one node, in memory, on a loopback port)
// unless the environment variable KAFKATEST_BROKERS names a real one; see the
// package documentation for what a real broker must put up with. Topics have
// Partitions partitions; "audit:1" names topic audit with one. Topics that are
// not named do not appear by themselves: see Create.
//
// In a synctest bubble it fails: Test is for that.
//
// The cluster is closed when the test has ended, after all that was registered
// later with t.Cleanup: a Client or a Run of the same test ends before it.
func NewCluster(t testing.TB, topics ...string) *Cluster {
	t.Helper()
	if inBubble(t) {
		t.Fatalf("kafkatest: NewCluster inside a synctest bubble, where its sockets stop the clock: use kafkatest.Test")
	}
	k := &Cluster{Timeout: embeddedTimeout}
	if brokers := realBrokers(); len(brokers) > 0 {
		k.Timeout = realTimeout
		k.borrow(t, brokers, parseTopics(t, topics))
		return k
	}
	k.embed(t, parseTopics(t, topics), kfake.NumBrokers(1))
	return k
}

// embed starts the embedded broker with topics.
func (k *Cluster) embed(t testing.TB, topics []Topic, opts ...kfake.Opt) {
	t.Helper()
	configs := map[string]string{
		// kfake's cleaner removes what an open transaction may still
		// need, so it must not wake up inside a long test.
		"log.cleaner.backoff.ms": "315360000000",
	}
	if k.virtual {
		// 100 ms in test binaries, which is dear where only requests cost.
		configs["group.consumer.heartbeat.interval.ms"] = "5000"
	}
	fake, err := kfake.NewCluster(slices.Concat(opts, []kfake.Opt{
		kfake.GroupMinSessionTimeout(100 * time.Millisecond),
		kfake.BrokerConfigs(configs),
	})...)
	if err != nil {
		t.Fatalf("kafkatest: start the embedded broker: %v", err)
	}
	t.Cleanup(fake.Close)
	answerEpochs(fake)
	k.embedded = fake
	k.connect(t, fake.ListenAddrs())
	k.Create(t, topics...)
}

// connect sets how k is reached and opens its own client.
func (k *Cluster) connect(t testing.TB, brokers []string, opts ...kgo.Opt) {
	t.Helper()
	k.brokers = brokers
	k.opts = append([]kgo.Opt{
		kgo.SeedBrokers(brokers...),
		kgo.DisableClientMetrics(), // its loop makes every Close up to 1 s longer
		kgo.ProducerLinger(0),
		kgo.MetadataMinAge(10 * time.Millisecond),
		kgo.RetryBackoffFn(backoff),
		// A partition that is found while a fetch waits joins the next one, and
		// kgo lets fetches wait for 5 s.
		kgo.FetchMaxWait(250 * time.Millisecond),
	}, opts...)
	if k.virtual {
		k.opts = append(k.opts, k.virtualOpts()...)
	}
	if k.network.base == nil {
		k.network.base = plainDialer.DialContext
	}
	k.readers = map[string]*reader{}
	admin, err := kgo.NewClient(k.own()...)
	if err != nil {
		t.Fatalf("kafkatest: open a client: %v", err)
	}
	k.admin = admin
	t.Cleanup(k.close)
}

// plainDialer dials as kgo does by itself.
var plainDialer = &net.Dialer{Timeout: 10 * time.Second}

// backoff begins at 10 ms where kgo begins at 250: a real broker answers nearly
// every new client once with "try again". It ends at kgo's magnitude, so that
// the 20 tries which kgo makes outlast the loss of a node.
func backoff(tries int) time.Duration {
	return min(10*time.Millisecond<<min(max(tries-1, 0), 10), time.Second)
}

// close ends the readers and the client of k itself.
func (k *Cluster) close() {
	k.closeReaders()
	k.admin.Close()
}

func (k *Cluster) closeReaders() {
	k.mu.Lock()
	readers := k.readers
	k.readers = nil
	k.mu.Unlock()
	for _, r := range readers {
		r.client.Close()
	}
}

// Brokers returns the host:port addresses to begin with (kgo.SeedBrokers).
func (k *Cluster) Brokers() []string { return slices.Clone(k.brokers) }

// Embedded tells whether the broker is the embedded one: for tests of what only
// a real broker does, or of what it does not bear.
func (k *Cluster) Embedded() bool { return k.embedded != nil }

// Opts returns the options with which a kgo client reaches the cluster, and
// which suit a test: addresses, a dialer on which faults happen (and which knows
// TLS), SASL where there is any, no client metrics, no linger, quick metadata,
// retries and fetches. Options given after them win, but for kgo.DialTLSConfig,
// which kgo refuses beside a dialer. The slice is the caller's own.
//
// Clients that are opened with the options of one call are one process to Crash.
func (k *Cluster) Opts() []kgo.Opt {
	p := &process{net: &k.network}
	return append(slices.Clone(k.opts), kgo.Dialer(p.dial))
}

// own returns the options of our own clients, which faults do not hit.
func (k *Cluster) own() []kgo.Opt {
	return append(slices.Clone(k.opts), kgo.Dialer(k.network.straight), kgo.ClientID("kafkatest"))
}

// Client returns a client of the cluster made of Opts and then opts. It is
// closed, and leaves its group, when t's test ends.
func (k *Cluster) Client(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(k.Opts(), opts...)...)
	if err != nil {
		t.Fatalf("kafkatest: open a client: %v", err)
	}
	t.Cleanup(cl.CloseAllowingRebalance)
	return cl
}

// within returns the context of one call of t's test that may take d: it ends
// earlier, with the cause, when a Runner of that test ended with an error.
func (k *Cluster) within(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, unwatch := runs.watch(t.Name())
	ctx, cancel := context.WithTimeoutCause(ctx, d, errTimeout)
	return ctx, func() { cancel(); unwatch() }
}
