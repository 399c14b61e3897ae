package saga

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/table"
)

func newTestIndex() *index {
	return newIndex(0, newClock("inbox", 0), func(Phase) {}, func(v int) bool { return v == 1 })
}

func recordOf(in *instance) *kgo.Record {
	return &kgo.Record{Key: []byte(in.id), Value: encodeInstance(in)}
}

// tick is an instance that wants one.
func tickAt(id string, due int64) *instance {
	return &instance{id: id, version: 1, phase: Running, began: 1, whyStep: -1, steps: []stepState{{status: stepBetween, due: due}}}
}

func TestS18_TheIndexTellsWhatIsDueInItsTime(t *testing.T) {
	t.Parallel()
	x := newTestIndex()
	x.Owned(true)
	want := map[string]int64{}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 3000 { // set, moved and ended in any order
		id := strconv.Itoa(r.IntN(500))
		switch at := int64(r.IntN(1000) + 1); r.IntN(4) {
		case 0:
			x.Take(&kgo.Record{Key: []byte(id)})
			delete(want, id)
		case 1:
			x.Take(recordOf(&instance{id: id, phase: Done, ended: int64(i + 1)}))
			delete(want, id)
		default:
			require.True(t, x.Take(recordOf(tickAt(id, at))))
			want[id] = at
		}
	}
	require.Equal(t, len(want), x.sums(false).active)
	for now := range int64(1001) {
		ids, next := x.due(now)
		for _, id := range ids {
			require.Equal(t, now, want[id], "neither early nor late")
			delete(want, id)
		}
		if len(want) > 0 {
			require.Greater(t, next, now)
		}
	}
	require.Empty(t, want)
	ids, _ := x.due(5000)
	require.Empty(t, ids, "what was sent is not sent again at once")
	ids, _ = x.due(1000 + tickAgain.Milliseconds())
	require.NotEmpty(t, ids, "but later")
}

func TestS27_WhatIsParkedForWantOfCodeThatIsThereGoesOn(t *testing.T) {
	t.Parallel()
	x := newTestIndex()
	x.Owned(true)
	for _, in := range []*instance{
		{id: "known", version: 1, phase: Parked, before: Running, whyStep: -1},
		{id: "unknown", version: 2, phase: Parked, before: Running, whyStep: -1},
		{id: "by a step", version: 1, phase: Parked, before: Running, whyStep: 0},
	} {
		x.Take(recordOf(in))
	}
	ids, _ := x.due(1000)
	require.Equal(t, []string{"known"}, ids)
}

func TestS24_PlacesAreTakenAndGivenBack(t *testing.T) {
	t.Parallel()
	x := newTestIndex()
	x.Owned(true)
	const limit = 3
	for _, id := range []string{"a", "b", "c"} {
		require.True(t, x.reserve(id, limit, false), id)
		require.True(t, x.reserve(id, limit, false), "when it is made again")
	}
	require.False(t, x.reserve("d", limit, false), "though none is committed")
	for _, id := range []string{"a", "b", "c"} {
		x.Take(recordOf(tickAt(id, 5)))
	}
	for _, id := range []string{"d", "e", "f"} {
		x.Take(recordOf(&instance{id: id, version: 1, phase: Queued, began: 1}))
	}
	admits := func(now int64) []string { ids, _ := x.admits(limit, now); return ids }
	require.Empty(t, admits(1))
	require.Equal(t, sums{active: 3, queued: 3, timers: 3}, x.sums(false))
	x.Take(recordOf(&instance{id: "b", phase: Done, ended: 7}))
	require.False(t, x.reserve("g", limit, false), "though there is a place: others wait")
	ids, again := x.admits(limit, 1)
	require.Equal(t, []string{"d"}, ids)
	require.Equal(t, 1+tickAgain.Milliseconds(), again)
	ids, again = x.admits(limit, 100)
	require.Empty(t, ids, "it is out")
	require.Equal(t, 1+tickAgain.Milliseconds(), again)
	require.Equal(t, []string{"d"}, admits(1+tickAgain.Milliseconds()), "and was lost")
	require.True(t, x.reserve("d", limit, true))
	x.Take(recordOf(tickAt("d", 5)))
	require.Empty(t, admits(1))
	x.Take(&kgo.Record{Key: []byte("e")}) // purged in the queue
	x.Take(&kgo.Record{Key: []byte("a")})
	require.Equal(t, []string{"f"}, admits(1))
	x.Reset()
	require.Zero(t, x.sums(true))
}

// What is read back is in the order of the last records of sagas.
func TestS24_TheQueueKeepsItsOrderWithAnotherOwner(t *testing.T) {
	t.Parallel()
	x := newTestIndex()
	for i, id := range []string{"c", "a", "d", "b"} {
		x.Take(recordOf(&instance{id: id, version: 1, phase: Queued, began: []int64{3, 1, 3, 2}[i]}))
	}
	x.Owned(true)
	ids, _ := x.admits(3, 1)
	require.Equal(t, []string{"a", "b", "c"}, ids)
}

// What is kept of an ended saga is 32 bytes, and their place in a map.
func TestS25_AnEndedSagaTakes32Bytes(t *testing.T) {
	require.EqualValues(t, 32, unsafe.Sizeof(digest{})+unsafe.Sizeof(ending{}))
	const n = 500_000
	x := newTestIndex()
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	in := &instance{phase: Done, version: 1, raw: make([]byte, 1000)}
	for i := range n {
		in.id, in.ended, in.from = fmt.Sprint("order-", i), int64(i+1), uint64(i)
		require.False(t, x.Take(recordOf(in)), "its record is not in memory")
	}
	each := (int64(heap()-before) - mostRecent) / n //nolint:gosec // it grows
	require.Less(t, each, int64(100))
	info := x.lookupEnded("order-7", 1)
	require.Equal(t, &endedInfo{phase: Done, ended: 8, from: 7}, info, "its record is in the topic alone")
	require.NotNil(t, x.lookupEnded(fmt.Sprint("order-", n-1), 1).value, "but of the last ones")
	require.LessOrEqual(t, x.recent.bytes, mostRecent)
	require.Nil(t, x.lookupEnded("never", 1))
	x.Take(&kgo.Record{Key: []byte("order-7")})
	require.Nil(t, x.lookupEnded("order-7", 1))
	runtime.KeepAlive(x)
}

func TestS25_EndedOnesAreSweptWhenTheirTimeIsOverOrThereAreTooMany(t *testing.T) {
	t.Parallel()
	x := newTestIndex()
	x.Owned(true)
	take := func(id string, ended, offset int64, phase Phase) {
		r := recordOf(&instance{id: id, version: 1, phase: phase, ended: ended})
		r.Offset = offset
		x.Take(r)
	}
	_, ok := x.sweepable(1e9, 100)
	require.False(t, ok, "there are none")
	take("a", 1000, 5, Done)
	take("b", 1050, 7, Undone)
	_, ok = x.sweepable(1099, 100)
	require.False(t, ok)
	from, ok := x.sweepable(1100, 100)
	require.True(t, ok)
	require.EqualValues(t, 5, from)
	require.Equal(t, sweepNow, x.sweep("a", 1000, 1100, 100, 0))
	require.Equal(t, sweepNever, x.sweep("a", 900, 1100, 100, 0), "an earlier end of it")
	require.Equal(t, sweepLater, x.sweep("b", 1050, 1100, 100, 1))
	require.Equal(t, sweepNever, x.sweep("c", 1050, 1100, 100, 1))
	x.sweptTo(7, 1050)
	_, ok = x.sweepable(1149, 100)
	require.False(t, ok)
	_, ok = x.sweepable(1150, 100)
	require.True(t, ok)
	require.Equal(t, Undone, x.lookupEnded("b", 1).phase)
}

func TestRecentsForgetTheOldest(t *testing.T) {
	t.Parallel()
	var r recents
	value := make([]byte, 1<<20)
	for i := range 100 {
		r.add(strconv.Itoa(i%50), value)
	}
	require.LessOrEqual(t, r.bytes, mostRecent)
	var left []int
	for i := range 50 {
		if r.get(strconv.Itoa(i)) != nil {
			left = append(left, i)
		}
	}
	require.True(t, slices.IsSorted(left))
	require.Equal(t, 35, left[0])
	for i := range 50 {
		r.remove(strconv.Itoa(i))
	}
	require.Zero(t, r.bytes)
}

// An idle saga, of a key of 36 bytes and with a timer, in the table and in the index.
func TestS24_AnIdleSagaTakesLittleBesideItsPayload(t *testing.T) {
	const n, payload = 200_000, 100
	x := newTestIndex()
	part := table.NewPart(x)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	in := tickAt("", 1<<40)
	in.raw = make([]byte, payload)
	for i := range n {
		in.id = fmt.Sprintf("%036d", i)
		in.steps[0].due += int64(i)
		part.Commit([]*kgo.Record{recordOf(in)})
	}
	each := int64(heap()-before)/n - payload //nolint:gosec // it grows
	t.Logf("%d bytes each", each)
	require.LessOrEqual(t, each, int64(384))
	runtime.KeepAlive(part)
}

// The tombstones of a sweep and of a purge are never both on their way: the later
// one could come after a new start.
func TestS25_OneRecordForgetsASagaThatHasEnded(t *testing.T) {
	t.Parallel()
	x := newTestIndex()
	x.Owned(true)
	require.False(t, x.claim("a", claim{offset: 7}), "it has not ended")
	x.Take(recordOf(&instance{id: "a", version: 1, phase: Done, ended: 5}))
	require.True(t, x.claim("a", claim{offset: 7}))
	require.True(t, x.claim("a", claim{offset: 7}), "the same record, handled again")
	require.False(t, x.claim("a", claim{offset: 8}))
	require.NotNil(t, x.lookupEnded("a", 9), "a start is in vain until it is forgotten")
	x.Take(&kgo.Record{Key: []byte("a")})
	require.False(t, x.claim("a", claim{offset: 8}), "it is forgotten")
	x.Take(recordOf(&instance{id: "a", version: 1, phase: Done, ended: 6}))
	require.True(t, x.claim("a", claim{offset: 9}), "another saga of that id")
	x.Owned(false)
	x.Owned(true)
	require.True(t, x.claim("a", claim{8, true}), "what a former owner had in hand is no more")
	require.NotNil(t, x.lookupEnded("a", 8))
	require.Nil(t, x.lookupEnded("a", 9), "what comes behind a purge finds nothing")
}
