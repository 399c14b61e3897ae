package lane

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Work handles one record. The next record of the lane begins when it returns.
// It, or something it started, must end the item with exactly one of Finish,
// Again and Fail, unless ctx ended.
type Work func(ctx context.Context, it *Item)

// Item is a record in the hands of a lane's Work.
type Item struct {
	Record  *kgo.Record
	Offset  int64 // the record's, whatever became of its fields
	Refused error // why Again was called; nil in the first run

	lane *Lane
	seq  uint64
	size int
}

// Config is what a Lane is made of. Its functions must not block.
type Config struct {
	Work Work
	// Until ends the beginning of records: what is in hand goes on.
	Until context.Context
	// Finished is called when a record has finished.
	Finished func()
	// At MaxRecords or MaxBytes held a lane is full, and stays so until it
	// holds half of both; then Room is called.
	MaxRecords, MaxBytes int
	Room                 func()
}

// Lane handles the records of one assignment of one partition, one after the
// other. Its methods are safe for concurrent use and none of them blocks.
type Lane struct {
	Config
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	marks    Marks
	queue    []*Item // fed and not begun
	again    []*Item // to be run once more, before the queue
	begun    int     // in hand: begun, and neither finished nor failed
	bytes    int     // of records fed and not finished
	held     int     // records fed and not finished
	full     bool
	current  int64 // offset of the record that Work was called with last
	draining bool
	cut      bool
	wake     chan struct{}
	idle     chan struct{} // closed when draining and nothing is in hand
	exited   chan struct{}
}

// New starts a lane under ctx.
func New(ctx context.Context, c Config) *Lane {
	l := &Lane{Config: c, wake: make(chan struct{}, 1), idle: make(chan struct{}), exited: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	go l.run()
	return l
}

// Feed adds records in the order of the partition. A lane that drains or was
// cut ignores them.
func (l *Lane) Feed(records []*kgo.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.draining || l.cut {
		return
	}
	items := make([]Item, len(records))
	for i, r := range records {
		size := len(r.Key) + len(r.Value)
		items[i] = Item{Record: r, Offset: r.Offset, lane: l, seq: l.marks.Add(r.Offset, r.LeaderEpoch), size: size}
		l.queue = append(l.queue, &items[i])
		l.held++
		l.bytes += size
	}
	l.full = l.full || l.held >= l.MaxRecords || l.bytes >= l.MaxBytes
	l.poke()
}

// Full reports whether the lane should not be fed for now. (It takes what it
// is fed all the same.)
func (l *Lane) Full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.full
}

// Held is how many records, and bytes of them, were fed and have not finished.
func (l *Lane) Held() (records, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held, l.bytes
}

// Low is the position that may be committed; see [Marks.Low]. It stays as it
// was when the lane was cut.
func (l *Lane) Low() (Mark, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.marks.Low()
}

// Drain drops what has not begun and returns a channel that is closed when
// what is in hand has ended.
func (l *Lane) Drain() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.halt()
	return l.idle
}

// Cut ends the contexts of what is in hand, with cause. Nothing that ends
// afterwards counts.
func (l *Lane) Cut(cause error) {
	l.mu.Lock()
	l.cut = true
	l.halt()
	l.mu.Unlock()
	l.cancel(cause)
}

// Current is the offset of the record that Work was called with last.
func (l *Lane) Current() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current
}

// WasCut reports whether Cut was called.
func (l *Lane) WasCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

// Exited is closed when the last call of Work has returned.
func (l *Lane) Exited() <-chan struct{} { return l.exited }

// Finish says that the record is done: its offset may be committed.
func (it *Item) Finish() {
	l := it.lane
	l.mu.Lock()
	if !l.cut {
		l.marks.Done(it.seq)
		l.held--
		l.bytes -= it.size
	}
	room := l.full && l.held <= l.MaxRecords/2 && l.bytes <= l.MaxBytes/2
	if room {
		l.full = false
	}
	l.ended()
	l.mu.Unlock()
	l.Finished()
	if room {
		l.Room()
	}
}

// Again has Work called once more for the record, before any that has not
// begun.
func (it *Item) Again(refused error) {
	l := it.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	it.Refused = refused
	l.again = append(l.again, it)
	l.poke()
}

// Fail says that the record could not be handled. Its offset stays
// uncommitted, and the lane begins no other.
func (it *Item) Fail() {
	l := it.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	l.halt()
	l.ended()
}

func (l *Lane) run() {
	defer close(l.exited)
	for {
		l.mu.Lock()
		it := l.next()
		over := it == nil && (l.cut || l.draining && l.begun == 0)
		l.mu.Unlock()
		switch {
		case it != nil:
			l.Work(l.ctx, it)
		case over:
			return
		default:
			<-l.wake
		}
	}
}

func (l *Lane) next() (it *Item) {
	if l.Until.Err() != nil {
		l.halt()
	}
	switch {
	case l.cut:
	case len(l.again) > 0:
		it, l.again = l.again[0], l.again[1:]
	case len(l.queue) > 0:
		it, l.queue[0], l.queue = l.queue[0], nil, l.queue[1:]
		l.begun++
	}
	if it != nil {
		l.current = it.Offset
	}
	return it
}

func (l *Lane) halt() {
	l.queue = nil
	if !l.draining {
		l.draining = true
		if l.begun == 0 {
			close(l.idle)
		}
	}
	l.poke()
}

func (l *Lane) ended() {
	l.begun--
	if l.begun == 0 && l.draining {
		close(l.idle)
		l.poke()
	}
}

func (l *Lane) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}
