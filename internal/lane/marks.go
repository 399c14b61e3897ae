// Package lane keeps records in order while they are handled, and knows how
// far a partition's offset may be committed while they finish in any order.
package lane

// Marks finds the low watermark of one partition: the offset up to which every
// record that was begun has finished. It is a pure structure; its user locks.
type Marks struct {
	ring  []mark // of a size that is a power of two
	first uint64 // sequence number of the oldest record that has not finished
	next  uint64 // sequence number of the next record
	low   Mark
	moved bool
}

// Mark is a position in a partition: the offset to go on from, with the leader
// epoch of the record before it.
type Mark struct {
	Offset int64
	Epoch  int32
}

type mark struct {
	Mark
	done bool
}

// Add takes in the record at offset and returns its sequence number. Records
// are added in the order of the partition; offsets may have gaps.
func (m *Marks) Add(offset int64, epoch int32) (seq uint64) {
	if int(m.next-m.first) == len(m.ring) {
		m.grow()
	}
	seq = m.next
	m.next++
	m.ring[seq&uint64(len(m.ring)-1)] = mark{Mark: Mark{offset + 1, epoch}}
	return seq
}

// Done says that a record has finished. Each is said once.
func (m *Marks) Done(seq uint64) {
	mask := uint64(len(m.ring) - 1)
	m.ring[seq&mask].done = true
	for m.first < m.next && m.ring[m.first&mask].done {
		m.low, m.moved = m.ring[m.first&mask].Mark, true
		m.first++
	}
}

// Low is the position that may be committed. ok is false until it first moves.
func (m *Marks) Low() (low Mark, ok bool) { return m.low, m.moved }

// Open is how many records, from the oldest unfinished one on, were added.
func (m *Marks) Open() int { return int(m.next - m.first) }

func (m *Marks) grow() {
	ring := make([]mark, max(16, 2*len(m.ring)))
	for seq := m.first; seq < m.next; seq++ {
		ring[seq&uint64(len(ring)-1)] = m.ring[seq&uint64(len(m.ring)-1)]
	}
	m.ring = ring
}
