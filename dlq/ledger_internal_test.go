package dlq

import (
	"encoding/json"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// everything is a topic whose letters are all there.
var everything = view{id: kadm.TopicID{7}, ends: map[int32]int64{0: 1 << 40, 1: 1 << 40, 2: 1 << 40}}

func TestPlaces_AreASetWithDetails(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	s, want := places{}, map[place]mark{}
	for range 20_000 {
		at := place{random.Int32N(3), random.Int64N(5000)}
		if random.IntN(3) == 0 {
			s.remove(at)
			delete(want, at)
			continue
		}
		m := mark{random.Int64(), random.Int32(), random.Uint32()}
		s.add(at, &m)
		want[at] = m
	}
	for p := range int32(3) {
		for o := range int64(5000) {
			at := place{p, o}
			m, ok := want[at]
			require.Equal(t, ok, s.has(at))
			if ok {
				require.Equal(t, &m, s.mark(at))
			} else {
				require.Nil(t, s.mark(at))
			}
		}
	}
}

// The doc comment of Replayer has these figures.
func TestPlaces_TakeABitForALetterAndNeverMoreThan250Bytes(t *testing.T) {
	// Not parallel to others: it measures the heap.
	heap := func(fill func(places)) float64 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := places{}
		fill(s)
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(s)
		return float64(after.HeapAlloc) - float64(before.HeapAlloc)
	}
	const n = 1_000_000
	dense := heap(func(s places) {
		for o := range int64(n) {
			s.add(place{0, o}, nil)
		}
	})
	require.Less(t, dense/n, 1.0)
	sparse := heap(func(s places) {
		for o := range int64(n / 10) {
			s.add(place{0, o * pageSize}, nil)
		}
	})
	require.Less(t, sparse/(n/10), 250.0)
	detailed := heap(func(s places) {
		for o := range int64(n) {
			s.add(place{0, o}, &mark{o, 1, 2})
		}
	})
	require.Less(t, detailed/n, 40.0)
}

func TestMarks_OfATransactionComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	topics := []string{"orders", "bills"}
	var all []marked
	want := map[place]Decision{}
	d := Decision{At: time.UnixMilli(1234567890123).UTC(), By: "ada@\"host\"", Why: "letters\n]}", Run: "0f"}
	ends := map[string]int64{}
	for p := range int32(3) {
		for o := int64(p); o < 3000; o += 1 + random.Int64N(3)*random.Int64N(2) {
			m := marked{place: place{p, o}, action: Discard}
			d := d
			if m.action = []Action{Replay, Replay, Park, Discard}[random.IntN(4)]; m.action != Discard {
				m.copy = &kgo.Record{Topic: topics[random.IntN(2)], Partition: random.Int32N(2)}
				if m.action == Park {
					m.copy.Topic = "dead.parked"
				}
				m.copy.Offset = ends[m.copy.Topic] + random.Int64N(2)*random.Int64N(2)
				ends[m.copy.Topic] = m.copy.Offset + 1
				d.To, d.ToPartition, d.ToOffset = m.copy.Topic, m.copy.Partition, m.copy.Offset
			}
			d.Action = m.action
			all, want[m.place] = append(all, m), d
		}
	}
	records, err := markRecords("dead", everything.id, all, d)
	require.NoError(t, err)
	require.Len(t, records, 3*4)
	l := newLedger("0f", true)
	for _, r := range records {
		require.True(t, json.Valid(r.Value), "%s", r.Value)
		l.apply(r, everything)
	}
	for at, d := range want {
		require.Equal(t, &d, l.get(at))
	}
	require.Nil(t, l.get(place{0, 3001}))
}

// What was written before there were groups, and what nobody wrote.
func TestLedger_ReadsWhatOthersWrote(t *testing.T) {
	t.Parallel()
	id := topicID(everything.id)
	l := newLedger("mine", true)
	for _, r := range []struct{ key, value string }{
		{id + "/0/1", `{"action":"replayed","at":"2026-11-22T15:42:49Z","by":"ada","why":"w","run":"r","to":"orders","toPartition":2,"toOffset":7}`},
		{id + "/0/2", `{"action":"discarded","at":"2026-11-22T15:42:49Z","toPartition":0,"toOffset":0}`},
		{id + "/0/3", `garbled`},
		{id + "/0/10-12/r2", `{"action":"replayed","at":"2026-11-22T15:42:49Z","to":"orders","letters":[[10,2,1,100],[12,1,0,9]]}`},
		{id + "/0/20-22/r3", `{"letters":[[20,9223372036854775807,1,100]]}`},
		{id + "/0/30-32/r3", `{"letters":"many"}`},
		{id + "/1/0-9223372036854775806/r3", `{"letters":[[0,-5,0,0]]}`},
		{id + "/0/2", ""},
		{"AAAA/0/5", `{"action":"replayed"}`},
		{id + "/0/50-40/r", `{"letters":[[40,1,0,0]]}`},
		{id, `{}`},
	} {
		rec := &kgo.Record{Key: []byte(r.key), Value: []byte(r.value), Timestamp: time.Unix(5, 0)}
		if r.value == "" {
			rec.Value = nil
		}
		of := everything
		of.ends = map[int32]int64{0: 100, 1: 3000}
		l.apply(rec, of)
	}
	var decided []int64
	for o := range int64(100) {
		if l.has(place{0, o}) {
			decided = append(decided, o)
		}
	}
	require.Equal(t, []int64{1, 3, 10, 11, 12, 20, 21, 22, 30, 31, 32}, decided, "what cannot be read counts as decided")
	require.True(t, l.has(place{1, 2999}), "no further than the topic")
	require.Equal(t, "orders", l.get(place{0, 1}).To)
	require.Equal(t, []int64{100, 101, 9}, []int64{l.get(place{0, 10}).ToOffset, l.get(place{0, 11}).ToOffset, l.get(place{0, 12}).ToOffset})
	require.Equal(t, time.Unix(5, 0).UTC(), l.get(place{0, 3}).At)
}

func FuzzLedger(f *testing.F) {
	f.Add([]byte(topicID(everything.id)+"/0/10-12/r"), []byte(`{"letters":[[10,2,1,100]]}`))
	f.Add([]byte(topicID(everything.id)+"/0/10"), []byte(`{"at":"x"}`))
	f.Add([]byte("run/"+topicID(everything.id)+"/x"), []byte(`{"first":-1}`))
	f.Fuzz(func(_ *testing.T, key, value []byte) {
		of := everything
		of.ends = map[int32]int64{0: 5000}
		newLedger("r", true).apply(&kgo.Record{Key: key, Value: value}, of)
	})
}
