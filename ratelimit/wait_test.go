package ratelimit_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/ratelimit"
)

func TestWait_ReturnsWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &ratelimit.Limiter{Tiers: tiers()}
		began := time.Now()
		var at []time.Duration
		for range 12 {
			require.NoError(t, l.Wait(t.Context(), "k"))
			at = append(at, time.Since(began))
		}
		require.Equal(t, []time.Duration{0, 0, 0, 5 * s, 5 * s, 5 * s, 10 * s, 10 * s, 10 * s, 15 * s, 20 * s, 20 * s}, at)
	})
}

func TestWait_InTheOrderInWhichTheyCame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Limit: 2, Per: s}}}
		var mu sync.Mutex
		var got []int
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				cost := 1
				if i%5 == 0 {
					cost = 2 // the small ones do not overtake it
				}
				if err := l.WaitFor(t.Context(), "k", cost); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				got = append(got, i)
			})
			synctest.Wait()
		}
		began := time.Now()
		all.Wait()
		require.Equal(t, 29*s, time.Since(began), "60 of cost, 2 each second, the first at once")
		require.IsIncreasing(t, got)
	})
}

func TestWait_EndsWithItsContextAndCountsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Limit: 1, Per: 10 * s}}}
		began := time.Now()
		require.NoError(t, l.Wait(t.Context(), "k"))
		cause := errors.New("enough")
		var all sync.WaitGroup
		ends := func(after time.Duration) {
			all.Go(func() {
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(after, func() { cancel(cause) })
				if err := l.Wait(ctx, "k"); !errors.Is(err, cause) {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		ends(3 * s) // the first of the line
		ends(5 * s) // the second, which is first by then
		ends(4 * s) // in the middle
		all.Go(func() {
			if err := l.Wait(t.Context(), "k"); err != nil || time.Since(began) != 10*s {
				t.Error("the last", err, time.Since(began))
			}
		})
		all.Wait()
		require.False(t, allow(t, l, "k"))
		time.Sleep(10 * s)
		require.True(t, allow(t, l, "k"))
	})
}

func TestWait_ADeadlineThatComesTooEarlyIsSaidAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &ratelimit.Limiter{Name: "api", Tiers: tiers()}
		for range 3 {
			require.NoError(t, l.Wait(t.Context(), "k"))
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*s-1)
		defer cancel()
		err := l.Wait(ctx, "k")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		limit, ok := errors.AsType[*ratelimit.LimitError](err)
		require.True(t, ok)
		require.Equal(t, 5*s, limit.RetryAfter())
		require.EqualError(t, err, "rate limit api: tier short has room in 5s: context deadline exceeded")
		require.Equal(t, began, time.Now())
		ctx, cancel = context.WithTimeout(t.Context(), 5*s)
		defer cancel()
		require.NoError(t, l.Wait(ctx, "k"))
	})
}

// Only the first of a line asks the store: a thousand who wait are not a
// thousand questions at each turn.
func TestWait_OnlyTheFirstOfALineAsks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &counting{}
		l := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Limit: 10, Per: s}}, Store: c}
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() {
				if err := l.Wait(t.Context(), "k"); err != nil {
					t.Error(err)
				}
			})
		}
		began := time.Now()
		all.Wait()
		require.Equal(t, 99*s, time.Since(began))
		require.Less(t, c.asked.Load(), int64(2200), "1000 that pass, 99 that wait, and some that came before there was a line")
	})
}

func TestWait_AStoreThatFailsMeanwhileEndsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		var m ratelimit.Memory
		l := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Limit: 1, Per: 10 * s}}}
		l.Store = storeThat{func(ctx context.Context, r *ratelimit.Rules, key string, cost int) (ratelimit.Decision, error) {
			if down.Load() {
				return ratelimit.Decision{}, io.ErrUnexpectedEOF
			}
			return m.Take(ctx, r, key, cost)
		}}
		require.NoError(t, l.Wait(t.Context(), "k"))
		time.AfterFunc(s, func() { down.Store(true) })
		require.ErrorIs(t, l.Wait(t.Context(), "k"), ratelimit.ErrStore)
	})
}

type storeThat struct {
	take func(context.Context, *ratelimit.Rules, string, int) (ratelimit.Decision, error)
}

func (s storeThat) Take(ctx context.Context, r *ratelimit.Rules, key string, cost int) (ratelimit.Decision, error) {
	return s.take(ctx, r, key, cost)
}
