package lane_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/lane"
)

func records(offsets ...int64) (rs []*kgo.Record) {
	for _, offset := range offsets {
		rs = append(rs, &kgo.Record{Offset: offset, Key: []byte("key"), Value: []byte("value")})
	}
	return rs
}

// hands keeps the items that a lane's Work was given and did not end.
type hands struct {
	lane    *lane.Lane
	items   chan *lane.Item
	changed atomic.Int32
}

// take starts a lane whose Work returns at once and leaves the end of each item
// to the test, as a handler does whose outputs are on their way.
func take(ctx context.Context) *hands {
	h := &hands{items: make(chan *lane.Item, 100)}
	h.lane = newLane(ctx, func(_ context.Context, it *lane.Item) { h.items <- it }, func() { h.changed.Add(1) })
	return h
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// Each test runs in a bubble, which also fails if the lane's goroutine stays.

func TestLaneRunsRecordsInOrderOneAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var (
			got     []int64
			running atomic.Int32
			most    int32
			all     = make(chan struct{})
		)
		l := newLane(t.Context(), func(_ context.Context, it *lane.Item) {
			most = max(most, running.Add(1))
			<-time.After(time.Millisecond)
			got = append(got, it.Record.Offset)
			running.Add(-1)
			it.Finish()
			if len(got) == 6 {
				close(all)
			}
		}, func() {})
		l.Feed(records(1, 2, 5))
		l.Feed(records(9))
		l.Feed(nil)
		l.Feed(records(10, 11))
		<-all
		require.Equal(t, []int64{1, 2, 5, 9, 10, 11}, got)
		require.EqualValues(t, 1, most)
		low := l.State().Low
		require.EqualValues(t, 12, low.Offset)
		<-l.Drain()
		<-l.Exited()
	})
}

func TestLaneBeginsTheNextWhenWorkReturnsNotWhenTheItemEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := take(t.Context())
		h.lane.Feed(records(0, 1, 2))
		first, second, third := <-h.items, <-h.items, <-h.items
		require.Zero(t, h.lane.State().Low)

		third.Finish()
		second.Finish()
		require.Zero(t, h.lane.State().Low, "the first has not ended")
		require.Equal(t, 1, h.lane.State().Held)

		first.Finish()
		low := h.lane.State().Low
		require.EqualValues(t, 3, low.Offset)
		require.Zero(t, h.lane.State().Held)
		require.EqualValues(t, 3, h.changed.Load())
		<-h.lane.Drain()
		<-h.lane.Exited()
	})
}

func TestDrainLetsWhatIsInHandEndAndBeginsNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun, release := make(chan int64), make(chan struct{})
		l := newLane(t.Context(), func(_ context.Context, it *lane.Item) {
			begun <- it.Record.Offset
			<-release
			it.Finish()
		}, func() {})
		l.Feed(records(0, 1, 2))
		require.EqualValues(t, 0, <-begun)
		idle := l.Drain()
		l.Feed(records(3))
		synctest.Wait()
		require.False(t, closed(idle), "a record is in hand")

		close(release)
		<-idle
		<-l.Exited()
		low := l.State().Low
		require.EqualValues(t, 1, low.Offset)
		require.True(t, closed(l.Drain()), "draining again is no harm")
	})
}

func TestDrainWaitsForItemsThatOutliveWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := take(t.Context())
		h.lane.Feed(records(0, 1))
		first, second := <-h.items, <-h.items
		idle := h.lane.Drain()
		first.Finish()
		synctest.Wait()
		require.False(t, closed(idle))
		require.False(t, closed(h.lane.Exited()), "the second may still ask to be run again")
		second.Finish()
		<-idle
		<-h.lane.Exited()
	})
}

func TestAnEmptyLaneIsIdleAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := take(t.Context())
		require.True(t, closed(h.lane.Drain()))
		<-h.lane.Exited()
		h.lane.Feed(records(0))
		n := h.lane.State().Held
		require.Zero(t, n, "a lane that drains takes nothing in")
	})
}

func TestAgainComesBeforeWhatHasNotBegunAndIsSeenByWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("too large")
		step := make(chan struct{})
		type call struct {
			offset  int64
			refused error
		}
		var calls []call
		l := newLane(t.Context(), func(_ context.Context, it *lane.Item) {
			<-step
			calls = append(calls, call{it.Record.Offset, it.Refused})
			if it.Record.Offset == 0 && it.Refused == nil {
				it.Again(refused)
				return
			}
			it.Finish()
		}, func() {})
		l.Feed(records(0, 1, 2))
		close(step)
		synctest.Wait()
		require.Equal(t, []call{{0, nil}, {0, refused}, {1, nil}, {2, nil}}, calls)
		low := l.State().Low
		require.EqualValues(t, 3, low.Offset)
		<-l.Drain()
		<-l.Exited()
	})
}

func TestAgainRunsWhileTheLaneDrains(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := take(t.Context())
		h.lane.Feed(records(0))
		it := <-h.items
		idle := h.lane.Drain()
		it.Again(errors.New("refused"))
		require.Same(t, it, <-h.items)
		require.False(t, closed(idle))
		it.Finish()
		<-idle
		<-h.lane.Exited()
	})
}

func TestAgainAfterCutIsNotRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := take(t.Context())
		h.lane.Feed(records(0))
		it := <-h.items
		h.lane.Cut(errors.New("revoked"))
		it.Again(errors.New("refused"))
		<-h.lane.Exited()
		require.Empty(t, h.items)
	})
}

func TestFailHaltsTheLaneAndLeavesTheOffset(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var got []int64
		l := newLane(t.Context(), func(_ context.Context, it *lane.Item) {
			got = append(got, it.Record.Offset)
			if it.Record.Offset == 1 {
				it.Fail()
				return
			}
			it.Finish()
		}, func() {})
		l.Feed(records(0, 1, 2, 3))
		<-l.Exited()
		l.Feed(records(4))
		require.Equal(t, []int64{0, 1}, got)
		low := l.State().Low
		require.EqualValues(t, 1, low.Offset)
		require.True(t, closed(l.Drain()))
		require.False(t, l.WasCut())
	})
}

func TestFailLetsTheOthersInHandEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := take(t.Context())
		h.lane.Feed(records(0, 1, 2))
		first, second, third := <-h.items, <-h.items, <-h.items
		second.Fail()
		third.Fail()
		idle := h.lane.Drain()
		require.False(t, closed(idle))
		first.Finish()
		<-idle
		low := h.lane.State().Low
		require.EqualValues(t, 1, low.Offset)
		<-h.lane.Exited()
	})
}

func TestCutEndsTheContextWithItsCauseAndNothingCountsAfterIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		revoked := errors.New("revoked")
		cause := make(chan error, 1)
		begun := make(chan struct{})
		l := newLane(context.Background(), func(ctx context.Context, it *lane.Item) {
			if it.Record.Offset == 0 {
				it.Finish()
				return
			}
			close(begun)
			<-ctx.Done()
			cause <- context.Cause(ctx)
			it.Finish() // a handler that finished in spite of it
		}, func() {})
		l.Feed(records(0, 1, 2))
		<-begun
		require.False(t, l.WasCut())
		l.Cut(revoked)
		require.True(t, l.WasCut())
		require.Equal(t, revoked, <-cause)
		<-l.Exited()
		low := l.State().Low
		require.EqualValues(t, 1, low.Offset, "what ends after Cut does not count")
		l.Cut(errors.New("again"))
		l.Feed(records(5))
	})
}

func TestALaneThatIsCutWhileIdleEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := take(t.Context())
		synctest.Wait()
		h.lane.Cut(errors.New("revoked"))
		<-h.lane.Exited()
	})
}

func TestLaneUnderFeedFinishAndCutFromManyGoroutines(t *testing.T) {
	t.Parallel()
	for range 50 {
		var ends sync.WaitGroup
		l := newLane(t.Context(), func(_ context.Context, it *lane.Item) {
			ends.Go(func() {
				if it.Record.Offset%7 == 0 && it.Refused == nil {
					it.Again(errors.New("refused"))
					return
				}
				it.Finish()
			})
		}, func() {})
		var users sync.WaitGroup
		users.Go(func() {
			for offset := range int64(200) {
				l.Feed(records(offset))
			}
		})
		users.Go(func() {
			for range 200 {
				l.Position([16]byte{}, lane.MaxText, 0)
				l.State()
			}
		})
		users.Wait()
		<-l.Drain()
		users.Go(func() { l.Cut(errors.New("revoked")) })
		users.Go(func() { l.Drain() })
		users.Wait()
		<-l.Exited()
		ends.Wait()
		n := l.State().Held
		low := l.State().Low
		require.LessOrEqual(t, low.Offset, int64(200))
		require.GreaterOrEqual(t, n, 0)
	}
}

// newLane returns a lane that is never full.
func newLane(ctx context.Context, work lane.Work, finished func()) *lane.Lane {
	return lane.New(ctx, lane.Config{
		Work: work, Pool: lane.NewPool(0), Until: ctx, Finished: finished, Room: func() {},
	})
}

// Full counts what was fed and has not finished; Room is called once, at half.
func TestLane_FullAndRoom(t *testing.T) {
	t.Parallel()
	items, room := make(chan *lane.Item, 10), make(chan struct{}, 10)
	l := lane.New(t.Context(), lane.Config{
		Work: func(_ context.Context, it *lane.Item) { items <- it }, Pool: lane.NewPool(0), Until: t.Context(), Finished: func() {},
		MaxRecords: 4, Room: func() { room <- struct{}{} },
	})
	defer func() { l.Cut(errors.New("over")); <-l.Exited() }()
	l.Feed([]*kgo.Record{{Offset: 0}, {Offset: 1}, {Offset: 2}})
	require.False(t, l.Full())
	l.Feed([]*kgo.Record{{Offset: 3}})
	require.True(t, l.Full())
	(<-items).Finish()
	require.True(t, l.Full(), "three of four are no room yet")
	require.Empty(t, room)
	(<-items).Finish()
	require.False(t, l.Full())
	require.Len(t, room, 1)
	(<-items).Finish()
	require.Len(t, room, 1, "room is told once")
}
