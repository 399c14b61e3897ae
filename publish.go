package wherry

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/client"
	"github.com/wherry-go/wherry/internal/table"
)

// Limits of what one record's handler and policies may stage.
const (
	maxStagedBytes   = 1 << 20
	maxStagedRecords = 10_000
	// recordOverhead bounds what a batch and a record add to key, value and
	// headers (61 bytes of batch header, up to 30 of varints).
	recordOverhead = 100
)

// Publish stages records as outputs of the record in hand and returns; it does
// not wait for a broker. The records are produced, in the order staged, after
// the outermost policy returned nil, and the record in hand counts as done
// when all of them are acknowledged. A handler that returns an error or panics
// leaves no outputs.
//
// A record whose topic is empty, that is larger than the client's
// [kgo.ProducerBatchMaxBytes] (an [*OutputError]), or that takes what is
// staged over 10,000 records or 1 MiB (or over that ProducerBatchMaxBytes, where
// it is more) is refused, and nothing of the call is staged. Outside of a handler, after it returned, and after its partition was
// taken away, Publish returns an error: there, encode with [Event.Record] and
// produce with a client of your own.
//
// The records belong to wherry from here on. A partition asked for with
// [ToPartition] is honoured. Safe for concurrent use within a handler.
func Publish(ctx context.Context, records ...*kgo.Record) error {
	s := stageFrom(ctx)
	if s == nil {
		return errors.New("publish outside of a handler: produce Event.Record with a client of your own")
	}
	return s.add(ctx, records, nil)
}

// Discard drops what the handler or policy that was given ctx has staged so
// far, writes to owned tables among it, as an error would: for one that answers
// a failure itself and returns nil. Outside of a handler it does nothing.
func Discard(ctx context.Context) {
	s := stageFrom(ctx)
	if s == nil {
		return
	}
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	if !s.ended {
		s.dropLocked()
		s.childAt = 0
	}
}

// ToPartition makes r go to partition p of its topic, whatever its key. It is
// honoured by [Publish] and by clients made with [Partitioner].
func ToPartition(r *kgo.Record, p int32) { client.ToPartition(r, p) }

// Partitioner is for clients of your own that shall honour [ToPartition]: it
// asks inner for every record without such a mark. (kgo's own partitioners
// ignore Record.Partition, but for kgo.ManualPartitioner, which uses it for
// all.)
func Partitioner(inner kgo.Partitioner) kgo.Partitioner { return client.Partitioner(inner) }

// outputs are what the handler and the policies of one record staged.
type outputs struct {
	limit int                              // largest record, in bytes
	life  context.Context                  // of the work in hand
	owned map[string]map[int32]*table.Part // topics of owned tables

	mu     sync.Mutex // never held over a call that blocks
	root   stage
	count  int
	bytes  int
	closed error // set when the handler returned or the partition was taken away
}

// stage holds what one layer of the chain staged in one call, and the stage of
// its latest call of the layer inside it. It is the context of that call.
type stage struct {
	context.Context
	of      *outputs
	own     []*kgo.Record
	child   *stage
	childAt int  // child's outputs stand before own[childAt]
	handler bool // it is the stage of the handler, not of a policy; set before the handler is called
	ended   bool // the layer has returned: nothing is added any more
}

func (o *outputs) init(life context.Context, limit int) {
	o.limit, o.life = limit, life
	o.root.of = o
}

func (s *stage) Value(key any) any {
	if key == (stageKey{}) {
		return s
	}
	return s.Context.Value(key)
}

// inner begins a call of the layer inside s, under ctx: it drops what the call
// before staged.
func (s *stage) inner(ctx context.Context) *stage {
	o := s.of
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.child != nil {
		s.child.dropLocked()
		s.child.ended = true
	}
	s.child, s.childAt = &stage{Context: ctx, of: o}, len(s.own)
	return s.child
}

// end refuses what the layer, or a goroutine it left behind, may still want to
// stage after it returned: a failed attempt leaves nothing.
func (s *stage) end() {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.ended = true
}

// dropHandler drops what the handler staged in its last call inside s.
func (s *stage) dropHandler() {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	for s.child != nil {
		s = s.child
	}
	if s.handler {
		s.dropLocked()
	}
}

func (s *stage) dropLocked() {
	for _, r := range s.own {
		s.of.count--
		s.of.bytes -= size(r)
	}
	s.own = nil
	if s.child != nil {
		s.child.dropLocked()
		s.child = nil
	}
}

// add stages records; those of owned tables only for the delivery that writes
// to them.
func (s *stage) add(ctx context.Context, records []*kgo.Record, writes *delivery) error {
	o := s.of
	if err := context.Cause(o.life); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	bytes := 0
	for _, r := range records {
		if r == nil {
			return errors.New("publish: a record is nil")
		}
		n := size(r)
		if writes == nil && o.owned[r.Topic] != nil {
			return &OutputError{Topic: r.Topic, Key: r.Key, Size: n, Err: errOwned}
		}
		if r.Topic == "" {
			return &OutputError{Key: r.Key, Size: n, Err: kerr.InvalidTopicException}
		}
		if o.limit > 0 && n+recordOverhead > o.limit {
			return &OutputError{Topic: r.Topic, Key: r.Key, Size: n, Err: fmt.Errorf("%w: the client's ProducerBatchMaxBytes is %d", kerr.MessageTooLarge, o.limit)}
		}
		bytes += n
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed != nil {
		return fmt.Errorf("publish: %w", o.closed)
	}
	if s.ended {
		return fmt.Errorf("publish: %w", errReturned)
	}
	if most := max(maxStagedBytes, o.limit); o.count+len(records) > maxStagedRecords || o.bytes+bytes > most {
		return fmt.Errorf("publish: %d records of %d bytes in all are staged for one record, the limits are %d and %d",
			o.count+len(records), o.bytes+bytes, maxStagedRecords, most)
	}
	inHand := RecordFrom(ctx)
	for _, r := range records {
		if r == inHand { // forwarded: producing changes a record
			forwarded := *r
			r = &forwarded
		}
		carry(ctx, r)
		s.own = append(s.own, r)
	}
	o.count += len(records)
	o.bytes += bytes
	return nil
}

// carry gives r the values of ctx (the trace) without its end: kgo drops what
// is buffered under a context that ended. Its marks stay.
func carry(ctx context.Context, r *kgo.Record) {
	p, marked := client.Marked(r)
	last := client.IsLast(r)
	r.Context = context.WithoutCancel(ctx)
	if marked {
		client.ToPartition(r, p)
	}
	if last {
		client.Last(r)
	}
}

// close refuses further outputs, for the reason given, and returns what was
// staged.
func (o *outputs) close(reason error) []*kgo.Record {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed == nil {
		o.closed = reason
	}
	switch {
	case o.count == 0:
		return nil
	case o.root.child == nil:
		return o.root.own
	}
	return o.root.collect(make([]*kgo.Record, 0, o.count))
}

// isClosed reports whether the handler has returned.
func (o *outputs) isClosed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed != nil
}

func (s *stage) collect(all []*kgo.Record) []*kgo.Record {
	if s.child == nil {
		return append(all, s.own...)
	}
	all = append(all, s.own[:s.childAt]...)
	all = s.child.collect(all)
	return append(all, s.own[s.childAt:]...)
}

// size is what counts against the limits.
func size(r *kgo.Record) int {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}
