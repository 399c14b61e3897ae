package lane

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"
	"slices"
)

// Run is a range of offsets that have finished: from Begin on, before End.
type Run struct{ Begin, End int64 }

// MaxText is the longest text of a finished set. Kafka takes up to 4,096
// characters of metadata with an offset, unless a broker is set otherwise.
const MaxText = 3000

// MaxRuns is more runs than a text can hold: one for every other offset.
const MaxRuns = MaxText * 6 / 8 * 8 / 2

// The form of the finished set: version, topic id, base offset as a varint,
// then from the base on pieces that begin with a varint whose two lowest bits
// say what the piece is and the rest how long it is. As text it is base64url:
// Kafka takes metadata for UTF-8 and turns other bytes into U+FFFD.
const (
	setVersion  = 1
	pieceGap    = 0 // so many offsets have not finished
	pieceRun    = 1 // so many offsets have finished
	pieceBits   = 2 // so many bytes follow, a bit for each offset, lowest first
	pieceHole   = 3 // one offset has not finished, and then so many have
	chunk       = 64
	headerBytes = 1 + 16
)

// far is more offsets than any set spans.
const far = 1 << 40

var errSet = errors.New("not a finished set")

// Encode returns the runs from base on, in order and apart from each other, as
// text, and whether all of them fit into limit characters, MaxText at most;
// those that do not are left out, from the last one on. Without a run the text
// is empty.
func Encode(topic [16]byte, base int64, runs []Run, limit int) (text string, all bool) {
	if len(runs) == 0 {
		return "", true
	}
	b := append([]byte{setVersion}, topic[:]...)
	b = binary.AppendUvarint(b, uint64(base))
	w := writer{b: b, at: base, limit: base64.RawURLEncoding.DecodedLen(min(limit, MaxText))}
	if len(b) > w.limit {
		return "", false
	}
	runs = slices.Clone(runs)
	for len(runs) > 0 && !w.full {
		if n := w.dense(runs); n > 0 {
			runs = w.bits(runs, n)
		} else {
			w.run(runs[0])
			runs = runs[1:]
		}
	}
	return base64.RawURLEncoding.EncodeToString(w.b), !w.full
}

// writer appends pieces until they no longer fit.
type writer struct {
	b     []byte
	at    int64 // the offset that the next piece begins with
	limit int
	full  bool
}

// append adds a piece whole or not at all.
func (w *writer) append(piece []byte, to int64) {
	if w.full = w.full || len(w.b)+len(piece) > w.limit; !w.full {
		w.b, w.at = append(w.b, piece...), to
	}
}

func (w *writer) run(r Run) { w.append(appendRun(nil, w.at, r), r.End) }

// appendRun appends the pieces of a run, and of what is before it from at on.
func appendRun(b []byte, at int64, r Run) []byte {
	kind := pieceRun
	switch gap := r.Begin - at; {
	case gap == 1:
		kind = pieceHole
	case gap > 1:
		b = binary.AppendUvarint(b, uint64(gap)<<2|pieceGap)
	}
	return binary.AppendUvarint(b, uint64(r.End-r.Begin)<<2|uint64(kind))
}

// dense returns how many chunks from w.at on are shorter as bits than as runs.
func (w *writer) dense(runs []Run) (chunks int) {
	at, last, i := w.at, w.at, 0
	var piece [2 * binary.MaxVarintLen64]byte
	for i < len(runs) {
		end, cost := at+chunk, 0
		for i < len(runs) && runs[i].Begin < end {
			cost += len(appendRun(piece[:0], last, runs[i]))
			if runs[i].End > end {
				break // the rest belongs to the next chunk
			}
			last = runs[i].End
			i++
		}
		if cost <= chunk/8 {
			break
		}
		chunks++
		at = end
	}
	return chunks
}

// bits writes n chunks and returns the runs that are left.
func (w *writer) bits(runs []Run, n int) []Run {
	n = min(n, max(1, (w.limit-len(w.b)-3)/(chunk/8)))
	set, end := make([]byte, n*chunk/8), w.at+int64(n)*chunk
	for len(runs) > 0 && runs[0].Begin < end {
		for o := max(runs[0].Begin, w.at); o < min(runs[0].End, end); o++ {
			set[(o-w.at)/8] |= 1 << ((o - w.at) % 8)
		}
		if runs[0].End > end {
			runs[0].Begin = end
			break
		}
		runs = runs[1:]
	}
	w.append(append(binary.AppendUvarint(nil, uint64(len(set))<<2|pieceBits), set...), end)
	return runs
}

// Decode returns the runs that text says of a topic and a base offset. It is
// an error if text says nothing, something else, or something of another
// topic or base.
func Decode(text string, topic [16]byte, base int64) (runs []Run, err error) {
	if len(text) > MaxText {
		return nil, errSet
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) < headerBytes || b[0] != setVersion || !bytes.Equal(b[1:headerBytes], topic[:]) {
		return nil, errSet
	}
	b = b[headerBytes:]
	from, n := binary.Uvarint(b)
	if n <= 0 || from != uint64(base) || base < 0 || base > math.MaxInt64-2*far {
		return nil, errSet
	}
	add := func(r Run) {
		if n := len(runs); n > 0 && runs[n-1].End == r.Begin {
			runs[n-1].End = r.End
		} else {
			runs = append(runs, r)
		}
	}
	at := base
	for b = b[n:]; len(b) > 0; {
		piece, n := binary.Uvarint(b)
		size := int64(piece >> 2)
		if n <= 0 || size == 0 || size > far {
			return nil, errSet
		}
		b = b[n:]
		switch piece & 3 {
		case pieceGap:
			at += size
		case pieceHole, pieceRun:
			if piece&3 == pieceHole {
				at++
			}
			add(Run{at, at + size})
			at += size
		case pieceBits:
			if size > int64(len(b)) {
				return nil, errSet
			}
			for _, octet := range b[:size] {
				for bit := range 8 {
					if octet&(1<<bit) != 0 {
						add(Run{at, at + 1})
					}
					at++
				}
			}
			b = b[size:]
		}
		if at-base > far {
			return nil, errSet
		}
	}
	return runs, nil
}
