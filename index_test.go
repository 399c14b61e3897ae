package wherry_test

import (
	"encoding/json"
	"maps"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// Two keys that Route.Key takes for one are in order, and what it gives nil for
// is not.
func TestOrder_ByKeyIsByTheKeyOfTheRoute(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	place(t, k, 0, "ax-0", "ay-1", "bx-2", "free-3", "free-4")
	h := newHands()
	routes := h.route()
	routes[0].Key = func(r *kgo.Record) []byte {
		if string(r.Key) == "free" {
			return nil
		}
		return r.Key[:1]
	}
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Order: wherry.ByKey, Handlers: routes, Drain: 10 * time.Millisecond})
	got := h.take(t, 4)
	require.Equal(t, []string{"ax-0", "bx-2", "free-3", "free-4"}, idsOf(got))
	h.none(t)
	got["ax-0"].done()
	require.Equal(t, "ay-1", h.next(t).id)
}

// shadow is an index that keeps what it is told, and the calls.
type shadow struct {
	mu      sync.Mutex
	drop    string // a key that the table is not to keep
	now     map[string]int
	owned   bool
	resets  int
	begun   int // how often it was owned
	foreign int // Take with a key that is no number
}

func (s *shadow) Take(r *kgo.Record) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := strconv.Atoi(string(r.Key)); err != nil {
		s.foreign++
	}
	if r.Value == nil {
		delete(s.now, string(r.Key))
		return true
	}
	var c count
	_ = json.Unmarshal(r.Value, &c)
	s.now[string(r.Key)] = c.N
	return string(r.Key) != s.drop
}

func (s *shadow) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = map[string]int{}
	s.resets++
}

func (s *shadow) Owned(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owned = yes
	if yes {
		s.begun++
	}
}

// shadows makes them, and returns what all together have of what is owned.
type shadows struct {
	mu   sync.Mutex
	drop string
	made []*shadow
}

func (s *shadows) index(int32) wherry.TableIndex {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := &shadow{drop: s.drop, now: map[string]int{}}
	s.made = append(s.made, one)
	return one
}

func (s *shadows) have() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]int{}
	for _, one := range s.made {
		one.mu.Lock()
		if one.owned {
			maps.Copy(all, one.now)
		}
		one.mu.Unlock()
	}
	return all
}

func indexed(k *kafkatest.Cluster, t *testing.T, s *shadows, opts ...kgo.Opt) *wherry.Consumer {
	t.Helper()
	c := exactly(k.Client(t, opts...), wherry.ByKey)
	table := *counts
	table.Index = s.index
	c.Tables = []wherry.Owned{&table}
	return c
}

// The index has what the log has: after transactions, also where some were
// aborted, after a restart, and after partitions went to another member and
// came back.
func TestIndex_HasWhatIsCommittedAndNothingElse(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:4", "counted:1")
	const keys = 20
	want := map[string]int{}
	send := func() {
		for key := range keys {
			kafkatest.Send(t, k, orderPlaced, strconv.Itoa(key), order{ID: strconv.Itoa(key)})
			want[strconv.Itoa(key)]++
		}
	}
	all := func(who ...*shadows) func() bool {
		return func() bool {
			have := map[string]int{}
			for _, s := range who {
				for key, n := range s.have() {
					have[key] += n // twice where two believe that they own it
				}
			}
			return maps.Equal(want, have)
		}
	}
	first, second, third := &shadows{}, &shadows{}, &shadows{}
	send()
	stop := kafkatest.Run(t, indexed(k, t, first))
	eventually(t, "the first has all", all(first))
	stopSecond := kafkatest.Run(t, indexed(k, t, second))
	send()
	eventually(t, "both have all", all(first, second))
	require.NoError(t, stopSecond())
	send()
	eventually(t, "the first has all again", all(first))
	require.NoError(t, stop())
	send()
	kafkatest.Run(t, indexed(k, t, third))
	eventually(t, "the third has read all back", all(third))
	for _, s := range [][]*shadow{first.made, third.made} {
		for _, one := range s {
			require.Zero(t, one.foreign)
			require.Positive(t, one.begun)
		}
	}
}

// A transaction that was aborted is not told, the same outputs in the next one
// are, once.
func TestIndex_IsNotToldOfWhatWasAborted(t *testing.T) {
	virtually(t, []string{"order.placed:1", "counted:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		s := &shadows{}
		refused := k.Drop(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Count: 20})
		kafkatest.Send(t, k, orderPlaced, "7", order{ID: "7"})
		kafkatest.Run(t, indexed(k, t, s))
		refused.Wait(t, 1)
		require.Empty(t, s.have())
		k.Sleep(t, time.Minute)
		require.Equal(t, map[string]int{"7": 1}, s.have())
	})
}

// What the index does not want is not in the table, and stays in its topic.
func TestIndex_SaysWhatTheTableKeeps(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1", "counted:1")
	s := &shadows{drop: "7"}
	kafkatest.Run(t, indexed(k, t, s))
	sent := 0
	for _, key := range []string{"7", "8"} {
		for n := range 3 {
			kafkatest.Send(t, k, orderPlaced, key, order{ID: key})
			want := n + 1
			if key == "7" {
				want = 1 // it is not found again
			}
			sent++
			eventually(t, "it is counted", func() bool { return s.have()[key] == want && len(readAll(t, k, "counts")) == sent })
		}
	}
	require.Equal(t, map[string]int{"7": 1, "8": 3}, s.have())
}
