package lane

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Unit is one or more records that are begun together and share a slot of the
// Pool, which they give up while all of them wait.
type Unit struct {
	lane          *Lane
	items         []*Item
	one           [1]*Item
	since         int64 // when it was first seen in hand, in nanoseconds since 1970
	before, after *Unit // in the lane's ring

	mu     sync.Mutex
	live   int  // items whose Work has not returned
	parked int  // of those, how many wait, but for those in a call
	held   bool // it has a slot
	over   bool // all have returned: the slot is no longer the unit's
	coming chan struct{}
	met    *meeting // once one has arrived, or a unit of several waits
}

// meeting is where the items of a unit come together for one call.
type meeting struct {
	soon    map[*Item]time.Time // until when those wait that are parked
	arrived []*Item
	call    func([]*Item)
	called  chan struct{}
	within  []*Item // those of the call that runs
	parked  int     // how many of those wait: the call waits when one does
}

// meeting returns that of the unit.
func (u *Unit) meeting() *meeting {
	if u.met == nil {
		u.met = &meeting{soon: map[*Item]time.Time{}, called: make(chan struct{})}
	}
	return u.met
}

func (u *Unit) add(it *Item) {
	u.items = append(u.items, it)
	it.unit, it.atWork, it.era, it.spoiled = u, true, u.lane.era, false
	if it.inHand {
		return // since its first run
	}
	it.inHand = true
	u.lane.begun++
	if ln := it.line; ln != nil {
		if it.before = ln.last; it.before != nil {
			it.before.after = it
		}
		ln.last = it
	}
}

// run calls Work for each record.
func (u *Unit) run() {
	l := u.lane
	if len(u.items) == 1 {
		l.Work(l.ctx, u.items[0])
		return
	}
	var all sync.WaitGroup
	for _, it := range u.items {
		all.Go(func() {
			defer u.leave(it)
			l.Work(l.ctx, it)
		})
	}
	all.Wait()
}

// leave counts an item of several whose Work has returned.
func (u *Unit) leave(it *Item) {
	u.mu.Lock()
	u.live--
	u.unpark(it)
	u.rest()
	u.meet()
	u.mu.Unlock()
}

// end says that all of the unit has returned, and whether it has a slot. It
// neither gives one up nor takes one any more, whatever handlers left behind.
func (u *Unit) end() (held bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.over = true
	for _, it := range u.items {
		it.parking = nil
	}
	return u.held
}

// waiting is how many of the records wait.
func (u *Unit) waiting() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	if m := u.met; m != nil && m.parked > 0 {
		return u.parked + len(m.within)
	}
	return u.parked
}

// rest gives up the slot when nothing of the unit is running.
func (u *Unit) rest() {
	resting := u.parked
	if m := u.met; m != nil {
		if len(m.arrived) > 0 {
			return
		}
		if m.parked > 0 {
			resting += len(m.within)
		}
	}
	if u.held && u.live > 0 && resting == u.live {
		u.held = false
		u.lane.Pool.release()
	}
}

// Parking is the time that an item has given its place away.
type Parking struct {
	item *Item
	unit *Unit
}

// Park gives the record's place to another until the Parking ends, or until the
// one that began last does where there are several. Of those that came together in Arrive all wait when one does.
// Until is when it is likely to end.
func (it *Item) Park(until time.Time) *Parking {
	u := it.unit
	p := &Parking{item: it, unit: u}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.over {
		return p
	}
	again := it.parking != nil // while the one before still waits for its place
	it.parking = p
	if again {
		return p
	}
	if it.inCall {
		u.met.parked++
	} else {
		u.parked++
		if len(u.items) > 1 {
			u.meeting().soon[it] = until
		}
	}
	u.rest()
	u.meet()
	return p
}

// unpark forgets that an item waits.
func (u *Unit) unpark(it *Item) {
	switch {
	case it.parking == nil:
		return
	case it.inCall:
		u.met.parked--
	default:
		u.parked--
		if u.met != nil {
			delete(u.met.soon, it)
		}
	}
	it.parking = nil
}

// Drained is closed when the record must not wait any longer.
func (it *Item) Drained() <-chan struct{} { return it.lane.drained }

// End takes the place back. It reports whether it has: without it, because the
// lane drains and there is none, the work is to be cut short. Where Work has
// returned in the meantime there is nothing to take back.
func (p *Parking) End() bool {
	it, u, l := p.item, p.unit, p.unit.lane
	u.mu.Lock()
	defer u.mu.Unlock()
	got := true
	for got && it.parking == p && !u.held {
		if ch := u.coming; ch != nil {
			u.mu.Unlock()
			<-ch
			u.mu.Lock()
			continue
		}
		ch := make(chan struct{})
		u.coming = ch
		u.mu.Unlock()
		got = l.Pool.acquire(l.ctx, l.drained)
		u.mu.Lock()
		u.coming = nil
		close(ch)
		switch {
		case got && u.over:
			l.Pool.release()
		case got:
			u.held = true
		}
	}
	if it.parking == p {
		u.unpark(it)
	}
	u.rest() // if Work has returned meanwhile, and the others wait
	return got
}

// together is how much later an item of a unit may be due and still be waited
// for: those that failed together are tried again together.
const together = 5 * time.Millisecond

// Arrive waits for the other items of the unit that are at work, until each of
// them has arrived too, waits for longer, or has ended. Then call is called
// once with those that have, in the order of the partition, and Arrive
// returns. All items of a unit give the same call.
func (it *Item) Arrive(call func([]*Item)) {
	u := it.unit
	u.mu.Lock()
	m := u.meeting()
	m.arrived, m.call = append(m.arrived, it), call
	called := m.called
	u.meet()
	u.mu.Unlock()
	<-called
}

// meet makes the call when all have arrived who will.
func (u *Unit) meet() {
	m := u.met
	if m == nil || len(m.arrived) == 0 || u.live-u.parked > len(m.arrived) {
		return
	}
	for _, until := range m.soon {
		if time.Until(until) < together {
			return
		}
	}
	arrived, call, called := m.arrived, m.call, m.called
	m.arrived, m.called = nil, make(chan struct{})
	slices.SortFunc(arrived, func(a, b *Item) int { return cmp.Compare(a.seq, b.seq) })
	m.within = arrived
	for _, it := range arrived {
		it.inCall = true
	}
	go func() {
		defer func() { // also if call ends its goroutine
			u.mu.Lock()
			for _, it := range arrived {
				u.unpark(it) // by a goroutine that the call left behind
				it.inCall = false
			}
			m.within = nil
			u.mu.Unlock()
			close(called)
		}()
		call(arrived)
	}()
}
