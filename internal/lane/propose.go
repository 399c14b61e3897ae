package lane

// Proposal is what a transaction may commit of a lane.
type Proposal struct {
	Low     Mark
	Set     string // finished beyond it, as metadata
	Fits    int    // how many of the items, from the first on, are part of it
	Changes uint64 // to be seen by the next call once those are Done
}

// Propose says how far the partition will have come when items are done too:
// the low watermark and the finished set of topic, of up to limit characters.
// Items are those of one transaction, in the order in which their work ended:
// what fits is a number of them from the first on, for a later one may rest on
// what an earlier one did. Without items, and with nothing done since an
// earlier call saw changes, Low is negative: there is nothing to commit.
func (l *Lane) Propose(topic [16]byte, limit int, items []*Item, seen uint64) (p Proposal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stamp()
	p.Changes = l.marks.Changes()
	if len(items) == 0 && p.Changes == seen {
		p.Low.Offset = -1
		return p
	}
	for p.Fits = len(items); ; p.Fits /= 2 {
		var fits bool
		var reach uint64
		p.Low, p.Set, reach, fits = l.propose(topic, limit, items[:p.Fits])
		if p.Fits == len(items) {
			l.reach = reach
		}
		if fits {
			p.Changes += uint64(p.Fits)
			return p
		}
		if p.Fits == 0 { // what finished before fits no more, into a smaller limit
			p.Low.Offset = -1
			return p
		}
	}
}

// Narrow says whether the finished set is too long: then the lane begins no
// record but the oldest that was not among the items of the last Propose. Those
// may have to wait for what comes before them.
func (l *Lane) Narrow(narrow bool) {
	l.mu.Lock()
	if !narrow && !l.narrow {
		l.mu.Unlock()
		return
	}
	l.narrow = narrow
	l.full = l.full || narrow
	l.refill(1)
	room := l.makeRoom()
	n := l.tender()
	l.mu.Unlock()
	l.Pool.offer(l, n)
	if room {
		l.Room()
	}
}

// propose returns low, set and the oldest that is not done as they will be when
// items are done, and whether the set is all of it.
func (l *Lane) propose(topic [16]byte, limit int, items []*Item) (low Mark, set string, oldest uint64, all bool) {
	seqs := make([]uint64, len(items))
	for i, it := range items {
		seqs[i] = it.seq
	}
	low, runs, oldest, known := l.marks.With(seqs)
	if !known {
		return low, "", oldest, false
	}
	runs = beyond(runs, l.skip, l.marks.end)
	if len(runs) == 0 {
		return low, "", oldest, true
	}
	if limit <= 0 || len(runs) > MaxRuns {
		return low, "", oldest, false
	}
	set, all = Encode(topic, low.Offset, runs, limit)
	return low, set, oldest, all
}

// beyond adds to the runs of records that were fed those that had finished
// before this assignment and were not fed yet, from offset end on.
func beyond(runs, skip []Run, end int64) []Run {
	for _, r := range skip {
		r.Begin = max(r.Begin, end)
		if r.Begin >= r.End {
			continue
		}
		if n := len(runs); n > 0 && runs[n-1].End >= r.Begin {
			runs[n-1].End = max(runs[n-1].End, r.End)
		} else {
			runs = append(runs, r)
		}
	}
	return runs
}

// With returns what Low, Finished and Lowest will be when the records of seqs are
// done too. It reports false where the finished set cannot be known, because offsets
// went back: then only what raises the low watermark may be done.
func (m *Marks) With(seqs []uint64) (low Mark, runs []Run, first uint64, known bool) {
	mask := uint64(len(m.ring) - 1)
	var set []uint64
	for _, seq := range seqs {
		if seq >= m.first && !m.ring[seq&mask].done {
			m.ring[seq&mask].done = true
			set = append(set, seq)
		}
	}
	first, low = m.first, m.low
	for first < m.next && m.ring[first&mask].done {
		low = Mark{m.ring[first&mask].offset, m.ring[first&mask].epoch}
		first++
	}
	left := m.done + len(set) - int(first-m.first)
	known = left == 0 || first >= m.turn
	if known {
		runs = m.runs(first, left, MaxRuns+1)
	}
	for _, seq := range set {
		m.ring[seq&mask].done = false
	}
	return low, runs, first, known
}

// runs returns the ranges of left records that are done, from sequence number
// first on, up to so many.
func (m *Marks) runs(first uint64, left, most int) (runs []Run) {
	mask := uint64(len(m.ring) - 1)
	for seq := first; left > 0; seq++ {
		k := m.ring[seq&mask]
		if !k.done {
			continue
		}
		left--
		switch n := len(runs); {
		case n > 0 && seq > first && m.ring[(seq-1)&mask].done:
			runs[n-1].End = k.offset
		case n == most:
			return runs
		default:
			runs = append(runs, Run{k.offset - 1, k.offset})
		}
	}
	return runs
}

// Done says that the record's transaction is committed. Other than after
// Finish, it does not wait for records of its key that were handled before it
// and are to be handled again: what is committed is not handled once more.
func (it *Item) Done() {
	l := it.lane
	l.mu.Lock()
	if it.before != nil {
		it.before.after = it.after
	}
	if it.after != nil {
		it.after.before = it.before
	}
	if ln := it.line; ln != nil && ln.last == it {
		ln.last = it.before
		l.forget(it)
	}
	it.before, it.after = nil, nil
	l.mu.Unlock()
	it.Finish()
}

// Redo has Work called anew for the record, as if it had not been: what it
// did was undone. In a lane that drains it is dropped, and comes again with
// the partition's next owner.
func (it *Item) Redo() {
	l := it.lane
	l.mu.Lock()
	it.Refused = nil
	it.unstage()
	switch {
	case l.cut || l.draining:
		l.end()
	case it.atWork:
		it.again = true
	default:
		l.rerun(it)
	}
	n := l.tender()
	l.mu.Unlock()
	l.Pool.offer(l, n)
}

// Stage says how many bytes the record has left to be committed with it, for as
// long as it is not done or is not run again.
func (it *Item) Stage(bytes int) {
	l := it.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	it.staged += bytes
	l.staged += bytes
}

func (it *Item) unstage() {
	it.lane.staged -= it.staged
	it.staged = 0
}

// heavy reports whether so much is to be committed that nothing more begins.
func (l *Lane) heavy() bool { return l.MaxBytes > 0 && l.staged >= l.MaxBytes }

// Hold has the lane begin nothing until Release, and begins another era of it:
// what has begun before and not ended can be told from what begins afterwards.
func (l *Lane) Hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holds++
	l.era++
}

// Release ends one Hold. What is to be run again begins first.
func (l *Lane) Release() {
	l.mu.Lock()
	l.holds--
	n := l.tender()
	l.mu.Unlock()
	l.Pool.offer(l, n)
}

// Era is how often Hold was called.
func (l *Lane) Era() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.era
}

// Era is that of the lane when Work was called for the record. It is for Work.
func (it *Item) Era() uint64 { return it.era }

// Line is the line that the item stands in with those that are handled one
// after the other, and its place there. It reports false if it waits for none.
func (it *Item) Line() (line, place uint64, ok bool) {
	switch {
	case it.lane.Order == InTurn:
		return 0, it.seq, true
	case it.line != nil:
		return it.hash, it.seq, true
	}
	return 0, 0, false
}

// Spoiled reports whether a record before it in its line is run again since it
// began: what it did came too early.
func (it *Item) Spoiled() bool {
	it.lane.mu.Lock()
	defer it.lane.mu.Unlock()
	return it.spoiled
}
