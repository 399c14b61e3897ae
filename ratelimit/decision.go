package ratelimit

import "time"

// Decision is what became of an event.
type Decision struct {
	// OK is whether it may happen, and has been counted.
	OK bool
	// Wait is how long until an event of the same cost may, if nothing else is
	// taken meanwhile. 0 when OK.
	Wait time.Duration
	// Tiers are those of [Rules], in that order, after the event.
	Tiers [MaxTiers]Left

	rules *Rules
}

// Left is what a tier has left.
type Left struct {
	// Asked is false beyond the last tier, and for tiers that were not asked
	// because one before them had refused (Mode NestJS).
	Asked bool
	// Refused is whether it was this tier that refused the event.
	Refused bool
	// Remaining is what may still be spent now.
	Remaining int
	// Reset is how long until more is there: until the oldest event leaves the
	// window. 0 when all of Limit is. In Mode NestJS, how long the block lasts, or
	// what the throttler shows, which is the end of a fixed window.
	Reset time.Duration
}

// Tier returns a tier that was asked, with what it has left; ok is false if it
// was not, or there is no i-th.
func (d *Decision) Tier(i int) (t Tier, left Left, ok bool) {
	if d.rules == nil || i < 0 || i >= len(d.rules.Tiers) || !d.Tiers[i].Asked {
		return Tier{}, Left{}, false
	}
	return d.rules.Tiers[i], d.Tiers[i], true
}

// Refused are the names of the tiers that refused the event, the shortest
// first.
func (d *Decision) Refused() (names []string) {
	for i := range d.Tiers {
		if t, left, ok := d.Tier(i); ok && left.Refused {
			names = append(names, t.Name)
		}
	}
	return names
}

// Least returns the tier that has least left, the longest of several: what
// the RateLimit header reports. ok is false if no tier was asked.
func (d *Decision) Least() (t Tier, left Left, ok bool) {
	for i := range d.Tiers {
		if each, l, asked := d.Tier(i); asked && (!ok || l.Remaining <= left.Remaining) {
			t, left, ok = each, l, true
		}
	}
	return t, left, ok
}
