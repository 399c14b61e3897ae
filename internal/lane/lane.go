// Package lane keeps records in order while they are handled, shares places
// among them, and knows how far a partition's offset may be committed while
// they finish in any order.
package lane

import (
	"context"
	"hash/maphash"
	"math"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Order says which records of a lane wait for each other.
type Order int

// Orders.
const (
	InTurn Order = iota // each for all before it
	ByKey               // each for those of its key before it; records without a key for none
	Any                 // none for any
)

// Work handles one record. It, or something it started, must end the item with
// exactly one of Finish, Again, Drop and Fail, unless ctx ended. The records
// that wait for this one may begin when Work returns.
type Work func(ctx context.Context, it *Item)

// Config is what a Lane is made of. Its functions must not block.
type Config struct {
	Work  Work
	Order Order
	Pool  *Pool
	// Key is what ByKey orders by; nil means the record's key.
	Key func(*kgo.Record) []byte
	// Size is how many records are begun together as one Unit, and Linger how
	// long fewer may wait for more. 0 means 1.
	Size   int
	Linger time.Duration
	// Due says when a record may be begun; nil means at once. Records wait in
	// the order of the partition.
	Due func(*kgo.Record) time.Time
	// Until ends the beginning of records: what is in hand goes on.
	Until context.Context
	// Finished is called when a record has finished.
	Finished func()
	// At MaxRecords or MaxBytes held, and MaxSpan offsets beyond the low
	// watermark, a lane holds no more: what it is fed stays in a backlog, and
	// the lane is full until that is empty, half of both is held and the span
	// is short again; then Room is called. At MaxBytes of what Stage was told of,
	// too, no record begins. 0 means without a limit.
	MaxRecords, MaxBytes int
	MaxSpan              int64
	Room                 func()
}

// Lane handles the records of one assignment of one partition. Its methods are
// safe for concurrent use and none of them blocks.
type Lane struct {
	Config
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	marks    Marks
	skip     []Run         // offsets that have finished before this assignment
	backlog  []*kgo.Record // fed, and not held for want of room
	spare    []Item
	delayed  queue // fed and not due
	alarm    *time.Timer
	fresh    queue // may begin, by offset
	late     heap  // may begin, behind others
	lines    map[uint64]*line
	issued   int // tickets that the pool has of this lane
	linger   *time.Timer
	lingers  int64 // until when linger runs
	calls    Unit  // root of the ring of units whose Work has not returned
	begun    int   // in hand: begun, and not ended
	bytes    int   // of records fed and not finished
	staged   int   // bytes of what they left to be committed
	held     int   // records fed and not finished
	full     bool
	narrow   bool   // the finished set is too long: only the oldest record begins
	reach    uint64 // the oldest record that is not done and was not proposed
	holds    int    // calls of Hold without their Release: nothing begins
	era      uint64 // grows with Hold
	draining bool
	cut      bool
	drained  chan struct{} // closed when draining begins
	idle     chan struct{} // closed when draining and nothing is in hand
	isIdle   bool
	exited   chan struct{} // closed when the last call of Work has returned
	over     bool

	tickets int // of the Pool, under its lock
}

// line is the records of one key, in order.
type line struct {
	holder *Item // the one that is at work, or in fresh or late
	queue  queue // those that wait for it
	last   *Item // the latest one that was begun, while it has not finished
}

// chunkOfItems are made at once: one that stays in hand keeps the others. 15 of
// 272 bytes fill a size class of the heap (4 KiB, 8 bytes of which are its own).
const chunkOfItems = 15

// refillAt is for how many records there must be room before some are taken
// from the backlog: they are taken together.
const refillAt = 256

func (l *Lane) refillAt() int { return max(1, min(refillAt, l.MaxRecords/4)) }

var seed = maphash.MakeSeed()

// New starts a lane under ctx.
func New(ctx context.Context, c Config) *Lane {
	c.Size = max(c.Size, 1)
	l := &Lane{
		Config: c, lines: map[uint64]*line{},
		drained: make(chan struct{}), idle: make(chan struct{}), exited: make(chan struct{}),
	}
	l.calls.before, l.calls.after = &l.calls, &l.calls
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	return l
}

// Begin says where the partition is read from, and what has finished beyond
// it: such records are passed by. It comes before the first Feed.
func (l *Lane) Begin(at Mark, finished []Run) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marks.Begin(at)
	l.skip = finished
}

// Feed adds records in the order of the partition. A lane that drains or was
// cut ignores them.
func (l *Lane) Feed(records []*kgo.Record) {
	l.mu.Lock()
	if l.draining {
		l.mu.Unlock()
		return
	}
	l.backlog = append(l.backlog, records...)
	l.full = l.full || l.crowded(1)
	passed := l.marks.Changes()
	l.refill(1)
	passed = l.marks.Changes() - passed
	n := l.tender()
	l.mu.Unlock()
	l.Pool.offer(l, n)
	if passed > 0 {
		l.Finished()
	}
}

// refill takes records from the backlog while there is room, if there is room
// for n, and reports whether it has.
func (l *Lane) refill(n int) bool {
	if l.draining || len(l.backlog) == 0 || l.crowded(n) {
		return false
	}
	for len(l.backlog) > 0 && !l.crowded(1) {
		l.hold(l.backlog[0])
		l.backlog[0] = nil
		l.backlog = l.backlog[1:]
	}
	if len(l.backlog) == 0 {
		l.backlog = nil
	}
	l.full = l.full || len(l.backlog) > 0 || l.crowded(1)
	l.setAlarm()
	return true
}

// crowded reports whether there is no room for n more records. Where all that is
// held was proposed, and the finished set has no room for it, it needs what comes
// next.
func (l *Lane) crowded(n int) bool {
	if l.narrow {
		return l.held > 0 && l.marks.next > l.reach
	}
	return l.held > 0 && (l.MaxRecords > 0 && l.held > l.MaxRecords-min(n, l.MaxRecords) ||
		l.MaxBytes > 0 && l.bytes >= l.MaxBytes || l.MaxSpan > 0 && l.marks.Span() >= l.MaxSpan)
}

// hold takes one record in hand. What has finished before, and the marks of
// transactions, are done at once.
func (l *Lane) hold(r *kgo.Record) {
	seq := l.marks.Add(r.Offset, r.LeaderEpoch)
	if l.marks.Turned(seq) {
		l.skip = nil
	}
	if l.skipped(r.Offset) || r.Attrs.IsControl() {
		l.marks.Done(seq)
		return
	}
	if len(l.spare) == 0 {
		l.spare = make([]Item, chunkOfItems)
	}
	it := &l.spare[0]
	l.spare = l.spare[1:]
	it.Record, it.Offset, it.lane, it.seq, it.size = r, r.Offset, l, seq, len(r.Key)+len(r.Value)
	l.held++
	l.bytes += it.size
	if l.Due != nil {
		if due := l.Due(r); l.delayed.head != nil || time.Until(due) > 0 {
			it.due = nanos(due)
			l.delayed.push(it)
			return
		}
	}
	l.admit(it)
}

// nanos is t in nanoseconds since 1970, as near as they come: those of years
// after 2262 do not fit.
func nanos(t time.Time) int64 {
	switch s := t.Unix(); {
	case s > math.MaxInt64/int64(time.Second)-1:
		return math.MaxInt64
	case s < 0:
		return 0
	}
	return t.UnixNano()
}

// skipped reports whether a record has finished before.
func (l *Lane) skipped(offset int64) bool {
	for len(l.skip) > 0 && l.skip[0].End <= offset {
		l.skip = l.skip[1:]
	}
	return len(l.skip) > 0 && l.skip[0].Begin <= offset
}

// admit puts a record where its order says.
func (l *Lane) admit(it *Item) {
	if l.Linger > 0 {
		it.due = time.Now().Add(l.Linger).UnixNano()
	}
	if key := l.key(it.Record); key != nil {
		hash := maphash.Bytes(seed, key)
		it.hash, it.line = hash, l.lines[hash]
		if it.line == nil {
			it.line = &line{}
			l.lines[hash] = it.line
		}
		if it.line.holder != nil {
			it.line.queue.push(it)
			return
		}
		it.line.holder = it
	}
	l.fresh.push(it)
}

// key names the line that a record belongs to, nil for none.
func (l *Lane) key(r *kgo.Record) []byte {
	switch {
	case l.Order != ByKey:
		return nil
	case l.Key != nil:
		return l.Key(r)
	}
	return r.Key
}

// setAlarm wakes the lane when the first of the delayed records is due.
func (l *Lane) setAlarm() {
	if l.delayed.head == nil || l.draining {
		return
	}
	in := time.Until(time.Unix(0, l.delayed.head.due))
	if l.alarm == nil {
		l.alarm = time.AfterFunc(in, l.rang)
	} else {
		l.alarm.Reset(in)
	}
}

func (l *Lane) rang() {
	l.mu.Lock()
	for now := time.Now().UnixNano(); l.delayed.head != nil && l.delayed.head.due <= now; {
		l.admit(l.delayed.pop())
	}
	l.setAlarm()
	n := l.tender()
	l.mu.Unlock()
	l.Pool.offer(l, n)
}

// makeRoom reports whether the lane has just got room again.
func (l *Lane) makeRoom() bool {
	if !l.full || len(l.backlog) > 0 || l.crowded(max(1, l.MaxRecords/2)) || !l.narrow && l.MaxBytes > 0 && l.bytes > l.MaxBytes/2 {
		return false
	}
	l.full = false
	return true
}

// Backlog is how many records were fed that are not held for want of room.
func (l *Lane) Backlog() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.backlog)
}

// Full reports whether the lane should not be fed for now. (It takes what it
// is fed all the same.)
func (l *Lane) Full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.full
}

// Position is how far the partition has come: the low watermark, and the
// finished set of topic for a commit's metadata, of up to limit characters.
// changes grows when something finished since; where it is still what an
// earlier call said there is no set. Nothing changes after the lane was cut.
//
// While the set does not fit the lane begins no record but the oldest. A limit
// of 0 does without a set.
func (l *Lane) Position(topic [16]byte, limit int, seen uint64) (low Mark, set string, changes uint64) {
	l.mu.Lock()
	l.stamp()
	low, changes = l.marks.Low(), l.marks.Changes()
	if changes == seen || l.Order == InTurn { // in turn they come again in turn, too
		l.mu.Unlock()
		return low, "", changes
	}
	all := true
	if limit > 0 {
		set, all = Encode(topic, low.Offset, l.marks.Finished(MaxRuns), limit)
	}
	l.narrow = !all
	l.full = l.full || l.narrow
	l.refill(1)
	passed := l.marks.Changes() != changes
	room := l.makeRoom()
	n := l.tender()
	l.mu.Unlock()
	l.Pool.offer(l, n)
	if passed {
		l.Finished()
	}
	if room {
		l.Room()
	}
	return low, set, changes
}

// State is what a lane is doing.
type State struct {
	Held     int // records fed and not finished, but for the backlog
	Backlog  int // records fed that are not held yet
	Running  int // of those, in hand and not parked
	Waiting  int // of those, parked or not yet due
	Low      Mark
	Oldest   int64     // offset of the oldest record in hand, -1 without
	Since    time.Time // when that was first seen to be in hand, by State or Position
	Draining bool
}

// stamp notes the time for the units that have begun since it was called
// last: asking the clock for each of them would cost more than the lane.
func (l *Lane) stamp() {
	if l.calls.after.since != 0 || !l.working() {
		return
	}
	now := time.Now().UnixNano()
	for u := l.calls.after; u != &l.calls && u.since == 0; u = u.after {
		u.since = now
	}
}

// State returns what the lane is doing.
func (l *Lane) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stamp()
	s := State{Held: l.held, Backlog: len(l.backlog), Low: l.marks.Low(), Oldest: -1, Draining: l.draining}
	parked := 0
	for u := l.calls.after; u != &l.calls; u = u.after {
		parked += u.waiting()
		for _, it := range u.items {
			if s.Oldest < 0 || it.Offset < s.Oldest {
				s.Oldest, s.Since = it.Offset, time.Unix(0, u.since)
			}
		}
	}
	s.Running, s.Waiting = l.begun-parked, l.delayed.len+parked
	return s
}
