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
	sweepEach   = 256 // requests
	sweepMost   = 1000
)

// Answered is what [Method].Dedupe keeps of a request: its answer.
type Answered struct {
	Until   time.Time // how long it is kept
	Replies []Reply
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

// key is the key in the table; "" where the request is not kept.
func (s *store) key(a *address) string {
	switch {
	case s.table == nil:
		return ""
	case a.request != "":
		return "request " + a.request
	case len(a.id) > 0:
		return "correlation " + string(a.id)
	}
	return ""
}

// find returns the answer that was given before.
func (s *store) find(ctx context.Context, a *address) (outs []*kgo.Record, found bool, err error) {
	key := s.key(a)
	if key == "" || !a.asks() {
		return nil, false, nil
	}
	kept, found, err := s.table.Get(ctx, key)
	if err != nil || !found || time.Now().After(kept.Until) {
		return nil, false, err
	}
	for _, reply := range kept.Replies {
		outs = append(outs, &kgo.Record{Value: reply.Value, Headers: reply.Headers})
	}
	return outs, len(outs) > 0, nil
}

// keepAnswer puts an answer into the table, and deletes some that are old.
func (s *store) keepAnswer(ctx context.Context, a *address, outs []*kgo.Record) error {
	if s.table == nil {
		return nil
	}
	key := s.key(a)
	if key == "" {
		return nil
	}
	return s.put(ctx, key, outs)
}

func (s *store) put(ctx context.Context, key string, outs []*kgo.Record) error {
	keep := cmp.Or(s.keep, defaultKeep)
	kept := Answered{Until: time.Now().Add(keep)}
	for _, out := range outs {
		kept.Replies = append(kept.Replies, Reply{Value: out.Value, Headers: out.Headers})
	}
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
