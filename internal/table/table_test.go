package table_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/table"
)

func put(offset int64, key, value string) *kgo.Record {
	return &kgo.Record{Offset: offset, Key: []byte(key), Value: []byte(value), Timestamp: time.UnixMilli(offset * 1000)}
}

func remove(offset int64, key string) *kgo.Record {
	return &kgo.Record{Offset: offset, Key: []byte(key)}
}

func texts(s *table.Store) map[string]string {
	all := map[string]string{}
	for key, e := range s.All() {
		all[key] = string(e.Value)
	}
	return all
}

func TestStore(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		records []*kgo.Record
		want    map[string]string
		next    int64
	}{
		{name: "nothing", want: map[string]string{}},
		{name: "the last of a key counts", records: []*kgo.Record{put(0, "a", "1"), put(1, "b", "2"), put(2, "a", "3")}, want: map[string]string{"a": "3", "b": "2"}, next: 3},
		{name: "a tombstone deletes", records: []*kgo.Record{put(0, "a", "1"), remove(1, "a")}, want: map[string]string{}, next: 2},
		{name: "a tombstone of no key that is there", records: []*kgo.Record{remove(5, "a")}, want: map[string]string{}, next: 6},
		{name: "a key that comes back", records: []*kgo.Record{put(0, "a", "1"), remove(1, "a"), put(9, "a", "2")}, want: map[string]string{"a": "2"}, next: 10},
		{name: "an empty value is one", records: []*kgo.Record{put(0, "a", "")}, want: map[string]string{"a": ""}, next: 1},
		{name: "an empty key is one", records: []*kgo.Record{put(0, "", "1")}, want: map[string]string{"": "1"}, next: 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := table.New()
			s.Apply(3, test.records)
			require.Equal(t, test.want, texts(s))
			require.Equal(t, len(test.want), s.Len())
			next, _ := s.Position(3)
			require.Equal(t, test.next, next)
			next, _ = s.Position(0)
			require.Zero(t, next, "another partition")
		})
	}
}

func TestStoreKeepsWhereAnEntryIsFrom(t *testing.T) {
	t.Parallel()
	s := table.New()
	r := put(7, "a", "1")
	r.Headers = []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}
	s.Apply(2, []*kgo.Record{r})
	e, ok := s.Get("a")
	require.True(t, ok)
	require.Equal(t, table.Entry{Value: []byte("1"), Headers: r.Headers, Partition: 2, Offset: 7, Millis: 7000}, e)
	_, ok = s.Get("b")
	require.False(t, ok)
}

func TestStoreCopiesWhatItKeeps(t *testing.T) {
	t.Parallel()
	s := table.New()
	r := put(0, "a", "1")
	r.Headers = []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}
	s.Apply(0, []*kgo.Record{r})
	r.Key[0], r.Value[0], r.Headers[0].Value[0], r.Headers[0].Key = 'x', 'x', 'x', "x"
	e, ok := s.Get("a")
	require.True(t, ok)
	require.Equal(t, "1", string(e.Value))
	require.Equal(t, []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}, e.Headers)
	all := s.All()
	delete(all, "a")
	require.Equal(t, 1, s.Len())
}

func TestStorePositionsOnlyMoveForwardAndTell(t *testing.T) {
	t.Parallel()
	s := table.New()
	_, moved := s.Position(0)
	stays := func() {
		select {
		case <-moved:
			require.FailNow(t, "nothing moved")
		default:
		}
	}
	s.Advance(0, 0)
	s.Apply(0, nil)
	stays()
	s.Advance(1, 5)
	<-moved // also for another partition: who waits looks again
	_, moved = s.Position(0)
	s.Advance(1, 3)
	stays()
	next, _ := s.Position(1)
	require.EqualValues(t, 5, next)
	// Records that were read before the position was moved over them.
	s.Apply(1, []*kgo.Record{put(2, "a", "1")})
	stays()
	require.Equal(t, map[string]string{"a": "1"}, texts(s))
}

func TestStoreAgreesWithAMapOnRandomRecords(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 0))
		s, want, offset := table.New(), map[string]string{}, int64(0)
		for range 100 {
			var batch []*kgo.Record
			for range random.IntN(5) {
				key := strconv.Itoa(random.IntN(10))
				offset += 1 + random.Int64N(3)
				if random.IntN(3) == 0 {
					batch = append(batch, remove(offset, key))
					delete(want, key)
				} else {
					value := strconv.Itoa(random.Int())
					batch = append(batch, put(offset, key, value))
					want[key] = value
				}
			}
			s.Apply(0, batch)
			require.Equal(t, want, texts(s))
		}
	}
}

func TestStoreFromManyGoroutines(t *testing.T) {
	t.Parallel()
	s := table.New()
	var users sync.WaitGroup
	for p := range int32(4) {
		users.Go(func() {
			for i := range int64(300) {
				s.Apply(p, []*kgo.Record{put(i, strconv.Itoa(int(p)), strconv.FormatInt(i, 10))})
			}
		})
		users.Go(func() {
			for next := int64(0); next < 300; {
				var moved <-chan struct{}
				if next, moved = s.Position(p); next < 300 {
					<-moved
				}
			}
		})
		users.Go(func() {
			for range 100 {
				s.Get("0")
				for _, e := range s.All() {
					_ = string(e.Value)
				}
			}
		})
	}
	users.Wait()
	require.Equal(t, []string{"0", "1", "2", "3"}, slices.Sorted(maps.Keys(texts(s))))
}
