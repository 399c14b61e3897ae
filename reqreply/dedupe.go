package reqreply

import (
	"cmp"
	"context"
	"math"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

const (
	defaultKeep = 10 * time.Minute
	sagaKeep    = 24 * time.Hour
	opPrefix    = "saga "
	sweepEach   = 256  // at least so many requests between looks at all answers
	sweepMost   = 1000 // answers are deleted with one request
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

	mu     sync.Mutex // never held over a call that blocks
	sweeps map[int32]*sweep
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
	now := time.Now()
	kept.Until = now.Add(keep)
	if err := s.table.Put(ctx, key, kept); err != nil {
		return err
	}
	// Long after, so that no handler beside this one can have any use for it.
	before := now.Add(-min(keep, defaultKeep))
	for _, key := range s.old(ctx, before) {
		kept, found, err := s.table.Get(ctx, key)
		if err != nil || !found || !kept.Until.Before(before) {
			continue
		}
		if err := s.table.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// sweep is what is known of the old answers of a partition.
type sweep struct {
	keys []string // of some, found in the last look
	next int      // requests until the next look
}

// old returns keys of answers of the partition in hand that were old when they
// were found. To find them it looks at all, once in so many requests that a
// request pays for a few.
func (s *store) old(ctx context.Context, before time.Time) (keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := wherry.RecordFrom(ctx).Partition
	w := s.sweeps[p]
	if w == nil {
		w = &sweep{next: sweepEach}
		if s.sweeps == nil {
			s.sweeps = map[int32]*sweep{}
		}
		s.sweeps[p] = w
	}
	if w.next--; w.next <= 0 {
		w.next = math.MaxInt // for others, which go on meanwhile
		s.mu.Unlock()
		var found []string
		all := 0
		for m, err := range s.table.All(ctx) {
			if err == nil && m.Value.Until.Before(before) {
				found = append(found, string(m.Record.Key))
			}
			all++
		}
		s.mu.Lock()
		w.keys, w.next = found, max(sweepEach, all/4)
	}
	n := min(len(w.keys), sweepMost)
	keys, w.keys = w.keys[:n], w.keys[n:]
	return keys
}
