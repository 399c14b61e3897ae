package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/ratelimit"
	"github.com/wherry-go/wherry/retry"
)

// worker notes when it was given which records, and fails as often as told.
type worker struct {
	mu    sync.Mutex
	began time.Time
	at    map[string][]time.Duration // by key
	order []string                   // the values
	fail  map[string]int             // how often, by value
}

func (w *worker) handle(ctx context.Context, r *kgo.Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at == nil {
		w.at, w.began = map[string][]time.Duration{}, time.Now()
	}
	w.at[string(r.Key)] = append(w.at[string(r.Key)], time.Since(w.began).Round(10*ms))
	w.order = append(w.order, string(r.Value))
	if w.fail[string(r.Value)] > 0 {
		w.fail[string(r.Value)]--
		return errors.New("not yet")
	}
	return wherry.Publish(ctx, &kgo.Record{Topic: "done", Key: r.Key, Value: r.Value})
}

func (w *worker) times(key string) []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]time.Duration(nil), w.at[key]...)
}

func (w *worker) values() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.order...)
}

func consumer(t *testing.T, k *kafkatest.Cluster, w *worker, policies ...wherry.Policy) *wherry.Consumer {
	return &wherry.Consumer{
		Client: k.Client(t), Group: "billing", Order: wherry.ByKey, Policies: policies,
		Handlers: []wherry.Route{{Topic: "orders", Handler: w.handle}},
	}
}

func send(t *testing.T, k *kafkatest.Cluster, key string, values ...string) {
	t.Helper()
	for _, v := range values {
		kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders", Key: []byte(key), Value: []byte(v)})
	}
}

func virtual(t *testing.T, f func(t *testing.T, k *kafkatest.Cluster)) {
	t.Helper()
	kafkatest.Test(t, []string{"orders:1", "done:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		if !k.Virtual() {
			t.Skip("needs -tags synctests")
		}
		f(t, k)
	})
}

func three() *ratelimit.Limiter {
	return &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Limit: 3, Per: 5 * s}}}
}

func several(prefix string, n int) (values []string) {
	for i := range n {
		values = append(values, fmt.Sprint(prefix, i))
	}
	return values
}

func TestPolicy_ByKeyANoisyTenantWaitsInItsLane(t *testing.T) {
	t.Parallel()
	for _, delivery := range []wherry.Delivery{wherry.AtLeastOnce, wherry.ExactlyOnce} {
		t.Run(fmt.Sprint(delivery), func(t *testing.T) {
			t.Parallel()
			virtual(t, func(t *testing.T, k *kafkatest.Cluster) {
				send(t, k, "noisy", several("n", 10)...)
				send(t, k, "quiet", "q0", "q1")
				w := &worker{}
				c := consumer(t, k, w, three())
				c.Delivery, c.Concurrency = delivery, 1
				stop := kafkatest.Run(t, c)
				k.Sleep(t, 30*s)
				require.Equal(t, []time.Duration{0, 0, 0, 5 * s, 5 * s, 5 * s, 10 * s, 10 * s, 10 * s, 15 * s}, w.times("noisy"))
				require.Equal(t, []time.Duration{0, 0}, w.times("quiet"), "others flow, though there is but one slot")
				require.NoError(t, stop())
				var got []string
				for range 12 {
					got = append(got, string(kafkatest.NextRecord(t, k, "done").Value))
				}
				require.ElementsMatch(t, append(several("n", 10), "q0", "q1"), got)
				if delivery == wherry.ExactlyOnce {
					kafkatest.ExactlyOnce(t, k, kafkatest.Effects{Inputs: []string{"orders"}, Outputs: []string{"done"}, Group: "billing"})
				}
			})
		})
	}
}

func TestPolicy_ByPartitionItHoldsUpThePartition(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T, k *kafkatest.Cluster) {
		send(t, k, "noisy", several("n", 5)...)
		send(t, k, "quiet", "q0")
		w := &worker{}
		c := consumer(t, k, w, three())
		c.Order = wherry.ByPartition
		kafkatest.Run(t, c)
		k.Sleep(t, 30*s)
		require.Equal(t, []time.Duration{0, 0, 0, 5 * s, 5 * s}, w.times("noisy"))
		require.Equal(t, []time.Duration{5 * s}, w.times("quiet"))
		require.Equal(t, append(several("n", 5), "q0"), w.values())
	})
}

// A key function puts tenants together whose records have different keys: they
// stand in a line.
func TestPolicy_KeyAndCostAreTheUsers(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T, k *kafkatest.Cluster) {
		for i := range 6 {
			send(t, k, fmt.Sprint("acme/", i), strconv.Itoa(i))
		}
		send(t, k, "acme/free", "free", "free", "free", "free")
		l := three()
		l.Key = func(r *kgo.Record) string { tenant, _, _ := strings.Cut(string(r.Key), "/"); return tenant }
		l.Cost = func(r *kgo.Record) int { return len(strings.TrimSuffix(string(r.Value), "free")) }
		w := &worker{}
		kafkatest.Run(t, consumer(t, k, w, l))
		k.Sleep(t, 30*s)
		all := map[time.Duration]int{}
		for i := range 6 {
			at := w.times(fmt.Sprint("acme/", i))
			require.Len(t, at, 1)
			all[at[0]]++
		}
		require.Equal(t, map[time.Duration]int{0: 3, 5 * s: 3}, all)
		require.Equal(t, []time.Duration{0, 0, 0, 0}, w.times("acme/free"))
	})
}

func TestPolicy_OutsideOfRetriesARecordCountsOnceInsideEachAttempt(t *testing.T) {
	t.Parallel()
	again := retry.Policy{Attempts: 3, Initial: 10 * ms, Multiplier: 1}
	for name, row := range map[string]struct {
		policies func(l *ratelimit.Limiter) []wherry.Policy
		want     []time.Duration
	}{
		"outside": {func(l *ratelimit.Limiter) []wherry.Policy { return []wherry.Policy{l, again} }, []time.Duration{0, 10 * ms, 20 * ms, 20 * ms, 20 * ms, 5 * s}},
		"inside":  {func(l *ratelimit.Limiter) []wherry.Policy { return []wherry.Policy{again, l} }, []time.Duration{0, 10 * ms, 20 * ms, 5 * s, 5*s + 10*ms, 5*s + 20*ms}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			virtual(t, func(t *testing.T, k *kafkatest.Cluster) {
				send(t, k, "k", "a", "b", "c", "d")
				w := &worker{fail: map[string]int{"a": 2}}
				kafkatest.Run(t, consumer(t, k, w, row.policies(three())...))
				k.Sleep(t, 30*s)
				require.Equal(t, row.want, w.times("k"))
				require.Equal(t, []string{"a", "a", "a", "b", "c", "d"}, w.values())
			})
		})
	}
}

func TestPolicy_ADrainEndsAWaitAndTheRecordComesAgainUncounted(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T, k *kafkatest.Cluster) {
		send(t, k, "k", several("", 5)...)
		l := three()
		w := &worker{}
		stop := kafkatest.Run(t, consumer(t, k, w, l))
		k.Sleep(t, s)
		require.Len(t, w.times("k"), 3)
		began := time.Now()
		require.NoError(t, stop())
		require.Less(t, time.Since(began), s, "a wait is not waited for")
		next := &worker{}
		kafkatest.Run(t, consumer(t, k, next, l)) // the limiter knows what it has counted
		k.Sleep(t, 10*s)
		require.Equal(t, []string{"3", "4"}, next.values())
		for range 5 {
			kafkatest.NextRecord(t, k, "done")
		}
		kafkatest.None(t, k, wherry.Event[int]{Topic: "done"}, s)
	})
}

func TestPolicy_AWaitBeyondMaxWaitIsAClearError(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T, k *kafkatest.Cluster) {
		send(t, k, "k", "a", "b")
		l := &ratelimit.Limiter{Name: "daily", Tiers: []ratelimit.Tier{{Name: "day", Limit: 1, Per: 24 * time.Hour}}}
		run := make(chan error, 1)
		go func() { run <- consumer(t, k, &worker{}, l).Run(t.Context()) }()
		err := <-run
		record, ok := errors.AsType[*wherry.RecordError](err)
		require.True(t, ok, "%v", err)
		require.EqualValues(t, 1, record.Offset)
		limit, ok := errors.AsType[*ratelimit.LimitError](err)
		require.True(t, ok)
		require.Equal(t, "day", limit.Tier)
		require.ErrorContains(t, err, "rate limit daily: tier day has room in 24h0m0s: a wait of")
		require.ErrorContains(t, err, "raise it, or use retry.Topics")
	})
}

// With delay topics outside, such a record waits there, until it has room.
func TestPolicy_DelayTopicsTakeWhatWaitsForTooLong(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T, k *kafkatest.Cluster) {
		send(t, k, "k", "a", "b")
		l := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Limit: 1, Per: time.Hour}}}
		w := &worker{}
		kafkatest.Run(t, consumer(t, k, w, retry.Topics{Policy: retry.Policy{Attempts: 2, Initial: time.Hour}}, l))
		k.Sleep(t, 3*time.Hour)
		at := w.times("k")
		require.Len(t, at, 2)
		require.GreaterOrEqual(t, at[1], time.Hour)
		require.Less(t, at[1], time.Hour+10*s)
	})
}

func TestPolicy_FaultsAreSaidBeforeAnythingIsOpened(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:1")
	err := consumer(t, k, &worker{}, &ratelimit.Limiter{}).Run(t.Context())
	require.ErrorContains(t, err, "ratelimit.Limiter default: has 0 Tiers")
}

// Records of a batch pass side by side, and the limit holds for them too.
func TestPolicy_ABatchIsLimitedRecordByRecord(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T, k *kafkatest.Cluster) {
		send(t, k, "k", several("", 7)...)
		var mu sync.Mutex
		var at []time.Duration
		began := time.Now()
		c := &wherry.Consumer{Client: k.Client(t), Group: "billing", Policies: []wherry.Policy{three()}, Handlers: []wherry.Route{
			wherry.Event[int]{Topic: "orders"}.Batch(func(_ context.Context, batch []wherry.Message[int]) []error {
				mu.Lock()
				defer mu.Unlock()
				for range batch {
					at = append(at, time.Since(began).Truncate(s))
				}
				return nil
			}).Sized(7, 100*ms),
		}}
		kafkatest.Run(t, c)
		k.Sleep(t, 30*s)
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, at, 7)
		require.GreaterOrEqual(t, at[6], 10*s)
	})
}
