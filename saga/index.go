package saga

import (
	"cmp"
	"container/heap"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// index is what the owner of a partition keeps beside its part of the state
// topic: what is due and when, who waits to be admitted, who has ended. It has
// what is committed and nothing else, but for reserved. Its lock is the inner
// one wherever two are held.
type index struct {
	partition int32
	owns      func(x *index, yes bool)
	wake      func()                 // there is something to be done that the clock does not know of
	ends      func(p Phase)          // a saga ended just now
	known     func(version int) bool // there is code for it

	past past

	mu       sync.Mutex // never held over a call that blocks
	owned    bool
	live     map[string]*entry // all that has not ended
	timers   timers            // those of live that want a tick
	ticked   int               // ticks that are out
	queue    []*entry          // queued ones in order, and some that are it no longer
	admitted int               // admits that are out
	active   int
	queued   int
	early    int                 // events that wait
	reserved map[string]struct{} // places of sagas whose start is not committed yet

	ended  map[digest]ending
	recent recents
	claims map[digest]claim // ended ones that are being forgotten
	// Sweeps: before the offset first nothing is left of ended sagas but what was
	// asked for; -1 where there are none. firstEnd is when the one at first ended.
	first, firstEnd int64
	asked           int // to be forgotten, and not yet
}

// entry is a saga that has not ended.
type entry struct {
	id       string
	due      int64 // when it wants a tick, 0 never
	at       int64 // when one is sent: due, or later where one is out
	began    int64
	pos      int32 // in timers, -1 if not
	phase    Phase
	out      bool  // a tick is out
	admitted int64 // when an admit was sent that is out, 0 none
	events   uint16
}

// newIndex returns the index of a partition, which tells the clock c of itself
// while it is owned.
func newIndex(partition int32, c *clock, ends func(Phase), known func(version int) bool) *index {
	x := &index{partition: partition, owns: c.owns, wake: c.wake, ends: ends, known: known}
	x.Reset()
	return x
}

// Reset forgets all.
func (x *index) Reset() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.live, x.ended, x.reserved = map[string]*entry{}, map[digest]ending{}, map[string]struct{}{}
	x.timers, x.queue, x.recent = nil, nil, recents{}
	x.ticked, x.admitted, x.active, x.queued, x.early, x.asked, x.first = 0, 0, 0, 0, 0, 0, -1
}

// Owned tells whether records are handled.
func (x *index) Owned(yes bool) {
	x.mu.Lock()
	x.owned = yes
	clear(x.claims)
	clear(x.reserved)
	if yes {
		for _, e := range x.live { // what was sent before counts no more
			x.unsent(e)
		}
		// What was read back is in the order of its last records.
		slices.SortStableFunc(x.queue, func(a, b *entry) int { return cmp.Compare(a.began, b.began) })
	}
	x.mu.Unlock()
	x.owns(x, yes)
	x.wake()
}

// Take takes in a committed record. It keeps in memory what has not ended.
func (x *index) Take(r *kgo.Record) (keep bool) {
	if !isID(r.Key) {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.past.over(string(r.Key))
	old := x.live[string(r.Key)]
	x.unreserve(string(r.Key))
	if r.Value == nil {
		x.remove(old)
		if len(x.ended) > 0 {
			id := string(r.Key)
			delete(x.ended, digestOf(id))
			delete(x.claims, digestOf(id))
			x.asked = max(0, x.asked-1)
			x.recent.remove(id)
		}
		return false
	}
	phase, due, ended, from, events, err := peek(r.Value)
	if err != nil {
		return true // the handler of its next input says so
	}
	began, version, orphan := peekMore(r.Value)
	if phase == Parked && orphan && x.known(version) {
		due = 1 // it may go on
	}
	if phase.Ended() {
		x.remove(old)
		x.end(string(r.Key), r, ending{from, ended}, phase)
		return false
	}
	e := old
	if e == nil {
		e = &entry{id: string(r.Key), pos: -1}
		x.live[e.id] = e
	} else {
		x.count(e, -1)
	}
	x.unsent(e)
	was := e.phase
	e.phase, e.due, e.began, e.events = phase, due, began, uint16(min(events, 1<<16-1)) //nolint:gosec // bounded
	x.count(e, 1)
	if phase == Queued && was != Queued {
		x.queue = append(x.queue, e)
		if x.owned {
			x.wake()
		}
	}
	x.plan(e, due)
	return true
}

// peekMore reads on behind peek: when the saga began, its version, and whether it
// is parked for want of code.
func peekMore(b []byte) (began int64, version int, orphan bool) {
	r := reader{b: b}
	phase, _, _, _, _, _, _, _ := r.head() //nolint:dogsled // see peek
	began, version = r.int(), int(r.int32())
	r.int32() // stage
	return began, version, phase == Parked && r.int32() < 0
}

// count adds e to the sums, or takes it out.
func (x *index) count(e *entry, n int) {
	switch e.phase {
	case Early:
	case Queued:
		x.queued += n
	default:
		x.active += n
	}
	x.early += n * int(e.events)
}

func (x *index) remove(e *entry) {
	if e == nil {
		return
	}
	x.unsent(e)
	x.count(e, -1)
	x.plan(e, 0)
	delete(x.live, e.id)
	e.phase = 0 // it may still be in the queue
	if x.queued > 0 && x.owned {
		x.wake()
	}
}

func (x *index) end(id string, r *kgo.Record, end ending, phase Phase) {
	if phase == Undone {
		end.at = -end.at
	}
	x.ended[digestOf(id)] = end
	x.recent.add(id, r.Value)
	if x.first < 0 {
		x.first, x.firstEnd = r.Offset, max(end.at, -end.at)
	}
	if x.owned {
		x.ends(phase)
	}
}

// unsent forgets that a tick or an admit is out.
func (x *index) unsent(e *entry) {
	if e.out {
		e.out = false
		x.ticked--
	}
	if e.admitted != 0 {
		e.admitted = 0
		x.admitted--
	}
}

// plan has e get its tick at a time, 0 for none.
func (x *index) plan(e *entry, at int64) {
	e.at = at
	switch {
	case at == 0 && e.pos >= 0:
		heap.Remove(&x.timers, int(e.pos))
	case at == 0:
		return
	case e.pos >= 0:
		heap.Fix(&x.timers, int(e.pos))
	default:
		heap.Push(&x.timers, e)
	}
	if x.owned && x.timers.Len() > 0 && x.timers[0] == e {
		x.wake()
	}
}

// waiting is how many events of other sagas than id wait in the partition.
func (x *index) waiting(id string) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := x.early
	if e := x.live[id]; e != nil {
		n -= int(e.events)
	}
	return n
}

// due returns the ids that are to get a tick now, and marks them; and when the
// next one is to be sent, 0 never.
func (x *index) due(now int64) (ids []string, next int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.owned {
		return nil, 0
	}
	for len(x.timers) > 0 && x.timers[0].at <= now {
		e := x.timers[0]
		if x.ticked >= mostTicks && !e.out {
			return ids, now + tickBusy.Milliseconds()
		}
		if !e.out {
			e.out = true
			x.ticked++
		}
		e.at = now + tickAgain.Milliseconds()
		heap.Fix(&x.timers, 0)
		ids = append(ids, e.id)
	}
	if len(x.timers) > 0 {
		next = x.timers[0].at
	}
	return ids, next
}

const (
	// tickAgain is when a tick is sent again that nothing came of.
	tickAgain = 10 * time.Second
	// mostTicks may be out at once in a partition; then the clock looks again
	// after tickBusy.
	mostTicks = 10_000
	tickBusy  = 100 * time.Millisecond
)

// sums are for Status and metrics.
type sums struct {
	active, queued, early, ended, timers int
	oldest                               int64 // when the oldest active one began, 0 none
}

func (x *index) sums(oldest bool) (s sums) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.owned {
		return s
	}
	s = sums{active: x.active, queued: x.queued, early: x.early, ended: len(x.ended), timers: len(x.timers)}
	if oldest {
		for _, e := range x.live {
			if e.phase != Early && e.phase != Queued && (s.oldest == 0 || e.began < s.oldest) {
				s.oldest = e.began
			}
		}
	}
	return s
}

// timers is a heap of entries by at.
type timers []*entry

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return cmp.Less(t[i].at, t[j].at) }

func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].pos, t[j].pos = int32(i), int32(j) //nolint:gosec // fewer than there is memory for
}

// Push is heap's.
func (t *timers) Push(v any) {
	e := v.(*entry)
	e.pos = int32(len(*t)) //nolint:gosec // as above
	*t = append(*t, e)
}

// Pop is heap's.
func (t *timers) Pop() any {
	last := len(*t) - 1
	e := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	e.pos = -1
	return e
}
