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
	parked int  // of those, how many wait
	held   bool // it has a slot
	coming chan struct{}
	met    *meeting // once one has arrived, or a unit of several waits
}

// meeting is where the items of a unit come together for one call.
type meeting struct {
	soon    map[*Item]time.Time // until when those wait that are parked
	arrived []*Item
	call    func([]*Item)
	called  chan struct{}
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
	it.unit = u
	if it.Refused != nil {
		return // it is in hand since its first run
	}
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
	u.live = len(u.items)
	if len(u.items) == 1 {
		l.Work(l.ctx, u.items[0])
		return
	}
	var all sync.WaitGroup
	for _, it := range u.items {
		all.Go(func() {
			defer u.leave()
			l.Work(l.ctx, it)
		})
	}
	all.Wait()
}

func (u *Unit) leave() {
	u.mu.Lock()
	u.live--
	u.rest()
	u.meet()
	u.mu.Unlock()
}

// rest gives up the slot when nothing of the unit is running.
func (u *Unit) rest() {
	if u.held && u.live > 0 && u.parked == u.live {
		u.held = false
		u.lane.Pool.release()
	}
}

// Park gives the record's place to another until Unpark. Drained is closed
// when it must not wait any longer.
func (it *Item) Park(until time.Time) (drained <-chan struct{}) {
	u, l := it.unit, it.lane
	l.mu.Lock()
	l.parked++
	l.mu.Unlock()
	u.mu.Lock()
	u.parked++
	if len(u.items) > 1 {
		u.meeting().soon[it] = until
	}
	u.rest()
	u.meet()
	u.mu.Unlock()
	return l.drained
}

// Unpark takes the place back.
func (it *Item) Unpark() {
	u, l := it.unit, it.lane
	u.mu.Lock()
	for !u.held {
		if ch := u.coming; ch != nil {
			u.mu.Unlock()
			<-ch
			u.mu.Lock()
			continue
		}
		ch := make(chan struct{})
		u.coming = ch
		u.mu.Unlock()
		got := l.Pool.acquire(l.ctx, l.drained)
		u.mu.Lock()
		u.coming, u.held = nil, got
		close(ch)
		if !got {
			break // it ends soon, and does so without a slot
		}
	}
	u.parked--
	if u.met != nil {
		delete(u.met.soon, it)
	}
	u.mu.Unlock()
	l.mu.Lock()
	l.parked--
	l.mu.Unlock()
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
	go func() {
		defer close(called)
		call(arrived)
	}()
}
