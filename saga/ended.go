package saga

import (
	"hash/maphash"
	"slices"
)

// digest stands for an id in memory.
type digest [2]uint64

var digestSeeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

func digestOf(id string) digest {
	return digest{maphash.String(digestSeeds[0], id), maphash.String(digestSeeds[1], id)}
}

// ending is what is kept of a saga that has ended.
type ending struct {
	from uint64 // hash of what it was started with
	at   int64  // when, in milliseconds; negative for Undone
}

// lookupEnded returns what is known of a saga that has ended, for a record of its
// line at an offset: a purge before it counts, though it is not committed yet.
func (x *index) lookupEnded(id string, offset int64) *endedInfo {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.ended) == 0 {
		return nil
	}
	d := digestOf(id)
	end, ok := x.ended[d]
	if by := x.claims[d]; !ok || by.purge && by.offset < offset {
		return nil
	}
	info := &endedInfo{phase: Done, ended: end.at, from: end.from, value: x.recent.get(id)}
	if end.at < 0 {
		info.phase, info.ended = Undone, -end.at
	}
	return info
}

// endedInfo is what is known of a saga that has ended.
type endedInfo struct {
	phase Phase
	ended int64  // when, milliseconds since 1970
	from  uint64 // hash of what it was started with
	value []byte // its last record, nil where it is no longer in memory
}

// recents are the last records of the sagas that ended last, within a bound.
type recents struct {
	of    map[string]*recent
	order []*recent // oldest first, from head on
	head  int
	bytes int
}

type recent struct {
	id    string
	value []byte
}

// mostRecent is how many bytes of ended sagas a partition keeps for those who
// ask right after the end.
const mostRecent = 16 << 20

func (r *recents) get(id string) []byte {
	if found := r.of[id]; found != nil {
		return found.value
	}
	return nil
}

func (r *recents) add(id string, value []byte) {
	if r.of == nil {
		r.of = map[string]*recent{}
	}
	one := &recent{id, slices.Clone(value)}
	r.remove(id)
	r.of[id] = one
	r.order = append(r.order, one)
	r.bytes += one.size()
	for r.bytes > mostRecent && r.head < len(r.order) {
		oldest := r.order[r.head]
		if r.of[oldest.id] == oldest {
			r.remove(oldest.id)
		}
		r.order[r.head] = nil
		r.head++
	}
	if r.head > 1024 && r.head > len(r.order)/2 {
		r.order = append(r.order[:0], r.order[r.head:]...)
		clear(r.order[len(r.order):cap(r.order)])
		r.head = 0
	}
}

func (r *recents) remove(id string) {
	if found := r.of[id]; found != nil {
		r.bytes -= found.size()
		delete(r.of, id)
	}
}

// size is about what it takes.
func (r *recent) size() int { return len(r.id) + len(r.value) + 100 }
