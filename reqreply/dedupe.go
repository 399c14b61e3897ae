package reqreply

import (
	"cmp"
	"context"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

const (
	defaultKeep = 10 * time.Minute
	sagaKeep    = 24 * time.Hour
	opPrefix    = "saga "
	sweepEach   = 256 // requests
	sweepMost   = 1000
)

// Answered is what [Method].Dedupe keeps of a request: its answer.
type Answered struct {
	Until   time.Time // how long it is kept
	Replies []Reply
	// Undone is of a step of a saga that was undone before it was done: it has no
	// answer, and is not to be done any more.
	Undone bool `json:",omitempty"`
}

// records are the answer without its address.
func (a *Answered) records() (outs []*kgo.Record) {
	for _, reply := range a.Replies {
		outs = append(outs, &kgo.Record{Value: reply.Value, Headers: reply.Headers})
	}
	return outs
}

// Reply is a reply without its address.
type Reply struct {
	Value   []byte // null stays apart from empty
	Headers []kgo.RecordHeader
}

// store keeps answers in a table.
type store struct {
	table *wherry.OwnedTable[Answered]
	keep  time.Duration

	requests atomic.Uint64
}

// name is the table's, "" for none.
func (s *store) name() string {
	if s.table == nil {
		return ""
	}
	return s.table.Topic
}

// key is the key in the table of what no saga asks; "" where it is not kept.
func (s *store) key(a *address) string {
	switch {
	case a.request != "":
		return "request " + a.request
	case len(a.id) > 0:
		return "correlation " + string(a.id)
	}
	return ""
}

// find returns the answer that was given before, nil for none.
func (s *store) find(ctx context.Context, a *address) ([]*kgo.Record, error) {
	key := s.key(a)
	if key == "" || !a.asks() {
		return nil, nil
	}
	kept, found, err := s.table.Get(ctx, key)
	if err != nil || !found || time.Now().After(kept.Until) {
		return nil, err
	}
	return kept.records(), nil
}

// keepAnswer puts an answer into the table.
func (s *store) keepAnswer(ctx context.Context, a *address, outs []*kgo.Record, failed bool) error {
	if s.table == nil {
		return nil
	}
	var kept Answered
	for _, out := range outs {
		kept.Replies = append(kept.Replies, Reply{Value: out.Value, Headers: out.Headers})
	}
	if op, ok := a.op(); ok {
		if failed { // a saga tries again, and then it may succeed
			return nil
		}
		return s.put(ctx, opPrefix+op.Key(), kept, sagaKeep)
	}
	if key := s.key(a); key != "" {
		return s.put(ctx, key, kept, defaultKeep)
	}
	return nil
}

// put puts an answer into the table, and deletes some that are old.
func (s *store) put(ctx context.Context, key string, kept Answered, keep time.Duration) error {
	keep = cmp.Or(s.keep, keep)
	kept.Until = time.Now().Add(keep)
	if err := s.table.Put(ctx, key, kept); err != nil {
		return err
	}
	if s.requests.Add(1)%sweepEach != 0 {
		return nil
	}
	// Long after, so that no handler beside this one can have any use for it.
	before, deleted := time.Now().Add(-keep), 0
	for m, err := range s.table.All(ctx) {
		if err != nil || !m.Value.Until.Before(before) || string(m.Record.Key) == key {
			continue
		}
		if err := s.table.Delete(ctx, string(m.Record.Key)); err != nil {
			return err
		}
		if deleted++; deleted == sweepMost {
			break
		}
	}
	return nil
}
