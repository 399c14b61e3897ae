package ratelimit

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// nestStorage is the throttler's storage of one key and tier, after what
// throttler.service.ts of version 6.5.1 does, with its timers as a list.
type nestStorage struct {
	totalHits int
	timers    []instant // when a hit is taken off again
	expiresAt instant
	blockedAt instant // when the block is over
	isBlocked bool
	exists    bool
}

func (s *nestStorage) increment(now instant, t *Tier) (hits int, reset time.Duration, blocked bool, block time.Duration) {
	s.timers = slices.DeleteFunc(s.timers, func(at instant) bool {
		if at <= now {
			s.totalHits--
			return true
		}
		return false
	})
	if !s.exists {
		s.exists, s.expiresAt = true, now.plus(t.Per)
	}
	if s.expiresAt <= now {
		s.expiresAt = now.plus(t.Per)
	}
	fire := func() {
		s.totalHits++
		s.timers = append(s.timers, now.plus(t.Per))
	}
	if !s.isBlocked {
		fire()
	}
	if s.totalHits > t.Limit && !s.isBlocked {
		s.isBlocked, s.blockedAt = true, now.plus(t.Block)
	}
	if s.isBlocked && s.blockedAt <= now {
		s.isBlocked, s.totalHits, s.timers = false, 0, nil
		fire()
	}
	return s.totalHits, now.until(s.expiresAt), s.isBlocked, now.until(s.blockedAt)
}

// nestGuard is what the guard makes of it: tier by tier, up to the first that is
// blocked.
func nestGuard(tiers []nestStorage, now instant, r *Rules) (d Decision) {
	for i := range r.Tiers {
		hits, reset, blocked, block := tiers[i].increment(now, &r.Tiers[i])
		if blocked {
			d.Tiers[i] = Left{Asked: true, Refused: true, Reset: block}
			d.OK, d.Wait = false, block
			return d
		}
		d.OK = true
		d.Tiers[i] = Left{Asked: true, Remaining: max(0, r.Tiers[i].Limit-hits), Reset: reset}
	}
	return d
}

func nestRules(tiers ...Tier) *Rules {
	r, faults := (&Limiter{Tiers: tiers, Mode: NestJS}).rules()
	if len(faults) > 0 {
		panic(faults)
	}
	return r
}

func TestThrottle_IsExactlyTheThrottler(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 3))
		tiers := someTiers(rng)
		for i := range tiers {
			if rng.IntN(3) == 0 {
				tiers[i].Block = time.Duration(1+rng.IntN(60)) * time.Millisecond
			}
		}
		r := nestRules(tiers...)
		now := instant(rng.Int64N(1000))
		ours, theirs := newThrottles(now, r), make([]nestStorage, len(r.Tiers))
		for step := range 500 {
			now = now.plus(time.Duration(rng.IntN(4)) * time.Duration(rng.IntN(4)) * 500 * time.Microsecond)
			var got Decision
			ours.take(now, 1, r, &got)
			require.Equal(t, nestGuard(theirs, now, r), got, "seed %d, step %d, tiers %+v", seed, step, r.Tiers)
		}
	}
}

// The seed's limits: the fourth hit blocks for five seconds, whatever leaves the
// window meanwhile, and what the shorter tiers counted stays counted.
func TestThrottle_ARefusedHitBlocksForTheTiersLength(t *testing.T) {
	t.Parallel()
	const s = time.Second
	r := nestRules(Tier{Name: "short", Limit: 3, Per: 5 * s}, Tier{Name: "medium", Limit: 10, Per: 20 * s})
	k := newThrottles(0, r)
	for _, row := range []struct {
		at   time.Duration
		ok   bool
		wait time.Duration
	}{
		{0, true, 0},
		{1 * s, true, 0},
		{4 * s, true, 0},
		{4 * s, false, 5 * s},
		{5 * s, false, 4 * s}, // one has left the window; it does not help
		{8 * s, false, 1 * s},
		{9 * s, true, 0}, // the block is over, and short empty
		{9 * s, true, 0},
		{9 * s, true, 0},
		{9 * s, false, 5 * s},
	} {
		var d Decision
		k.take(instant(row.at), 1, r, &d)
		require.Equal(t, row.ok, d.OK, "%v", row.at)
		require.Equal(t, row.wait, d.Wait, "%v", row.at)
		require.Equal(t, row.ok, d.Tiers[1].Asked, "medium is not asked where short refuses")
	}
}
