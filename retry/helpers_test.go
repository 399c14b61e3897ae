package retry_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// TestMain keeps the log of the Consumers out of the way of what failed.
// WHERRY_TEST_LOG=1 shows it.
func TestMain(m *testing.M) {
	if os.Getenv("WHERRY_TEST_LOG") == "" {
		slog.SetDefault(slog.New(slog.DiscardHandler))
	}
	os.Exit(m.Run())
}

const patience = 30 * time.Second

var errDown = errors.New("the neighbour is down")

// both runs a test in virtual time, where a unit is a second, and in real time
// on the embedded broker, or on the one that KAFKATEST_BROKERS names.
func both(t *testing.T, topics []string, f func(t *testing.T, k *kafkatest.Cluster, unit time.Duration)) {
	t.Helper()
	t.Run("virtual", func(t *testing.T) {
		t.Parallel()
		virtual(t, topics, func(t *testing.T, k *kafkatest.Cluster) { f(t, k, s) })
	})
	t.Run("real", func(t *testing.T) {
		t.Parallel()
		f(t, kafkatest.NewCluster(t, topics...), 20*ms)
	})
}

func virtual(t *testing.T, topics []string, f func(t *testing.T, k *kafkatest.Cluster)) {
	t.Helper()
	kafkatest.Test(t, topics, func(t *testing.T, k *kafkatest.Cluster) {
		if !k.Virtual() {
			t.Skip("needs -tags synctests")
		}
		f(t, k)
	})
}

// call is one call of a handler.
type call struct {
	at      time.Time
	attempt int
	record  kgo.Record
	hop     string // the delay topic by which the record came
}

func (c call) value() string { return string(c.record.Value) }

// worker is a handler that notes its calls and does what it is told.
type worker struct {
	do func(c call) error // nil succeeds

	mu    sync.Mutex
	calls []call
	more  chan call
}

func newWorker(do func(c call) error) *worker { return &worker{do: do, more: make(chan call, 10_000)} }

func (w *worker) handle(ctx context.Context, r *kgo.Record) error {
	c := call{at: time.Now(), attempt: wherry.Attempt(ctx), record: *r}
	if hop := wherry.HopFrom(ctx); hop != nil {
		c.hop = hop.Topic
	}
	w.mu.Lock()
	w.calls = append(w.calls, c)
	w.mu.Unlock()
	var err error
	if w.do != nil {
		err = w.do(c)
	}
	w.more <- c
	return err
}

// next returns the calls that come next.
func (w *worker) next(t *testing.T, k *kafkatest.Cluster, n int) (calls []call) {
	t.Helper()
	limit := patience
	if k.Virtual() {
		limit = 1000 * time.Hour
	}
	for range n {
		select {
		case c := <-w.more:
			calls = append(calls, c)
		case <-time.After(limit):
			require.FailNow(t, "no further call", "%d of %d", len(calls), n)
		}
	}
	return calls
}

// all returns the calls so far.
func (w *worker) all() []call {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]call(nil), w.calls...)
}

func values(calls []call) (all []string) {
	for _, c := range calls {
		all = append(all, c.value())
	}
	return all
}

// letters is the policy outside: it takes what was given up.
type letters struct{ got chan letter }

type letter struct {
	err    *wherry.RecordError
	record kgo.Record
}

func newLetters() *letters { return &letters{make(chan letter, 10_000)} }

func (l *letters) Wrap(next wherry.Handler) wherry.Handler {
	return func(ctx context.Context, r *kgo.Record) error {
		err := next(ctx, r)
		if err == nil || wherry.Interrupted(ctx) {
			return err
		}
		e, ok := errors.AsType[*wherry.RecordError](err)
		if !ok {
			e = &wherry.RecordError{Cause: wherry.CauseFailed, Attempts: 1, Err: err}
		}
		l.got <- letter{e, *r}
		return nil
	}
}

func (l *letters) next(t *testing.T, k *kafkatest.Cluster) letter {
	t.Helper()
	limit := patience
	if k.Virtual() {
		limit = 1000 * time.Hour
	}
	select {
	case got := <-l.got:
		return got
	case <-time.After(limit):
		require.FailNow(t, "nothing was given up")
		panic("unreachable")
	}
}

func consumer(t *testing.T, k *kafkatest.Cluster, w *worker, policies ...wherry.Policy) *wherry.Consumer {
	return &wherry.Consumer{
		Client:   k.Client(t),
		Group:    "billing",
		Handlers: []wherry.Route{{Topic: "orders", Handler: w.handle}},
		Policies: policies,
	}
}

func send(t *testing.T, k *kafkatest.Cluster, key, value string) *kgo.Record {
	t.Helper()
	r := &kgo.Record{Topic: "orders", Value: []byte(value)}
	if key != "" {
		r.Key = []byte(key)
	}
	return kafkatest.SendRecord(t, k, r)
}

// gaps are the times between the calls.
func gaps(calls []call) (all []time.Duration) {
	for i := 1; i < len(calls); i++ {
		all = append(all, calls[i].at.Sub(calls[i-1].at))
	}
	return all
}

func exhausted(t *testing.T, err *wherry.RecordError, attempts int, first time.Time) {
	t.Helper()
	require.True(t, first.Equal(err.First), "%v, want %v", err.First, first)
	require.Equal(t, &wherry.RecordError{Cause: wherry.CauseExhausted, Attempts: attempts, First: err.First, Err: errDown}, err)
}

// ends are the end offsets of a topic's partitions.
func ends(t *testing.T, k *kafkatest.Cluster, topic string) map[int32]int64 {
	t.Helper()
	listed, err := kadm.NewClient(k.Client(t)).ListEndOffsets(t.Context(), topic)
	require.NoError(t, err)
	all := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { all[o.Partition] = o.Offset })
	return all
}
