package wherry

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/lane"
	"github.com/wherry-go/wherry/internal/planted"
)

// plan is what one transaction is to commit.
type plan struct {
	member     member
	entries    []*entry
	outputs    []*kgo.Record // of the entries, in their order
	offsets    map[topicPartition]position
	partitions []*partition // of offsets
}

// plan plans a transaction of entries, as many as the finished sets have room
// for, and of all else that finished since the last in their partitions, in
// which, and in those of the run.
func (x *exact) plan(m member, which []*partition, entries []*entry) *plan {
	r := x.run
	pl := &plan{member: m, offsets: map[topicPartition]position{}}
	limit := int(r.setLimit.Load())
	all := r.owned()
	for _, p := range which {
		if !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	narrow := map[*partition]bool{}
	for again := true; again; {
		again = false
		items := map[*partition][]*lane.Item{}
		for _, e := range entries {
			items[e.p] = append(items[e.p], e.it)
		}
		for _, p := range all {
			r.mu.Lock()
			id, seen := p.id, p.changes
			ours := p.placed && p.member == m.id && !p.lane.WasCut()
			r.mu.Unlock()
			delete(pl.offsets, p.topicPartition) // of the last round: it may have been taken away since
			if !ours {
				continue
			}
			room := limit
			if id == (kadm.TopicID{}) {
				room = 0
			}
			found := p.lane.Propose(id, room, items[p], seen)
			if found.Fits < len(items[p]) {
				narrow[p], again = true, true
				entries = x.without(entries, p, found.Fits)
				break
			}
			if found.Low.Offset >= 0 {
				at := position{Mark: found.Low, topic: id, finished: found.Set, changes: found.Changes}
				if planted.Is(planted.NoMetadata) {
					at.finished = ""
				}
				if planted.Is(planted.PollHead) {
					r.mu.Lock()
					at.Offset = max(at.Offset, p.next)
					r.mu.Unlock()
				}
				pl.offsets[p.topicPartition] = at
			}
		}
	}
	for _, p := range all {
		if _, ok := pl.offsets[p.topicPartition]; ok {
			pl.partitions = append(pl.partitions, p)
		}
		p.lane.Narrow(narrow[p])
	}
	x.stuck = narrow
	for _, e := range entries {
		if _, ok := pl.offsets[e.p.topicPartition]; !ok {
			continue // taken away just now
		}
		pl.entries = append(pl.entries, e)
		pl.outputs = append(pl.outputs, e.outputs...)
	}
	return pl
}

// without returns entries without those of p but the first so many, nor those
// that may rest on what these wrote to tables.
func (x *exact) without(entries []*entry, p *partition, fits int) (kept []*entry) {
	left, cut := fits, false
	for _, e := range entries {
		switch {
		case e.p == p && left == 0:
			cut = true
			continue
		case e.p == p:
			left--
		case cut && e.rests && e.p.partition == p.partition:
			continue
		}
		kept = append(kept, e)
	}
	return kept
}
