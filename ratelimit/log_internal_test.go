package ratelimit

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// naive is the reference: all events, and sums over them.
type naive struct{ events []spent }

type spent struct {
	at   instant
	cost int
}

// used is what lies within a window that ends now, and the first event in it.
func (m *naive) used(now instant, per time.Duration) (sum int, first *spent) {
	for i, e := range m.events {
		if e.at > now.plus(-per) {
			if first == nil {
				first = &m.events[i]
			}
			sum += e.cost
		}
	}
	return sum, first
}

func (m *naive) fits(now instant, cost int, tiers []Tier) bool {
	for _, t := range tiers {
		if sum, _ := m.used(now, t.Per); sum+cost > t.Limit {
			return false
		}
	}
	return true
}

func (m *naive) take(now instant, cost int, tiers []Tier) (d Decision) {
	if d.OK = cost == 0 || m.fits(now, cost, tiers); d.OK && cost > 0 {
		m.events = append(m.events, spent{now, cost})
	}
	for i, t := range tiers {
		sum, first := m.used(now, t.Per)
		left := Left{Asked: true, Remaining: t.Limit - sum, Refused: !d.OK && sum+cost > t.Limit}
		if first != nil {
			left.Reset = now.until(first.at.plus(t.Per))
		}
		d.Tiers[i] = left
	}
	if !d.OK {
		d.Wait = 1 << 62
		for _, e := range m.events { // room comes only when something leaves
			for _, t := range tiers {
				if at := e.at.plus(t.Per); at > now && m.fits(at, cost, tiers) {
					d.Wait = min(d.Wait, now.until(at))
				}
			}
		}
	}
	return d
}

func ruled(tiers ...Tier) *Rules {
	r, faults := (&Limiter{Tiers: tiers}).rules()
	if len(faults) > 0 {
		panic(faults)
	}
	return r
}

func someTiers(rng *rand.Rand) (tiers []Tier) {
	for i := range 1 + rng.IntN(4) {
		tiers = append(tiers, Tier{Name: fmt.Sprint("t", i), Limit: 1 + rng.IntN(30), Per: time.Duration(1+rng.IntN(40)) * time.Millisecond})
	}
	return tiers
}

func TestLog_IsExactlyTheReferenceModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 1))
		r := ruled(someTiers(rng)...)
		least := r.Tiers[0].Limit
		for _, tier := range r.Tiers {
			least = min(least, tier.Limit)
		}
		var l log
		var m naive
		now := instant(rng.Int64N(1000) - 500)
		for step := range 400 {
			now = now.plus(time.Duration(rng.IntN(4)) * time.Duration(rng.IntN(4)) * 500 * time.Microsecond)
			cost := 1
			if rng.IntN(3) == 0 {
				cost = rng.IntN(least + 1)
			}
			var got Decision
			l.take(now, uint64(cost), r, &got)
			require.Equal(t, m.take(now, cost, r.Tiers), got, "seed %d, step %d, tiers %+v", seed, step, r.Tiers)
		}
	}
}

func FuzzLog(f *testing.F) {
	f.Add(uint8(3), uint8(5), uint8(10), uint8(20), []byte{0, 1, 0, 1, 0, 1, 3, 1, 9, 2})
	f.Add(uint8(1), uint8(1), uint8(1), uint8(1), []byte{0, 1, 1, 1, 2, 0})
	f.Fuzz(func(t *testing.T, limit1, per1, limit2, per2 uint8, steps []byte) {
		r := ruled(
			Tier{Name: "a", Limit: 1 + int(limit1), Per: time.Duration(1+int(per1)) * time.Millisecond},
			Tier{Name: "b", Limit: 1 + int(limit2), Per: time.Duration(1+int(per2)) * time.Millisecond},
		)
		var l log
		var m naive
		now := instant(0)
		for i := 0; i+1 < len(steps) && i < 400; i += 2 {
			now = now.plus(time.Duration(steps[i]) * time.Millisecond / 2)
			cost := min(int(steps[i+1]), r.Tiers[0].Limit, r.Tiers[1].Limit)
			var got Decision
			l.take(now, uint64(cost), r, &got)
			require.Equal(t, m.take(now, cost, r.Tiers), got)
		}
	})
}

func TestLog_TheEdgesOfAWindow(t *testing.T) {
	t.Parallel()
	const s = time.Second
	r := ruled(Tier{Name: "short", Limit: 2, Per: 5 * s}, Tier{Name: "long", Limit: 3, Per: 60 * s})
	var l log
	for _, row := range []struct {
		at   time.Duration
		ok   bool
		wait time.Duration
		why  string
	}{
		{0, true, 0, "empty"},
		{1 * s, true, 0, "short is full now"},
		{1 * s, false, 4 * s, "until the first of short leaves"},
		{5*s - 1, false, 1, "a nanosecond early"},
		{5 * s, true, 0, "at 5 s that of 0 s does not count any more; long is full"},
		{6 * s, false, 54 * s, "short has room, long not"},
		{60*s - 1, false, 1, "a nanosecond early for long"},
		{60 * s, true, 0, "that of 0 s left long"},
		{60 * s, false, 1 * s, "that of 1 s has not"},
		{200 * s, true, 0, "all left"},
	} {
		var d Decision
		l.take(instant(row.at), 1, r, &d)
		require.Equal(t, row.ok, d.OK, "%v: %s", row.at, row.why)
		require.Equal(t, row.wait, d.Wait, "%v: %s", row.at, row.why)
	}
}

// A refused event is taken from none of the tiers, however often it is tried.
func TestLog_ARefusedEventCostsNothing(t *testing.T) {
	t.Parallel()
	r := ruled(Tier{Name: "short", Limit: 1, Per: time.Second}, Tier{Name: "long", Limit: 5, Per: time.Minute})
	var l log
	var d Decision
	l.take(0, 1, r, &d)
	for range 1000 {
		d = Decision{}
		l.take(1, 1, r, &d)
		require.False(t, d.OK)
		require.Equal(t, 4, d.Tiers[1].Remaining)
	}
}

// Beyond MaxEvents neighbours become one: never too much is allowed, and what
// is refused needlessly is as little as Limiter.MaxEvents says.
func TestLog_ThinnedItNeverAllowsTooMuch(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 2))
		r := ruled(Tier{Name: "a", Limit: 40, Per: 20 * time.Millisecond}, Tier{Name: "b", Limit: 400, Per: 400 * time.Millisecond})
		r.MaxEvents = 64
		var l log
		var m naive
		longer := slices.Clone(r.Tiers) // by what MaxEvents says
		for i := range longer {
			longer[i].Per += longer[i].Per * 2 * 4 / 64
		}
		now, wrong := instant(0), 0
		for range 6000 {
			now = now.plus(time.Duration(rng.IntN(1000)) * time.Microsecond)
			fits := m.fits(now, 1, r.Tiers)
			var d Decision
			l.take(now, 1, r, &d)
			require.LessOrEqual(t, int(l.n), r.MaxEvents)
			require.LessOrEqual(t, len(l.ring), r.MaxEvents)
			switch {
			case d.OK:
				require.True(t, fits, "allowed too much")
				m.events = append(m.events, spent{now, 1})
			case fits:
				require.False(t, m.fits(now, 1, longer), "refused for longer than said")
				wrong++
			default:
				require.Positive(t, d.Wait)
			}
			if len(m.events) > 800 {
				m.events = m.events[100:]
			}
		}
		require.Positive(t, wrong, "nothing was thinned: this shows nothing")
	}
}

func TestLog_TotalsMayWrapAround(t *testing.T) {
	t.Parallel()
	r := ruled(Tier{Name: "a", Limit: 10, Per: time.Second})
	l := log{base: ^uint64(0) - 3}
	var m naive
	for i := range 200 {
		now := instant(i) * instant(70*time.Millisecond)
		var d Decision
		l.take(now, 2, r, &d)
		require.Equal(t, m.take(now, 2, r.Tiers), d)
	}
}
