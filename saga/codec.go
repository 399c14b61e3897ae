package saga

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
)

// An instance as the value of its record in the state topic, format 1. Integers
// are varints, signed ones in zigzag, times are relative to began where they
// can be small. First comes what the owner's index needs (see peek), last the
// state, as its Codec wrote it.
//
//	format, phase | before<<4, flags: 3 bytes
//	due, ended, from (8 bytes), count of events
//	began, version, stage, whyStep, why, beforeStep, beforeWhy, deadline, expires, moves, trace
//	steps, seen, history, events: a count, then each
//	raw
const format = 1

// The flags of an instance.
const (
	flagPaused byte = 1 << iota
	flagStuck
	flagFailing
	flagBefore // there are beforeStep and beforeWhy
	flagTrace  // there is a traceparent, in 25 bytes
	flagTraced // there is a trace that is no such traceparent, as text
	flagHaunted
	knownFlags = flagPaused | flagStuck | flagFailing | flagBefore | flagTrace | flagTraced | flagHaunted
)

// The flags of a step are beside its status.
const flagDoubt byte = 1 << 7

// What an element takes at least, so that a count is not believed beyond the
// bytes that are there.
const (
	minStep       = 6
	minSeen       = 8
	minTransition = 5
	minWaiting    = 9
	minHeader     = 2
)

// encodeInstance returns the value of an instance's record. Its raw must be
// that of its state.
func encodeInstance(in *instance) []byte {
	w := writer(make([]byte, 0, 96+len(in.raw)+len(in.why)+24*(len(in.steps)+len(in.history))))
	flags := byte(0)
	if in.paused {
		flags |= flagPaused
	}
	if in.stuck {
		flags |= flagStuck
	}
	if in.failing {
		flags |= flagFailing
	}
	if in.haunted {
		flags |= flagHaunted
	}
	if in.beforeStep != 0 || in.beforeWhy != "" {
		flags |= flagBefore
	}
	trace, packed := packTrace(in.trace)
	switch {
	case packed:
		flags |= flagTrace
	case in.trace != "":
		flags |= flagTraced
	}
	w = append(w, format, byte(in.phase)|byte(in.before)<<4, flags)
	w.int(in.due())
	w.int(in.ended)
	w = binary.BigEndian.AppendUint64(w, in.from)
	w.uint(uint64(len(in.events)))

	w.int(in.began)
	w.int(int64(in.version))
	w.int(int64(in.stage))
	w.int(int64(in.whyStep))
	w.text(in.why)
	if flags&flagBefore != 0 {
		w.int(int64(in.beforeStep))
		w.text(in.beforeWhy)
	}
	w.since(in.deadline, in.began)
	w.since(in.expires, in.began)
	w.uint(in.moves)
	switch {
	case packed:
		w = append(w, trace[:]...)
	case in.trace != "":
		w.text(in.trace)
	}
	w.uint(uint64(len(in.steps)))
	for i := range in.steps {
		w.step(&in.steps[i], in.began)
	}
	w.uint(uint64(len(in.seen)))
	for _, v := range in.seen {
		w = binary.BigEndian.AppendUint64(w, v)
	}
	w.uint(uint64(len(in.history)))
	for i := range in.history {
		w.transition(&in.history[i], in.began)
	}
	for i := range in.events {
		w.waiting(&in.events[i], in.began)
	}
	return append(w, in.raw...)
}

// decodeInstance is the opposite. The instance shares b's bytes, which it does
// not change.
func decodeInstance(id string, b []byte) (*instance, error) {
	r := reader{b: b}
	var events int
	in := &instance{id: id}
	in.phase, in.before, in.paused, in.stuck, _, in.ended, in.from, events = r.head()
	flags := r.flags
	in.failing, in.haunted = flags&flagFailing != 0, flags&flagHaunted != 0
	in.began = r.int()
	in.version, in.stage, in.whyStep = int(r.int32()), int(r.int32()), int(r.int32())
	in.why = r.text()
	if flags&flagBefore != 0 {
		in.beforeStep, in.beforeWhy = int(r.int32()), r.text()
	}
	in.deadline, in.expires, in.moves = r.since(in.began), r.since(in.began), r.uint()
	switch {
	case flags&flagTrace != 0:
		in.trace = unpackTrace(r.take(packedTrace))
	case flags&flagTraced != 0:
		in.trace = r.text()
	}
	in.steps = list[stepState](&r, r.count(minStep))
	for i := range in.steps {
		in.steps[i] = r.step(in.began)
	}
	in.seen = list[uint64](&r, r.count(minSeen))
	for i := range in.seen {
		in.seen[i] = r.fixed()
	}
	in.history = list[transition](&r, r.count(minTransition))
	for i := range in.history {
		in.history[i] = r.transition(in.began)
	}
	in.events = list[waiting](&r, events)
	for i := range in.events {
		in.events[i] = r.waiting(in.began)
	}
	if len(r.b) > 0 {
		in.raw = r.b[:len(r.b):len(r.b)]
	}
	if r.err != nil {
		return nil, fmt.Errorf("saga %q: its record in the state topic: %w", id, r.err)
	}
	return in, nil
}

// peek reads of an instance's record what the owner's index needs: when it wants
// a tick (0 never), when it ended (0 not yet), the hash of what it was started
// with, and how many events wait. It allocates nothing but its errors.
func peek(b []byte) (phase Phase, due, ended int64, from uint64, events int, err error) {
	r := reader{b: b}
	phase, _, _, _, due, ended, from, events = r.head()
	return phase, due, ended, from, events, r.err
}

func (r *reader) head() (phase, before Phase, paused, stuck bool, due, ended int64, from uint64, events int) {
	switch version := r.byte(); {
	case r.err != nil:
		return
	case version != format:
		r.fail(fmt.Errorf("it is of format %d, and this program reads format %d: an engine of a newer wherry wrote it", version, format))
		return
	}
	phases := r.byte()
	r.flags = r.byte()
	phase, before = Phase(phases&15), Phase(phases>>4)
	switch {
	case r.err != nil:
		return
	case phase == 0 || phase > Undone || before > Undone:
		r.fail(fmt.Errorf("it has an unknown phase, %d before %d", before, phase))
	case r.flags&^knownFlags != 0:
		r.fail(fmt.Errorf("it has unknown flags, %#x", r.flags))
	}
	due, ended, from = r.int(), r.int(), r.fixed()
	return phase, before, r.flags&flagPaused != 0, r.flags&flagStuck != 0, due, ended, from, r.count(minWaiting)
}

func (w *writer) step(s *stepState, began int64) {
	status := byte(s.status)
	if s.doubt {
		status |= flagDoubt
	}
	*w = append(*w, status)
	w.int(int64(s.attempt))
	w.since(s.began, began)
	w.since(s.due, began)
	w.int(int64(s.tries))
	w.since(s.stuckAt, began)
}

func (w *writer) transition(t *transition, began int64) {
	w.int(t.at - began)
	*w = append(*w, byte(t.what))
	w.int(int64(t.step))
	w.int(int64(t.attempt))
	w.text(t.note)
}

func (w *writer) waiting(e *waiting, began int64) {
	w.text(e.topic)
	w.int(int64(e.partition))
	w.int(e.offset)
	w.int(e.came - began)
	w.bytes(e.key)
	w.bytes(e.value)
	w.text(e.step)
	attempt := int64(e.attempt) << 1
	if e.undo {
		attempt |= 1
	}
	w.int(attempt)
	w.uint(uint64(len(e.headers)))
	for _, h := range e.headers {
		w.text(h.key)
		w.text(h.value)
	}
}

func (r *reader) step(began int64) (s stepState) {
	status := r.byte()
	s.status, s.doubt = stepStatus(status&^flagDoubt), status&flagDoubt != 0
	if s.status > stepUndone {
		r.fail(fmt.Errorf("it has a step of an unknown status, %d", s.status))
	}
	s.attempt, s.began, s.due = r.int32(), r.since(began), r.since(began)
	s.tries, s.stuckAt = r.int32(), r.since(began)
	return s
}

func (r *reader) transition(began int64) transition {
	return transition{
		at: r.int() + began, what: move(r.byte()),
		step: int(r.int32()), attempt: r.int32(), note: r.text(),
	}
}

func (r *reader) waiting(began int64) waiting {
	e := waiting{
		topic: r.text(), partition: r.int32(), offset: r.int(), came: r.int() + began,
		key: r.bytes(), value: r.bytes(), step: r.text(),
	}
	e.undo, e.attempt = r.attempt()
	e.headers = list[pair](r, r.count(minHeader))
	for i := range e.headers {
		e.headers[i] = pair{r.text(), r.text()}
	}
	return e
}

// attempt reads which attempt a reply answers, and of what.
func (r *reader) attempt() (undo bool, n int32) {
	v := r.int()
	if v>>1 < math.MinInt32 || v>>1 > math.MaxInt32 {
		r.fail(fmt.Errorf("it has an attempt %d", v>>1))
		return false, 0
	}
	return v&1 == 1, int32(v >> 1)
}

// packedTrace is what a traceparent of version 00 takes: the ids and the flags
// (https://www.w3.org/TR/trace-context/#traceparent-header).
const packedTrace = 16 + 8 + 1

func packTrace(text string) (b [packedTrace]byte, ok bool) {
	parts := strings.Split(text, "-")
	if len(text) != 55 || len(parts) != 4 || parts[0] != "00" || len(parts[1]) != 32 || len(parts[2]) != 16 {
		return b, false
	}
	for i, to := range [][]byte{b[:16], b[16:24], b[24:]} {
		if _, err := hex.Decode(to, []byte(parts[i+1])); err != nil {
			return b, false
		}
	}
	return b, unpackTrace(b[:]) == text // not in capitals
}

func unpackTrace(b []byte) string {
	if len(b) != packedTrace {
		return ""
	}
	return fmt.Sprintf("00-%x-%x-%x", b[:16], b[16:24], b[24:])
}
