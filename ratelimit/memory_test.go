package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/ratelimit"
)

func TestMemory_IdleKeysAreForgotten(t *testing.T) {
	t.Parallel()
	for _, mode := range []ratelimit.Mode{ratelimit.Together, ratelimit.NestJS} {
		synctest.Test(t, func(t *testing.T) {
			m := &ratelimit.Memory{}
			l := &ratelimit.Limiter{Tiers: tiers(), Store: m, Mode: mode}
			for i := range 100_000 {
				require.True(t, allow(t, l, strconv.Itoa(i)))
			}
			require.Equal(t, 100_000, m.Keys())
			time.Sleep(90*s - 1)
			allow(t, l, "0")
			require.Equal(t, 100_000, m.Keys(), "they still matter")
			time.Sleep(time.Nanosecond)
			for i := range 100_000 {
				allow(t, l, strconv.Itoa(i%3))
			}
			require.LessOrEqual(t, m.Keys(), 3, "each event removes some, in parts of the Memory without events too")
		})
	}
}

// A key that is forgotten was as good as new: with forgetting and without, the
// same is allowed.
func TestMemory_ForgettingChangesNoDecision(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		forgets := &ratelimit.Limiter{Tiers: tiers()}
		keeps := map[string]*ratelimit.Limiter{}
		rng := rand.New(rand.NewPCG(1, 2))
		for range 20_000 {
			key := strconv.Itoa(rng.IntN(50))
			if keeps[key] == nil {
				keeps[key] = &ratelimit.Limiter{Tiers: tiers()}
			}
			cost := rng.IntN(4)
			got, err := forgets.Take(t.Context(), key, cost)
			require.NoError(t, err)
			want, err := keeps[key].Take(t.Context(), key, cost)
			require.NoError(t, err)
			require.Equal(t, want.Tiers, got.Tiers)
			require.Equal(t, want.Wait, got.Wait)
			time.Sleep(time.Duration(rng.IntN(3)*rng.IntN(500)) * ms)
		}
	})
}

func TestMemory_AtMaxKeysTheOldestIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &ratelimit.Memory{MaxKeys: 3}
		l := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Limit: 1, Per: 60 * s}}, Store: m}
		for _, key := range []string{"a", "b", "c"} {
			require.True(t, allow(t, l, key))
			time.Sleep(s)
		}
		require.True(t, allow(t, l, "d"))
		require.Equal(t, 3, m.Keys())
		require.False(t, allow(t, l, "b"))
		require.False(t, allow(t, l, "c"))
		require.True(t, allow(t, l, "a"), "it was forgotten, and takes the place of b")
		require.True(t, allow(t, l, "b"))
		time.Sleep(59 * s)
		require.True(t, allow(t, l, "e"))
		require.False(t, allow(t, l, "a"))
	})
}

func TestMemory_AtMaxKeysItMayRefuseInstead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &ratelimit.Memory{MaxKeys: 2, Full: ratelimit.RefuseNew}
		l := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Limit: 1, Per: 60 * s}}, Store: m}
		require.True(t, allow(t, l, "a"))
		time.Sleep(s)
		require.True(t, allow(t, l, "b"))
		_, err := l.Allow(t.Context(), "c")
		require.ErrorIs(t, err, ratelimit.ErrFull)
		require.ErrorIs(t, err, ratelimit.ErrStore)
		require.False(t, allow(t, l, "a"), "those that are known are decided on")
		time.Sleep(59 * s)
		require.True(t, allow(t, l, "c"), "a does not matter any more")
		_, err = l.Allow(t.Context(), "d")
		require.ErrorIs(t, err, ratelimit.ErrFull)
	})
}

// Whoever makes up keys gets a Memory of MaxKeys, whatever he does.
func TestMemory_AnExplosionOfKeysIsBounded(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, 100, 10_000} {
		m := &ratelimit.Memory{MaxKeys: most}
		l := &ratelimit.Limiter{Tiers: tiers(), Store: m}
		var all sync.WaitGroup
		for g := range 4 {
			all.Go(func() {
				for i := range 10_000 {
					if ok, err := l.Allow(context.Background(), fmt.Sprint(g, "/", i)); !ok || err != nil {
						t.Error("refused", err)
					}
				}
			})
		}
		all.Wait()
		require.LessOrEqual(t, m.Keys(), most+4, "each of four may be one over while it makes room")
		require.GreaterOrEqual(t, m.Keys(), most*9/10)
	}
}

func TestMemory_LongKeysAreKeptShort(t *testing.T) {
	t.Parallel()
	l := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Limit: 1, Per: time.Hour}}}
	before := heap()
	for i := range 100 {
		key := strings.Repeat("x", 1<<20) + strconv.Itoa(i)
		require.True(t, allow(t, l, key))
		require.False(t, allow(t, l, key))
		require.True(t, allow(t, l, key[1:]), "it is another one")
		require.True(t, allow(t, l, key[len(key)-1-len(strconv.Itoa(i)):]), "so is a short one, cut out of a long text")
	}
	require.Less(t, int64(heap())-int64(before), int64(50<<20))
}

func TestMemory_LimitersThatShareOneCountForThemselves(t *testing.T) {
	t.Parallel()
	m := &ratelimit.Memory{}
	one := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Limit: 1, Per: time.Hour}}, Store: m}
	two := &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Limit: 2, Per: time.Minute}, {Name: "b", Limit: 9, Per: time.Hour}}, Store: m}
	require.True(t, allow(t, one, "k"))
	require.False(t, allow(t, one, "k"))
	require.True(t, allow(t, two, "k"))
	require.True(t, allow(t, two, "k"))
	require.False(t, allow(t, two, "k"))
	require.Equal(t, 2, m.Keys())
}

// The Store interface is enough for a store of one's own around another one.
type counting struct {
	ratelimit.Memory
	asked atomic.Int64
}

func (c *counting) Take(ctx context.Context, r *ratelimit.Rules, key string, cost int) (ratelimit.Decision, error) {
	c.asked.Add(1)
	if key == "barred" {
		return ratelimit.Decision{}, errors.New("barred")
	}
	return c.Memory.Take(ctx, r, key, cost)
}

func TestStore_OnesOwn(t *testing.T) {
	t.Parallel()
	c := &counting{}
	l := &ratelimit.Limiter{Tiers: tiers(), Store: c}
	for i := range 5 {
		require.Equal(t, i < 3, allow(t, l, "k"))
	}
	require.EqualValues(t, 5, c.asked.Load())
	_, err := l.Allow(t.Context(), "barred")
	require.ErrorContains(t, err, "barred")
	d, err := l.Take(t.Context(), "k", 1)
	require.NoError(t, err)
	require.Equal(t, []string{"short"}, d.Refused())
}
