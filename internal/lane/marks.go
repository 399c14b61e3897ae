package lane

// Marks finds the low watermark of one partition, the offset up to which
// every record that was begun has finished, and what has finished beyond it.
// It is a pure structure; its user locks.
type Marks struct {
	ring    []mark // of a size that is a power of two
	first   uint64 // sequence number of the oldest record that has not finished
	next    uint64 // sequence number of the next record
	turn    uint64 // sequence number behind that of the last record whose offset went back
	end     int64  // the offset after the last record's
	low     Mark
	done    int    // how many beyond low have finished
	changes uint64 // how often Done was called
}

// Mark is a position in a partition: the offset to go on from, with the leader
// epoch of the record before it.
type Mark struct {
	Offset int64
	Epoch  int32
}

type mark struct {
	offset int64 // after the record
	epoch  int32
	done   bool
}

// Begin says from where the records that follow are read.
func (m *Marks) Begin(at Mark) { m.low, m.end = at, at.Offset }

// Add takes in the record at offset and returns its sequence number. Records
// are added in the order of the partition; offsets may have gaps, and go back
// where the log has lost records.
func (m *Marks) Add(offset int64, epoch int32) (seq uint64) {
	if int(m.next-m.first) == len(m.ring) {
		m.resize(max(16, 2*len(m.ring)))
	}
	seq = m.next
	m.next++
	if offset < m.end {
		m.turn = m.next
	}
	m.end = offset + 1
	m.ring[seq&uint64(len(m.ring)-1)] = mark{offset: m.end, epoch: epoch}
	return seq
}

// Done says that a record has finished. Each is said once.
func (m *Marks) Done(seq uint64) {
	mask := uint64(len(m.ring) - 1)
	m.ring[seq&mask].done = true
	m.done++
	m.changes++
	for m.first < m.next && m.ring[m.first&mask].done {
		k := m.ring[m.first&mask]
		m.low = Mark{k.offset, k.epoch}
		m.first++
		m.done--
	}
	if n := len(m.ring); n > 1<<16 && m.Open() < n/8 {
		m.resize(n / 4) // a long span has ended
	}
}

// Turned reports whether the offset of a record, the last one added, went
// back.
func (m *Marks) Turned(seq uint64) bool { return m.turn == seq+1 }

// Low is the position that may be committed.
func (m *Marks) Low() Mark { return m.low }

// Changes grows with every Done.
func (m *Marks) Changes() uint64 { return m.changes }

// Open is how many records, from the oldest unfinished one on, were added.
func (m *Marks) Open() int { return int(m.next - m.first) }

// Lowest is the sequence number of the oldest unfinished record.
func (m *Marks) Lowest() uint64 { return m.first }

// Span is how many offsets lie between the low watermark and the end of the
// last record added.
func (m *Marks) Span() int64 {
	if m.first == m.next {
		return 0
	}
	return m.end - m.low.Offset
}

// Finished returns what has finished beyond the low watermark, in order, up to
// so many runs. Offsets that hold no record count with the finished record
// before them, if the one behind them has finished too.
//
// Where offsets went back it is nothing until all before that, and the record
// there, has finished: what had finished of the offsets that come twice is not
// what is there now, and low is beyond them.
func (m *Marks) Finished(most int) (runs []Run) {
	if m.done == 0 || m.first < m.turn {
		return nil
	}
	return m.runs(m.first, m.done, most)
}

func (m *Marks) resize(n int) {
	ring := make([]mark, n)
	for seq := m.first; seq < m.next; seq++ {
		ring[seq&uint64(n-1)] = m.ring[seq&uint64(len(m.ring)-1)]
	}
	m.ring = ring
}
