package retry_test

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
)

func inOrder(unit time.Duration) retry.Topics {
	p := four(unit)
	p.KeepOrder = true
	return p
}

func TestKeepOrder_LaterRecordsOfAKeyGoBehindTheOneThatWaits(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster, unit time.Duration) {
		w := newWorker(func(c call) error {
			if c.value() == "a1" && c.attempt < 4 {
				return errDown
			}
			return nil
		})
		kafkatest.Run(t, consumer(t, k, w, inOrder(unit)))
		for _, v := range []string{"a1", "a2", "b1", "a3", "b2"} {
			send(t, k, v[:1], v)
		}
		calls := w.next(t, k, 8)
		of := map[string][]string{}
		for _, v := range values(calls) {
			of[v[:1]] = append(of[v[:1]], v)
		}
		require.Equal(t, map[string][]string{"a": {"a1", "a1", "a1", "a1", "a2", "a3"}, "b": {"b1", "b2"}}, of)
		if k.Virtual() { // in real time b2 may be sent when a1 is due
			require.Equal(t, []string{"a1", "b1", "b2", "a1", "a1", "a1", "a2", "a3"}, values(calls))
		}
		for _, c := range calls {
			if c.value() != "a1" {
				require.Equal(t, 1, c.attempt, "to go behind is no attempt")
			}
		}
	})
}

func TestKeepOrder_RecordsWithoutAKeyWaitForNone(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster, unit time.Duration) {
		w := newWorker(func(c call) error {
			if c.value() == "1" && c.attempt < 2 {
				return errDown
			}
			return nil
		})
		kafkatest.Run(t, consumer(t, k, w, inOrder(unit)))
		for _, v := range []string{"1", "2", "3"} {
			send(t, k, "", v)
		}
		require.Equal(t, []string{"1", "2", "3", "1"}, values(w.next(t, k, 4)))
	})
}

// The key is that by which the Consumer orders: two keys that Route.Key takes for
// one wait for each other, and what it gives none for waits for nobody.
func TestKeepOrder_IsByTheKeyOfTheRoute(t *testing.T) {
	t.Parallel()
	for name, order := range map[string]wherry.Order{"by key": wherry.ByKey, "by partition": wherry.ByPartition} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				w := newWorker(func(c call) error {
					if (c.value() == "a1" || c.value() == "free") && c.attempt == 1 {
						return errDown
					}
					return nil
				})
				c := consumer(t, k, w, inOrder(s))
				c.Order = order
				c.Handlers[0].Key = func(r *kgo.Record) []byte {
					if string(r.Key) == "free" {
						return nil
					}
					return r.Value[:1]
				}
				kafkatest.Run(t, c)
				send(t, k, "x", "a1")
				send(t, k, "free", "free")
				send(t, k, "y", "a2")
				send(t, k, "", "a3")
				send(t, k, "free", "free too")
				require.Equal(t, []string{"a1", "free", "free too"}, values(w.next(t, k, 3)))
				k.Sleep(t, time.Minute)
				require.Equal(t, []string{"a1", "a2", "a3"}, slices.DeleteFunc(values(w.next(t, k, 4)), func(v string) bool { return v == "free" }))
			})
		})
	}
}

func TestKeepOrder_ARecordThatIsGivenUpLetsTheNextOneGo(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster, unit time.Duration) {
		w, dead := newWorker(func(c call) error {
			switch c.value() {
			case "a1":
				return errDown
			case "a2":
				return wherry.Permanent(errDown)
			}
			return nil
		}), newLetters()
		kafkatest.Run(t, consumer(t, k, w, dead, inOrder(unit)))
		for _, v := range []string{"a1", "a2", "a3"} {
			send(t, k, "a", v)
		}
		require.Equal(t, []string{"a1", "a1", "a1", "a1", "a2", "a3"}, values(w.next(t, k, 6)))
		first, second := dead.next(t, k), dead.next(t, k)
		require.Equal(t, "a1", string(first.record.Value))
		require.Equal(t, 4, first.err.Attempts)
		require.Equal(t, "a2", string(second.record.Value))
		require.Equal(t, wherry.CausePermanent, second.err.Cause)
		require.Equal(t, 1, second.err.Attempts)
	})
}

func TestKeepOrder_NothingIsLeftInTheKeysTopic(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		w, dead := newWorker(func(c call) error {
			if c.value() != "a3" {
				return errDown
			}
			return nil
		}), newLetters()
		kafkatest.Run(t, consumer(t, k, w, dead, inOrder(s)))
		for _, v := range []string{"a1", "b1", "a2", "a3"} {
			send(t, k, v[:1], v)
		}
		w.next(t, k, 13)
		k.Sleep(t, time.Minute)
		require.Positive(t, produced(t, k, "orders.billing.retry.keys"))
		table := &wherry.Table[map[string]any]{Client: k.Client(t), Topic: "orders.billing.retry.keys"}
		kafkatest.Run(t, table)
		for m, err := range table.All(t.Context()) {
			require.NoError(t, err)
			require.Fail(t, "a ticket is left", "%s: %v", m.Record.Key, m.Value)
		}
	})
}

func TestKeepOrder_ALongWaitIsNotPolled(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		w := newWorker(func(c call) error {
			if c.value() == "a1" && c.attempt == 1 {
				return retry.After(errDown, time.Hour)
			}
			return nil
		})
		p := retry.Topics{Policy: retry.Policy{Attempts: 4, Initial: s, Multiplier: 30}, KeepOrder: true}
		kafkatest.Run(t, consumer(t, k, w, p))
		send(t, k, "a", "a1")
		send(t, k, "a", "a2")
		send(t, k, "b", "b1")
		calls := w.next(t, k, 4)
		require.Equal(t, []string{"a1", "b1", "a1", "a2"}, values(calls))
		require.Equal(t, time.Hour, calls[2].at.Sub(calls[0].at))
		require.LessOrEqual(t, calls[3].at.Sub(calls[2].at), 2*s)
		n := 0
		for _, topic := range []string{"1s", "30s", "15m"} {
			n += produced(t, k, "orders.billing.retry."+topic)
		}
		require.Less(t, n, 20, "hops by way of the longer delays")
	})
}

func TestKeepOrder_ARestartKeepsTheOrder(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		w := newWorker(func(c call) error {
			if c.value() == "a1" && c.attempt < 3 {
				return errDown
			}
			return nil
		})
		stop := kafkatest.Run(t, consumer(t, k, w, inOrder(time.Minute)))
		send(t, k, "a", "a1")
		w.next(t, k, 1)
		k.Sleep(t, s)
		require.NoError(t, stop())
		stop = kafkatest.Run(t, consumer(t, k, w, inOrder(time.Minute)))
		send(t, k, "a", "a2")
		send(t, k, "b", "b1")
		w.next(t, k, 2)
		k.Sleep(t, s)
		require.NoError(t, stop())
		k.Sleep(t, time.Hour)
		send(t, k, "a", "a3")
		kafkatest.Run(t, consumer(t, k, w, inOrder(time.Minute)))
		w.next(t, k, 3)
		require.Equal(t, []string{"a1", "b1", "a1", "a1", "a2", "a3"}, values(w.all()))
	})
}

// referee knows which records of each key are done, and complains when one is
// handled before all that came before it.
type referee struct {
	mu    sync.Mutex
	done  map[string]bool
	wrong []string
	left  int
	over  chan struct{}
}

func newReferee(n int) *referee {
	return &referee{done: map[string]bool{}, left: n, over: make(chan struct{})}
}

// judge is a handler that fails by chance, the same each time, and then is done.
func (f *referee) judge(c call, fails int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := string(c.record.Key)
	var n int
	_, _ = fmt.Sscanf(c.value(), key+"#%d", &n)
	for i := range n {
		if !f.done[fmt.Sprintf("%s#%d", key, i)] {
			f.wrong = append(f.wrong, fmt.Sprintf("%s (attempt %d, by %q) before #%d", c.value(), c.attempt, c.hop, i))
			break
		}
	}
	if c.attempt <= fails {
		return errDown
	}
	f.finish(c.value())
	return nil
}

func (f *referee) finish(value string) {
	if !f.done[value] {
		f.done[value] = true
		if f.left--; f.left == 0 {
			close(f.over)
		}
	}
}

func (f *referee) wait(t *testing.T, limit time.Duration) {
	t.Helper()
	select {
	case <-f.over:
	case <-time.After(limit):
		f.mu.Lock()
		defer f.mu.Unlock()
		require.FailNow(t, "not all is done", "%d left, done are %v", f.left, slices.Sorted(maps.Keys(f.done)))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	require.Empty(t, f.wrong)
}

// failures are how often a record fails: three out of four do not.
func failures(value string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(value))
	return max(0, int(h.Sum32()%16)-12)
}

func TestKeepOrder_HoldsAmongConsumersThatComeAndGo(t *testing.T) {
	t.Parallel()
	for name, order := range map[string]wherry.Order{"by key": wherry.ByKey, "by partition": wherry.ByPartition} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			both(t, []string{"orders:4"}, func(t *testing.T, k *kafkatest.Cluster, unit time.Duration) {
				const keys, each = 12, 25
				f := newReferee(keys * each)
				w := newWorker(func(c call) error { return f.judge(c, failures(c.value())) })
				start := func() func() error {
					c := consumer(t, k, w, inOrder(unit))
					c.Order = order
					return kafkatest.Run(t, c)
				}
				stops := []func() error{start(), start()}
				rnd := rand.New(rand.NewPCG(1, 2))
				for i := range each {
					for key := range keys {
						send(t, k, fmt.Sprintf("k%d", key), fmt.Sprintf("k%d#%d", key, i))
					}
					if i%6 == 5 {
						i := rnd.IntN(2)
						require.NoError(t, stops[i]())
						stops[i] = start()
					}
				}
				limit := 2 * patience
				if k.Virtual() {
					limit = time.Hour
				}
				f.wait(t, limit)
			})
		})
	}
}

// produced is how many records a topic has.
func produced(t *testing.T, k *kafkatest.Cluster, topic string) (n int) {
	t.Helper()
	for _, end := range ends(t, k, topic) {
		n += int(end)
	}
	return n
}

// Tickets that come late are no danger where all go by way of one topic first.
func TestKeepOrder_HoldsWhereTicketsAreSlow(t *testing.T) {
	t.Parallel()
	for seed := range 4 {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			t.Parallel()
			virtual(t, []string{"orders:4"}, func(t *testing.T, k *kafkatest.Cluster) { slowTickets(t, k, strconv.Itoa(seed)) })
		})
	}
}

func slowTickets(t *testing.T, k *kafkatest.Cluster, seed string) {
	const keys, each = 8, 12
	f := newReferee(keys * each)
	errSlow := errors.New("come back in a while")
	w := newWorker(func(c call) error {
		err := f.judge(c, 2*failures(seed+c.value()))
		if err != nil && (failures(seed+c.value())+c.attempt)%2 == 0 {
			return errSlow
		}
		return err
	})
	p := retry.Topics{KeepOrder: true, Policy: retry.Policy{
		Attempts: 9, Initial: s, Max: 4 * s,
		Rules: []retry.Rule{{If: retry.Is(errSlow), Initial: 13 * s, Max: 13 * s}},
	}}
	start := func() {
		c := consumer(t, k, w, p)
		c.Order = wherry.ByKey
		// Among three, the topics' partitions of one number are of several.
		c.Opts = []kgo.Opt{kgo.Balancers(kgo.RoundRobinBalancer())}
		kafkatest.Run(t, c)
	}
	start()
	start()
	start()
	slow := k.AddNode(t) // of the keys alone, or the delay would hold up all
	for n := range int32(4) {
		k.MoveLeader(t, "orders.billing.retry.keys", n, slow)
	}
	fault := k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.billing.retry.keys", Count: -1}, 15*s)
	for i := range each {
		for key := range keys {
			send(t, k, fmt.Sprintf("k%d", key), fmt.Sprintf("k%d#%d", key, i))
		}
		k.Sleep(t, 3*s)
	}
	f.wait(t, 10*time.Hour)
	require.Greater(t, fault.Hits(), 20)
}

// crashes are requests of a Consumer at which its process may die.
var crashes = []kmsg.Key{kmsg.Produce, kmsg.OffsetCommit}

func TestKeepOrder_HoldsThroughCrashes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			virtual(t, []string{"orders:4"}, func(t *testing.T, k *kafkatest.Cluster) {
				const keys, each = 8, 24
				rnd := rand.New(rand.NewPCG(seed, 7))
				f := newReferee(keys * each)
				w := newWorker(func(c call) error { return f.judge(c, failures(c.value())) })
				start := func(name string) func() error {
					c := consumer(t, k, w, inOrder(s))
					c.Order = wherry.ByKey
					c.Client = k.Client(t, kgo.ClientID(name))
					c.Opts = []kgo.Opt{kgo.SessionTimeout(10 * s), kgo.HeartbeatInterval(s), kgo.RebalanceTimeout(20 * s)}
					return kafkatest.Run(t, kafkatest.RunFunc(c.Run)) // ready when the dead one's session is over
				}
				stops := []func() error{start("0"), start("1")}
				names := []string{"0", "1"}
				for i := range each {
					if i%6 == 3 {
						// One of the two dies at one of its next requests, and
						// another one takes its place.
						n := rnd.IntN(2)
						crash := k.Crash
						if rnd.IntN(2) == 0 {
							crash = k.CrashAfter
						}
						crash(t, kafkatest.Requests{Keys: crashes, Client: names[n], Skip: rnd.IntN(10)})
						dead := stops[n]
						names[n] = fmt.Sprint(names[n], i)
						stops[n] = start(names[n])
						defer func() { _ = dead() }()
					}
					for key := range keys {
						send(t, k, fmt.Sprintf("k%d", key), fmt.Sprintf("k%d#%d", key, i))
					}
					k.Sleep(t, time.Duration(rnd.IntN(3000))*ms)
				}
				f.wait(t, 10*time.Hour)
			})
		})
	}
}
