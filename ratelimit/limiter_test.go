package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/ratelimit"
)

const (
	ms = time.Millisecond
	s  = time.Second
)

func tiers() []ratelimit.Tier {
	return []ratelimit.Tier{{Name: "short", Limit: 3, Per: 5 * s}, {Name: "medium", Limit: 10, Per: 20 * s}, {Name: "long", Limit: 25, Per: 90 * s}}
}

func allow(t testing.TB, l *ratelimit.Limiter, key string) bool {
	t.Helper()
	ok, err := l.Allow(t.Context(), key)
	require.NoError(t, err)
	return ok
}

func TestLimiter_TiersDecideTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &ratelimit.Limiter{Tiers: tiers()}
		began := time.Now()
		var at []time.Duration
		for time.Since(began) < 90*s {
			for allow(t, l, "k") {
				at = append(at, time.Since(began))
			}
			time.Sleep(s)
		}
		require.Equal(t, []time.Duration{0, 0, 0, 5 * s, 5 * s, 5 * s, 10 * s, 10 * s, 10 * s, 15 * s, 20 * s, 20 * s, 20 * s, 25 * s, 25 * s, 25 * s, 30 * s, 30 * s, 30 * s, 35 * s, 40 * s, 40 * s, 40 * s, 45 * s, 45 * s}, at)
		require.True(t, allow(t, l, "k"), "at 90 s those of 0 s have left")
		require.True(t, allow(t, l, "another"))
	})
}

func TestLimiter_TakeTellsWhatIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Name: "long", Limit: 8, Per: 60 * s}, {Name: "short", Limit: 5, Per: 10 * s}}}
		d, err := l.Take(t.Context(), "k", 0)
		require.NoError(t, err)
		require.True(t, d.OK)
		_, left, _ := d.Tier(0)
		require.Equal(t, ratelimit.Left{Asked: true, Remaining: 5}, left, "a cost of 0 asks; the shortest is first")
		d, err = l.Take(t.Context(), "k", 4)
		require.NoError(t, err)
		require.True(t, d.OK)
		time.Sleep(2 * s)
		d, err = l.Take(t.Context(), "k", 2)
		require.NoError(t, err)
		require.False(t, d.OK)
		require.Equal(t, 8*s, d.Wait)
		require.Equal(t, []string{"short"}, d.Refused())
		tier, left, ok := d.Least()
		require.True(t, ok)
		require.Equal(t, "short", tier.Name)
		require.Equal(t, ratelimit.Left{Asked: true, Refused: true, Remaining: 1, Reset: 8 * s}, left)
		d, err = l.Take(t.Context(), "k", 5)
		require.NoError(t, err)
		require.Equal(t, []string{"short", "long"}, d.Refused())
		require.Equal(t, 58*s, d.Wait, "the longest of both")
		_, _, ok = d.Tier(2)
		require.False(t, ok)
	})
}

func TestLimiter_ACostThatCanNeverPassIsAnErrorAndPermanent(t *testing.T) {
	t.Parallel()
	l := &ratelimit.Limiter{Name: "api", Tiers: []ratelimit.Tier{{Name: "short", Limit: 100, Per: s}, {Name: "long", Limit: 50, Per: 60 * s}}}
	for _, cost := range []int{51, 1 << 60, -1, -1 << 63} {
		_, err := l.Take(t.Context(), "k", cost)
		require.ErrorIs(t, err, wherry.ErrPermanent)
		require.ErrorIs(t, l.WaitFor(t.Context(), "k", cost), wherry.ErrPermanent)
	}
	_, err := l.Take(t.Context(), "k", 51)
	require.EqualError(t, err, "rate limit api: an event that costs 51 can never pass tier long, whose Limit is 50")
	_, err = l.Take(t.Context(), "k", -1)
	require.EqualError(t, err, "rate limit api: an event cannot cost -1")
	d, err := l.Take(t.Context(), "k", 50)
	require.NoError(t, err)
	require.True(t, d.OK, "nothing was counted")
}

// At one instant the order of events does not matter, so that goroutines side by
// side must get exactly what the reference gives to one after the other.
func TestLimiter_IsExactWithManyGoroutines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Name: "a", Limit: 7, Per: 10 * ms}, {Name: "b", Limit: 20, Per: 50 * ms}, {Name: "c", Limit: 100, Per: 400 * ms}}}
		keys := []string{"x", "y", "z"}
		allowed := map[string][]time.Time{}
		for step := range 300 {
			var got [3]atomic.Int64
			var all sync.WaitGroup
			for g := range 16 {
				all.Go(func() {
					for i := range 3 {
						n := (i + g) % 3
						if ok, err := l.Allow(context.Background(), keys[n]); ok && err == nil {
							got[n].Add(1)
						}
					}
				})
			}
			all.Wait()
			now := time.Now()
			for n, key := range keys {
				want := 16
				for _, tier := range l.Tiers {
					inside := 0
					for _, at := range allowed[key] {
						if now.Sub(at) < tier.Per {
							inside++
						}
					}
					want = min(want, tier.Limit-inside)
				}
				require.EqualValues(t, want, got[n].Load(), "step %d", step)
				for range want {
					allowed[key] = append(allowed[key], now)
				}
			}
			time.Sleep(time.Duration(step%7) * ms)
		}
	})
}

// In real time nobody knows the order; but of any Limit+1 events allowed the
// last was decided on at least Per after the first.
func TestLimiter_NoWindowSeesTooMuchInRealTime(t *testing.T) {
	t.Parallel()
	l := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Name: "a", Limit: 50, Per: 5 * ms}, {Name: "b", Limit: 400, Per: 60 * ms}}}
	noWindowSeesTooMuch(t, l.Tiers, 200*ms, 8, func(int) (bool, error) { return l.Allow(context.Background(), "k") })
}

func noWindowSeesTooMuch(t *testing.T, tiers []ratelimit.Tier, length time.Duration, goroutines int, allow func(g int) (bool, error)) {
	t.Helper()
	var mu sync.Mutex
	var before, after []time.Duration
	var all sync.WaitGroup
	began := time.Now()
	for g := range goroutines {
		all.Go(func() {
			for time.Since(began) < length {
				b := time.Since(began)
				ok, err := allow(g)
				a := time.Since(began)
				if err != nil {
					t.Error(err)
					return
				}
				if ok {
					mu.Lock()
					before, after = append(before, b), append(after, a)
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	checkWindows(t, tiers, before, after)
}

func checkWindows(t *testing.T, tiers []ratelimit.Tier, before, after []time.Duration) {
	t.Helper()
	slices.Sort(before)
	slices.Sort(after)
	require.NotEmpty(t, before)
	for _, tier := range tiers {
		for i := 0; i+tier.Limit < len(before); i++ {
			require.GreaterOrEqual(t, after[i+tier.Limit]-before[i], tier.Per, "tier %s: %d events within less", tier.Name, tier.Limit+1)
		}
	}
}

func TestLimiter_AllFaultsOfAConfigurationAtOnce(t *testing.T) {
	t.Parallel()
	l := &ratelimit.Limiter{
		Name: "api", Mode: 7, MaxEvents: 3, Store: &ratelimit.Redis{Prefix: "{x}", Timeout: -1},
		Tiers: []ratelimit.Tier{{Name: "a\n", Limit: 0, Per: 0}, {Name: "b", Limit: 1 << 41, Per: s, Block: s}, {Name: "B", Limit: 1, Per: -s}},
	}
	err := l.Check()
	for _, part := range []string{
		"ratelimit.Limiter api: ", "Mode 7 is none", "MaxEvents is 3", `tier "a\n": a name is printable`, `tier "a\n": Limit is 0`, `tier "a\n": Per is 0s`,
		`tier "b": Limit is 2199023255552`, `tier "b": Block is for`, `tier "B": another one`, `tier "B": Per is -1s`, "Redis.Eval is nil", "Redis.Prefix", "Redis.Timeout is -1ns",
	} {
		require.ErrorContains(t, err, part)
	}
	_, allowed := l.Allow(t.Context(), "k")
	require.Equal(t, err, allowed)
	require.Equal(t, err, l.Wait(t.Context(), "k"))
	require.Equal(t, err, l.Prepare(nil))
	_, err = (&ratelimit.HTTP{Limiter: l, IPv4: 33, IPv6: -1, Headers: 64}).Handler(nil)
	for _, part := range []string{"ratelimit.HTTP: ", "MaxEvents is 3", "IPv4 is 33", "IPv6 is -1", "Headers 64"} {
		require.ErrorContains(t, err, part)
	}
	require.ErrorContains(t, (&ratelimit.Limiter{}).Check(), "has 0 Tiers")
	require.ErrorContains(t, (&ratelimit.Limiter{Tiers: make([]ratelimit.Tier, 9)}).Check(), "has 9 Tiers")
	bad := &ratelimit.Memory{MaxKeys: -1, Full: 9}
	err = (&ratelimit.Limiter{Tiers: tiers(), Store: bad}).Check()
	require.ErrorContains(t, err, "MaxKeys is -1")
	require.ErrorContains(t, err, "Full 9 is none")
	require.NoError(t, (&ratelimit.Limiter{Tiers: []ratelimit.Tier{{Limit: 1, Per: s}}}).Check(), "a single tier needs no name")
}

// storeFunc is a Store made of a function.
type storeFunc func(ctx context.Context) error

func (f storeFunc) Take(ctx context.Context, _ *ratelimit.Rules, _ string, _ int) (ratelimit.Decision, error) {
	return ratelimit.Decision{OK: true}, f(ctx)
}

func TestLimiter_WithoutItsStoreItIsClosedUnlessItSaysOpen(t *testing.T) {
	t.Parallel()
	down := storeFunc(func(context.Context) error { return io.ErrUnexpectedEOF })
	closed := &ratelimit.Limiter{Name: "api", Tiers: tiers(), Store: down}
	ok, err := closed.Allow(t.Context(), "k")
	require.False(t, ok)
	require.ErrorIs(t, err, ratelimit.ErrStore)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.NotErrorIs(t, err, wherry.ErrPermanent)
	require.ErrorIs(t, closed.Wait(t.Context(), "k"), ratelimit.ErrStore)

	open := &ratelimit.Limiter{Tiers: tiers(), Store: down, FailOpen: true}
	for range 100 {
		require.True(t, allow(t, open, "k"))
	}
	require.NoError(t, open.Wait(t.Context(), "k"))
	_, err = open.Take(t.Context(), "k", 4)
	require.ErrorIs(t, err, wherry.ErrPermanent, "what can never pass does not")

	cause := errors.New("the caller went away")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	for _, l := range []*ratelimit.Limiter{open, closed} {
		ok, err = l.Allow(ctx, "k")
		require.False(t, ok, "a caller that goes away is not the store's failure")
		require.Equal(t, cause, err)
	}
}

func ExampleLimiter_Allow() {
	limit := &ratelimit.Limiter{Tiers: []ratelimit.Tier{
		{Name: "short", Limit: 3, Per: 5 * time.Second},
		{Name: "long", Limit: 25, Per: 90 * time.Second},
	}}
	for range 4 {
		ok, err := limit.Allow(context.Background(), "ada")
		fmt.Println(ok, err)
	}
	ok, _ := limit.Allow(context.Background(), "grace")
	fmt.Println("another key:", ok)
	// Output:
	// true <nil>
	// true <nil>
	// true <nil>
	// false <nil>
	// another key: true
}
