package retry

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxTiers bounds the delay topics of one topic: each is read for itself.
const maxTiers = 20

// tier is one of the delays that records wait for.
type tier struct {
	delay time.Duration
	label string // as in the topic's name
}

func tierOf(delay time.Duration) tier { return tier{delay, label(delay)} }

// tiers returns the distinct waits of the policy and its rules, rounded up to
// milliseconds, the shortest first.
func (p Policy) tiers() (tiers []tier, err error) {
	for name, s := range p.schedules() {
		var sum, before time.Duration
		for n, wait := range s.waits() {
			if n >= s.attempts || wait == before { // it grows no more
				break
			}
			before = wait
			// The first wait has a topic in any case, for a shorter one that is
			// asked for with After.
			if sum = add(sum, wait); n > 1 && p.Within > 0 && sum > p.Within {
				break
			}
			tiers = insert(tiers, wait)
			if len(tiers) > maxTiers {
				return nil, fmt.Errorf("%s has more than %d different waits, and each is a topic: set Max, or a larger Multiplier", name, maxTiers)
			}
		}
	}
	return tiers, nil
}

// insert adds a tier in its place, unless it is there.
func insert(tiers []tier, delay time.Duration) []tier {
	t := tierOf(roundUp(delay))
	i, found := slices.BinarySearchFunc(tiers, t, func(a, b tier) int { return cmp.Compare(a.delay, b.delay) })
	if found {
		return tiers
	}
	return slices.Insert(tiers, i, t)
}

// roundUp makes whole milliseconds, at least one, of a delay.
func roundUp(d time.Duration) time.Duration {
	whole := d.Truncate(time.Millisecond)
	if whole < d || whole == 0 {
		whole += time.Millisecond
	}
	return whole
}

// pick returns the tier for a record that may be tried again after wait: the
// longest that is not longer, or one that is longer by a tenth at most, else
// the shortest of all. A record may be due in a tier before its delay is over:
// it then waits for those before it, but none waits for it.
func pick(tiers []tier, wait time.Duration) tier {
	best, wait := tiers[0], max(wait, 0)
	for _, t := range tiers[1:] {
		if t.delay <= add(wait, wait/10) {
			best = t
		}
	}
	return best
}

// label writes a delay of whole milliseconds as short as can be: 500ms, 1500ms,
// 1s, 1m30s, 2h.
func label(d time.Duration) string {
	if d%time.Second != 0 {
		return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
	}
	var b strings.Builder
	for _, unit := range []struct {
		length time.Duration
		letter byte
	}{{time.Hour, 'h'}, {time.Minute, 'm'}, {time.Second, 's'}} {
		if n := d / unit.length; n > 0 {
			b.WriteString(strconv.FormatInt(int64(n), 10))
			b.WriteByte(unit.letter)
			d %= unit.length
		}
	}
	return b.String()
}
