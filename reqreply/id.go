package reqreply

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"strconv"
)

// ids makes the correlation ids of one Caller: a prefix by chance, which no
// other Caller has, and a counter.
type ids struct {
	raw  [8]byte
	text [17]byte // raw in hex, and a hyphen
}

func newIDs() (s ids) {
	_, _ = rand.Read(s.raw[:]) // it never fails, says crypto/rand
	// NestJS parses a header that begins with { or [ as JSON and one with a
	// zero as no text. None of them has this bit.
	s.raw[0] |= 0x80
	hex.Encode(s.text[:16], s.raw[:])
	s.text[16] = '-'
	return s
}

// format returns the n-th id: 16 raw bytes, or text.
func (s *ids) format(n uint64, raw bool) []byte {
	if raw {
		return binary.BigEndian.AppendUint64(s.raw[:8:8], n)
	}
	id := make([]byte, 0, 32)
	return strconv.AppendUint(append(id, s.text[:]...), n, 10)
}

// parse returns which id it is, and whether it is one of these.
func (s *ids) parse(id []byte) (n uint64, ours bool) {
	if digits, ok := bytes.CutPrefix(id, s.text[:]); ok {
		n, err := strconv.ParseUint(string(digits), 10, 64)
		return n, err == nil
	}
	if counter, ok := bytes.CutPrefix(id, s.raw[:]); ok && len(counter) == 8 {
		return binary.BigEndian.Uint64(counter), true
	}
	return 0, false
}
