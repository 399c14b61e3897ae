package ratelimit

import "time"

// An instant is nanoseconds from some origin, the same for all of a log.
type instant int64

func (i instant) plus(d time.Duration) instant { return i + instant(d) }

func (i instant) until(later instant) time.Duration { return time.Duration(later - i) }

// event is one entry of a log. What it cost is the difference of its total to
// that of the entry before it, so that any stretch of the log is a subtraction,
// and leaving an entry out counts its cost at the time of the next one.
type event struct {
	at    instant
	total uint64 // of all costs up to here, this one too; it may wrap around
}

// log has the events of one key in the order of time: a ring. It knows nothing
// of clocks or locks. The zero log is empty.
type log struct {
	ring    []event
	head, n uint32
	base    uint64 // the total before the first entry
}

// index is where the i-th oldest entry is.
func (l *log) index(i uint32) uint32 {
	if i += l.head; i >= uint32(len(l.ring)) {
		i -= uint32(len(l.ring))
	}
	return i
}

// before is the total before the i-th entry.
func (l *log) before(i uint32) uint64 {
	if i == 0 {
		return l.base
	}
	return l.ring[l.index(i-1)].total
}

// total is that of all events.
func (l *log) total() uint64 { return l.before(l.n) }

// last is when the newest event was, or now for an empty log.
func (l *log) last(now instant) instant {
	if l.n == 0 {
		return now
	}
	return l.ring[l.index(l.n-1)].at
}

// after returns the first entry later than edge.
func (l *log) after(edge instant) uint32 {
	low, high := uint32(0), l.n
	for low < high {
		middle := (low + high) / 2
		if l.ring[l.index(middle)].at <= edge {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// spent returns the first entry, from some entry on, with which cost has been
// spent since.
func (l *log) spent(from uint32, cost uint64) uint32 {
	base := l.before(from)
	low, high := from, l.n-1
	for low < high {
		middle := (low + high) / 2
		if l.ring[l.index(middle)].total-base < cost {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// trim forgets what is not later than edge.
func (l *log) trim(edge instant) {
	for l.n > 0 && l.ring[l.head].at <= edge {
		l.base = l.ring[l.head].total
		l.head = l.index(1)
		l.n--
	}
}

// add notes an event, which is not earlier than the last one. Where there are
// as many entries as may be it first thins them.
func (l *log) add(at instant, cost uint64, r *Rules) {
	if int(l.n) >= r.MaxEvents {
		l.thin(at, r)
	}
	total := l.total() + cost
	if int(l.n) == len(l.ring) {
		l.grow(min(max(1, 2*len(l.ring)), r.MaxEvents))
	}
	l.n++
	l.ring[l.index(l.n-1)] = event{at, total}
}

func (l *log) grow(size int) {
	ring := make([]event, size)
	k := copy(ring, l.ring[l.head:])
	copy(ring[k:], l.ring[:l.head])
	l.ring, l.head = ring, 0
}

// thin makes one entry of all that lie in the same cell of a grid, at the time
// of the last of them. How wide cells are depends on the next window whose edge
// the events are to pass, of which they are a 2*tiers/MaxEvents-th: so less than
// half of the entries and 2 for each tier are left. To thin again changes nothing
// within cells of the same width: an event is moved by at most one cell for each
// tier.
func (l *log) thin(now instant, r *Rules) {
	kept, tier := uint32(0), len(r.Tiers)-1
	for i := uint32(0); i < l.n; i++ {
		e := l.ring[l.index(i)]
		for tier > 0 && e.at > now.plus(-r.Tiers[tier-1].Per) {
			tier--
		}
		if i+1 < l.n {
			next, cell := l.ring[l.index(i+1)].at, instant(r.cell(tier))
			inside := tier > 0 && next > now.plus(-r.Tiers[tier-1].Per) // of the next shorter window
			if !inside && e.at/cell == next/cell {
				continue
			}
		}
		l.ring[l.index(kept)] = e
		kept++
	}
	l.n = kept
}

// take decides on an event under all tiers together, and adds it if none
// refuses. A now before the last event is one that lost a race for the lock: it
// counts as at that event. Tiers are in the order of Per. A cost of 0 adds
// nothing.
func (l *log) take(now instant, cost uint64, r *Rules, d *Decision) {
	now = max(now, l.last(now))
	l.trim(now.plus(-r.Tiers[len(r.Tiers)-1].Per))
	total := l.total()
	d.OK = true
	for i := range r.Tiers {
		t, left := &r.Tiers[i], &d.Tiers[i]
		first := l.after(now.plus(-t.Per))
		used, limit := total-l.before(first), uint64(t.Limit)
		left.Asked, left.Remaining, left.Reset = true, int(limit-min(used, limit)), 0 // thinned, it may use more
		if first < l.n {
			left.Reset = now.until(l.ring[l.index(first)].at.plus(t.Per))
		}
		if left.Refused = cost > 0 && used+cost > limit; left.Refused {
			d.OK = false
			enough := l.spent(first, used+cost-limit)
			d.Wait = max(d.Wait, now.until(l.ring[l.index(enough)].at.plus(t.Per)))
		}
	}
	if !d.OK || cost == 0 {
		return
	}
	l.add(now, cost, r)
	for i := range r.Tiers {
		left := &d.Tiers[i]
		if left.Remaining -= int(cost); left.Reset == 0 {
			left.Reset = r.Tiers[i].Per
		}
	}
}
