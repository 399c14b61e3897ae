package saga

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

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
