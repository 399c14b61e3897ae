package saga

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
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
//	began, version, stage, whyStep, why, moves, trace
//	steps, verbs, history, events: a count, then each
//	raw
const format = 1

// The flags of an instance.
const (
	flagPaused byte = 1 << iota
	flagStuck
	flagTrace  // there is a traceparent, in 25 bytes
	flagTraced // there is a trace that is no such traceparent, as text
	knownFlags = flagPaused | flagStuck | flagTrace | flagTraced
)

// The flags of a step are beside its status.
const flagDoubt byte = 1 << 7

// What an element takes at least, so that a count is not believed beyond the
// bytes that are there.
const (
	minStep       = 4
	minVerb       = 8
	minTransition = 5
	minWaiting    = 7
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
	w.uint(uint64(len(in.verbs)))
	for _, v := range in.verbs {
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
	in.began = r.int()
	in.version, in.stage, in.whyStep = int(r.int32()), int(r.int32()), int(r.int32())
	in.why, in.moves = r.text(), r.uint()
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
	in.verbs = list[uint64](&r, r.count(minVerb))
	for i := range in.verbs {
		in.verbs[i] = r.fixed()
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
	paused, stuck = r.flags&flagPaused != 0, r.flags&flagStuck != 0
	due, ended, from = r.int(), r.int(), r.fixed()
	return phase, before, paused, stuck, due, ended, from, r.count(minWaiting)
}

// writer appends.
type writer []byte

func (w *writer) int(n int64)   { *w = binary.AppendVarint(*w, n) }
func (w *writer) uint(n uint64) { *w = binary.AppendUvarint(*w, n) }

func (w *writer) text(s string) {
	w.uint(uint64(len(s)))
	*w = append(*w, s...)
}

// bytes are nil or any: Kafka's records tell a null from nothing.
func (w *writer) bytes(b []byte) {
	if b == nil {
		w.uint(0)
		return
	}
	w.uint(uint64(len(b)) + 1)
	*w = append(*w, b...)
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
	w.uint(uint64(len(e.headers)))
	for _, h := range e.headers {
		w.text(h.key)
		w.text(h.value)
	}
}

// since writes a time that may be 0 for none: one more than the distance from
// began, and 0 as 0.
func (w *writer) since(t, began int64) {
	switch d := t - began; {
	case t == 0:
		w.int(0)
	case d >= 0:
		w.int(d + 1)
	default:
		w.int(d)
	}
}

// reader takes from the front of b until there is an error, and then gives zeros.
type reader struct {
	b     []byte
	flags byte
	err   error
}

var errShort = errors.New("it ends too early: it is no instance, or it was cut")

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.fail(errShort)
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) fixed() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail(errShort)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail(errShort)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int32() int32 {
	v := r.int()
	if v < math.MinInt32 || v > math.MaxInt32 {
		r.fail(fmt.Errorf("it has the number %d where only 32 bits can be", v))
		return 0
	}
	return int32(v)
}

// count reads how many elements follow, of which each takes at least size bytes.
func (r *reader) count(size int) int {
	n := r.uint()
	if n > uint64(len(r.b)/size) {
		r.fail(errShort)
		return 0
	}
	return int(n) //nolint:gosec // no more than len
}

func (r *reader) text() string { return string(r.take(r.count(1))) }

func (r *reader) bytes() []byte {
	n := r.uint()
	switch {
	case n == 0:
		return nil
	case n-1 > uint64(len(r.b)):
		r.fail(errShort)
		return nil
	}
	return r.take(int(n - 1)) //nolint:gosec // no more than len
}

func (r *reader) step(began int64) (s stepState) {
	status := r.byte()
	s.status, s.doubt = stepStatus(status&^flagDoubt), status&flagDoubt != 0
	if s.status > stepUndone {
		r.fail(fmt.Errorf("it has a step of an unknown status, %d", s.status))
	}
	s.attempt, s.began, s.due = r.int32(), r.since(began), r.since(began)
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
		key: r.bytes(), value: r.bytes(),
	}
	e.headers = list[header](r, r.count(minHeader))
	for i := range e.headers {
		e.headers[i] = header{r.text(), r.text()}
	}
	return e
}

func (r *reader) since(began int64) int64 {
	switch d := r.int(); {
	case d == 0:
		return 0
	case d > 0:
		return began + d - 1
	default:
		return began + d
	}
}

// list makes room for n elements, none where there was an error.
func list[T any](r *reader, n int) []T {
	if n == 0 || r.err != nil {
		return nil
	}
	return make([]T, n)
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
