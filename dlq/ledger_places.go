package dlq

import (
	"math/bits"
	"slices"
	"time"
)

// place is where a dead letter stands in its topic.
type place struct {
	partition int32
	offset    int64
}

const pageSize = 1024

// page is the letters at pageSize offsets of a partition that follow each
// other.
type page struct {
	set   [pageSize / 64]uint64
	marks []mark // of those in set, in their order; nil where details are not kept
}

// mark is what a Decision has that its transaction does not share.
type mark struct {
	toOffset    int64
	toPartition int32
	text        uint32 // of texts
}

// rank is how many letters before the n-th are in the page.
func (p *page) rank(n int) int {
	rank := bits.OnesCount64(p.set[n/64] & (1<<(n%64) - 1))
	for _, w := range p.set[:n/64] {
		rank += bits.OnesCount64(w)
	}
	return rank
}

func (p *page) has(n int) bool { return p.set[n/64]&(1<<(n%64)) != 0 }

type pageKey struct {
	partition int32
	n         int64
}

func (at place) page() (key pageKey, n int) {
	return pageKey{at.partition, at.offset / pageSize}, int(at.offset % pageSize)
}

// places is a set of letters, with what was decided about each where that is
// kept. A letter takes a bit where most are in it, and at most 250 bytes where
// one in a thousand is; 16 to 32 bytes more with what was decided.
type places map[pageKey]*page

func (s places) has(at place) bool {
	key, n := at.page()
	p := s[key]
	return p != nil && p.has(n)
}

// add adds a letter; m nil is without details.
func (s places) add(at place, m *mark) {
	key, n := at.page()
	p := s[key]
	if p == nil {
		p = new(page)
		s[key] = p
	}
	known := p.has(n)
	p.set[n/64] |= 1 << (n % 64)
	switch {
	case m == nil:
	case known:
		p.marks[p.rank(n)] = *m
	default:
		p.marks = slices.Insert(p.marks, p.rank(n), *m)
	}
}

func (s places) remove(at place) {
	key, n := at.page()
	p := s[key]
	if p == nil || !p.has(n) {
		return
	}
	if p.marks != nil {
		i := p.rank(n)
		p.marks = slices.Delete(p.marks, i, i+1)
	}
	p.set[n/64] &^= 1 << (n % 64)
}

// mark returns what is kept of a letter's decision, nil if nothing is.
func (s places) mark(at place) *mark {
	key, n := at.page()
	p := s[key]
	if p == nil || !p.has(n) || p.marks == nil {
		return nil
	}
	return &p.marks[p.rank(n)]
}

// text is what the decisions of a transaction have in common.
type text struct {
	action           Action
	millis           int64
	by, why, run, to string
}

// texts keeps each once.
type texts struct {
	all   []text
	index map[text]uint32
}

func (t *texts) number(d Decision) uint32 {
	x := text{d.Action, d.At.UnixMilli(), d.By, d.Why, d.Run, d.To}
	n, ok := t.index[x]
	if !ok {
		if t.index == nil {
			t.index = map[text]uint32{}
		}
		n = uint32(len(t.all))
		t.all, t.index[x] = append(t.all, x), n
	}
	return n
}

func (t *texts) decision(m mark) *Decision {
	x := t.all[m.text]
	return &Decision{
		Action: x.action, At: time.UnixMilli(x.millis).UTC(), By: x.by, Why: x.why, Run: x.run,
		To: x.to, ToPartition: m.toPartition, ToOffset: m.toOffset,
	}
}
