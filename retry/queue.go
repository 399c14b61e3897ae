package retry

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// ticket is what the keys topic holds of a record that waits, by its place.
type ticket struct {
	Key string    `json:"key"`          // hash of the record's key
	Due time.Time `json:"due,omitzero"` // when it is tried again, if it has failed itself
}

// place is a record of the topic that it was first read from.
type place struct {
	partition int32
	offset    int64
}

func (p place) String() string {
	return strconv.Itoa(int(p.partition)) + "/" + strconv.FormatInt(p.offset, 10)
}

func placeOf(text string) (p place, ok bool) {
	partition, offset, ok := strings.Cut(text, "/")
	n, err := strconv.ParseInt(partition, 10, 32)
	if err != nil || !ok {
		return place{}, false
	}
	p.partition = int32(n)
	p.offset, err = strconv.ParseInt(offset, 10, 64)
	return p, err == nil
}

// line is the records of one key and partition.
type line struct {
	partition int32
	key       string // hash
}

// hashKey is 128 bits of SHA-256: two keys with one hash would wait for each
// other without being in order.
func hashKey(key []byte) string {
	sum := sha256.Sum256(key)
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// queue knows which records of a topic wait, by their keys. It is what the
// keys topic says, and notes of what this process has staged and not yet read
// there. It is safe for concurrent use.
type queue struct {
	// expiry is when a ticket is void: its record must have been deleted from
	// the delay topics by then. 0 means never.
	expiry time.Duration

	mu     sync.Mutex
	lines  map[line]map[int64]*entry // by offset
	lineOf map[place]line            // of every entry

	// A ticket may arrive after its end, which another process has staged: it
	// was slower. Nobody else will end it. So the latest ends are remembered,
	// in two generations, and the tickets that came late are ended again.
	ended, endedBefore map[place]bool
	late               map[place]func() bool // void of the work that has staged the end, nil if none has
}

// maxEnded bounds a generation of ends.
const maxEnded = 10_000

// entry is what is known of one record.
type entry struct {
	stored  bool // the keys topic has a ticket
	written time.Time
	due     time.Time
	notes   []note // in the order in which they were made
}

// note is a ticket, or the end of one, that was staged here.
type note struct {
	waits bool
	due   time.Time
	// void reports whether the work that staged it was cut short. What it
	// staged may not have been sent, and its record comes again; whoever gets
	// its partition has what was sent in its table.
	void func() bool
	// lane is whose lane has staged it. To others the record is over when the keys
	// topic says so: its outputs may not have been sent before, or be rolled back,
	// and what another lane handles meanwhile could come before them.
	lane string
}

func newQueue(expiry time.Duration) *queue {
	return &queue{
		expiry: expiry, lines: map[line]map[int64]*entry{}, lineOf: map[place]line{},
		ended: map[place]bool{}, late: map[place]func() bool{},
	}
}

// OnFetchRecordUnbuffered takes in a record of the keys topic: it is a kgo
// hook of the client of the Table that follows it, called before the Table has
// the record. So what the Table has synchronized is known here.
func (q *queue) OnFetchRecordUnbuffered(r *kgo.Record, polled bool) {
	if polled && !r.Attrs.IsControl() {
		q.apply(r)
	}
}

func (q *queue) apply(r *kgo.Record) {
	at, ok := placeOf(string(r.Key))
	if !ok {
		return // not ours
	}
	var t ticket
	waits := r.Value != nil && json.Unmarshal(r.Value, &t) == nil && t.Key != ""
	q.mu.Lock()
	defer q.mu.Unlock()
	if !waits {
		q.end(at)
		return
	}
	e := q.open(at, line{at.partition, t.Key})
	e.notes = slices.DeleteFunc(e.notes, func(n note) bool { return n.waits }) // it has arrived
	if q.ended[at] || q.endedBefore[at] {
		q.late[at] = nil
	} else {
		e.stored, e.due, e.written = true, t.Due, r.Timestamp
	}
	q.tidy(at, e)
}

// end takes in the end of a ticket.
func (q *queue) end(at place) {
	delete(q.late, at)
	if q.ended[at] = true; len(q.ended) >= maxEnded {
		q.ended, q.endedBefore = map[place]bool{}, q.ended
	}
	e := q.entry(at)
	if e == nil {
		return
	}
	e.stored = false
	for i := len(e.notes) - 1; i >= 0; i-- { // what was staged later stays
		if !e.notes[i].waits {
			e.notes = e.notes[i+1:]
			break
		}
	}
	q.tidy(at, e)
}

// takeLate returns the tickets of a partition that are to be ended again, by
// work that is not cut short before.
func (q *queue) takeLate(partition int32, void func() bool) (places []place) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for at, before := range q.late {
		if at.partition == partition && (before == nil || before()) && len(places) < maxTaken {
			q.late[at] = void
			places = append(places, at)
		}
	}
	return places
}

const maxTaken = 100

func (q *queue) entry(at place) *entry {
	ln, ok := q.lineOf[at]
	if !ok {
		return nil
	}
	return q.lines[ln][at.offset]
}

// open returns the entry of a record, new if there is none.
func (q *queue) open(at place, ln line) *entry {
	if e := q.entry(at); e != nil {
		return e
	}
	if q.lines[ln] == nil {
		q.lines[ln] = map[int64]*entry{}
	}
	e := &entry{}
	q.lines[ln][at.offset], q.lineOf[at] = e, ln
	return e
}

// tidy forgets an entry of which nothing is known any more.
func (q *queue) tidy(at place, e *entry) {
	if e.stored || len(e.notes) > 0 {
		return
	}
	ln := q.lineOf[at]
	delete(q.lineOf, at)
	delete(q.lines[ln], at.offset)
	if len(q.lines[ln]) == 0 {
		delete(q.lines, ln)
	}
}

// note adds what was staged for a record: a ticket, or its end.
func (q *queue) note(at place, ln line, n note) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.open(at, ln)
	e.notes = append(e.notes, n)
}

// known reports whether anything says that a record waits or waited, and
// whether the keys topic has a ticket that is good for long.
func (q *queue) known(at place) (known, stored bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.entry(at)
	if e == nil {
		return false, false
	}
	fresh := q.expiry == 0 || time.Since(e.written) < q.expiry/2
	return true, e.stored && fresh
}

// ahead returns the first record of a line that waits and comes before offset, as
// a lane sees it: when it is tried again, and whether there is one.
func (q *queue) ahead(ln line, offset int64, lane string) (due time.Time, waits bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	first := offset
	for o, e := range q.lines[ln] {
		if o >= first {
			continue
		}
		if d, ok := q.waits(e, lane); ok {
			due, first = d, o
		}
		q.tidy(place{ln.partition, o}, e)
	}
	return due, first < offset
}

// waits reports whether a record waits, and until when.
func (q *queue) waits(e *entry, lane string) (due time.Time, waits bool) {
	for len(e.notes) > 0 {
		switch last := e.notes[len(e.notes)-1]; {
		case last.void():
			e.notes = e.notes[:len(e.notes)-1]
		case !last.waits && last.lane != lane:
			return time.Time{}, true // it is being done
		default:
			return last.due, last.waits
		}
	}
	return e.due, e.stored && (q.expiry == 0 || time.Since(e.written) < q.expiry)
}

// empty reports whether no record waits at all, the usual case.
func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.lines) == 0
}
