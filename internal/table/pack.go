package table

import (
	"encoding/binary"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A packed is one record in one allocation, with its key first so that the key
// of a map can be a part of it: key, offset, milliseconds, headers, value. As
// a string it is immutable, and a slot of the map has 32 bytes where an Entry
// would make it 88. Numbers are varints; a header's value is preceded by its
// length plus one, 0 if it is nil.
type packed string

// pack returns the record of r at an offset, without keeping any of r's bytes,
// and the key, which shares memory with it.
func pack(r *kgo.Record, offset, millis int64) (key string, p packed) {
	var numbers [3 * binary.MaxVarintLen64]byte
	b := binary.AppendVarint(numbers[:0], offset)
	b = binary.AppendVarint(b, millis)
	b = binary.AppendUvarint(b, uint64(len(r.Headers)))
	size := len(r.Key) + len(b) + len(r.Value)
	for _, h := range r.Headers {
		size += 2*binary.MaxVarintLen32 + len(h.Key) + len(h.Value)
	}
	var s strings.Builder
	s.Grow(size)
	s.Write(r.Key)
	s.Write(b)
	for _, h := range r.Headers {
		s.Write(binary.AppendUvarint(numbers[:0], uint64(len(h.Key))))
		s.WriteString(h.Key)
		n := uint64(0)
		if h.Value != nil {
			n = uint64(len(h.Value)) + 1
		}
		s.Write(binary.AppendUvarint(numbers[:0], n))
		s.Write(h.Value)
	}
	s.Write(r.Value)
	whole := s.String()
	return whole[:len(r.Key)], packed(whole)
}

// offset returns the offset of a record with a key of n bytes.
func (p packed) offset(n int) int64 {
	d := unpacker(p[n:])
	return d.varint()
}

// entry returns a copy of the record.
func (p packed) entry(key string, partition int32) Entry {
	d := unpacker(p[len(key):])
	e := Entry{Partition: partition, Offset: d.varint(), Millis: d.varint()}
	if n := d.uvarint(); n > 0 {
		e.Headers = make([]kgo.RecordHeader, n)
		for i := range e.Headers {
			e.Headers[i].Key = strings.Clone(d.take(d.uvarint()))
			if n := d.uvarint(); n > 0 {
				e.Headers[i].Value = []byte(d.take(n - 1))
			}
		}
	}
	e.Value = []byte(d)
	return e
}

// unpacker is what is left of a packed.
type unpacker string

func (d *unpacker) uvarint() (x uint64) {
	for i := range len(*d) {
		c := (*d)[i]
		x |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			*d = (*d)[i+1:]
			return x
		}
	}
	panic("table: a packed record is cut off") // only pack makes them
}

func (d *unpacker) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *unpacker) take(n uint64) string {
	s := (*d)[:n]
	*d = (*d)[n:]
	return string(s)
}
