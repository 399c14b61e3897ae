package kafkatest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// realTimeout is Cluster.Timeout on a real broker, which is five to ten times
// slower in its first minute than afterwards.
const realTimeout = 30 * time.Second

// Cluster is a Kafka for one test and its subtests. All methods may be called
// from several goroutines; those that take a testing.TB end the test when they
// fail, so call them from the test's own goroutine.
type Cluster struct {
	// Timeout is how long Next and NextRecord wait for a record, and Send for
	// its acknowledgement. NewCluster sets 10s for the embedded broker and
	// 30s for a real one; change it before the first use.
	Timeout time.Duration

	brokers  []string
	opts     []kgo.Opt    // how to reach the brokers: addresses, dialer, TLS, SASL
	embedded bool         // whether the broker is in this process
	admin    *kgo.Client  // our own client: produces for Send, asks for Create and reports
	begin    kadm.Offsets // ends of the topics that were there before the test (a real broker only)

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
// The cluster is closed when the test has ended, after all that was registered
// later with t.Cleanup: a Client or a Run of the same test ends before it.
func NewCluster(t testing.TB, topics ...string) *Cluster {
	t.Helper()
	k := &Cluster{Timeout: 10 * time.Second}
	if brokers := realBrokers(); len(brokers) > 0 {
		k.Timeout = realTimeout
		k.borrow(t, brokers, parseTopics(t, topics))
		return k
	}
	k.embedded = true
	fake, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.GroupMinSessionTimeout(100*time.Millisecond),
		kfake.BrokerConfigs(map[string]string{
			// kfake's cleaner removes what an open transaction may still
			// need, so it must not wake up inside a long test.
			"log.cleaner.backoff.ms": "315360000000",
		}),
	)
	if err != nil {
		t.Fatalf("kafkatest: start the embedded broker: %v", err)
	}
	t.Cleanup(fake.Close)
	k.connect(t, fake.ListenAddrs())
	k.Create(t, parseTopics(t, topics)...)
	return k
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
	k.readers = map[string]*reader{}
	admin, err := kgo.NewClient(k.Opts()...)
	if err != nil {
		t.Fatalf("kafkatest: open a client: %v", err)
	}
	k.admin = admin
	t.Cleanup(k.close)
}

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
func (k *Cluster) Embedded() bool { return k.embedded }

// Opts returns the options with which a kgo client reaches the cluster, and
// which suit a test: addresses (and dialer, TLS and SASL where there are any),
// no client metrics, no linger, quick metadata, retries and fetches. Options
// given after them win. The slice is the caller's own.
func (k *Cluster) Opts() []kgo.Opt { return slices.Clone(k.opts) }

// Client returns a client of the cluster made of Opts and then opts. It is
// closed, and leaves its group, when t's test ends.
func (k *Cluster) Client(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(slices.Concat(k.opts, opts)...)
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
