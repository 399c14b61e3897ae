package wherry

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/client"
	"github.com/wherry-go/wherry/internal/table"
)

// An OwnedTable is state that a Consumer's handlers keep: a map from key to
// value that lives in a compacted topic and in the memory of whoever has the
// partition. A handler's writes are part of the transaction that has its
// outputs and its offset, so the three are never apart. The Consumer's
// [Delivery] must be ExactlyOnce, and its Tables must list the table.
//
// The table has as many partitions as the topics that the Consumer reads.
// Handlers of the records of partition n see and write its partition n, and
// nothing else: what belongs together has one key, or keys that a producer puts
// in one partition. Before the first record of a partition is handled, its part
// is read back whole; [PartitionStatus].Restoring tells how much is left. It is
// in memory, as encoded bytes.
//
// A handler sees what it wrote itself, what handlers before it wrote, committed
// or not, and what is committed. Writes of an attempt that failed are dropped,
// as its outputs are. Handlers that run side by side must not write the same key:
// those of an Order other than ByPartition, unless it is the key of their record
// and the Order is ByKey; and those of several topics, among them the delay topics
// of retry.Topics, whatever the Order. The messages of a batch ([Event.Batch]) do
// not see each other's writes: read and write a key once in a batch, or use ByKey.
//
// Only its Consumer may write to the topic. Others read it as a [Table], or with
// any client that has isolation.level=read_committed. An OwnedTable is a name
// and has no state of its own: several Consumers may list the same value.
type OwnedTable[V any] struct {
	// Topic is the compacted topic. Run makes it where it does not exist, and
	// refuses one that is not a changelog (see [TopicSpec]). Required.
	Topic string
	// Codec turns values into bytes and back; nil means [JSON].
	Codec Codec
	// Spec says more of the topic to be made: its replicas and settings.
	Spec TopicSpec
	// Index, if set, makes what the owner keeps beside each partition: it is
	// called when one is assigned for the first time, or anew. nil means nothing.
	Index func(partition int32) TableIndex
}

// A TableIndex is what the owner of a table keeps beside one of its partitions,
// such as what is due in it, and when. It sees what is committed, and nothing
// else. Its methods are called one after the other and must not block.
type TableIndex interface {
	// Take is called with each record of the partition: as it is read back, and
	// once its transaction is committed. A record without a Value deletes its
	// key. The record must not be kept or changed.
	//
	// Where keep is false the table does not have the record in memory: to its
	// Get and All the key is not there, while the topic has it.
	Take(r *kgo.Record) (keep bool)
	// Reset forgets all: the partition is read from the start.
	Reset()
	// Owned tells when the partition was read back, before its first record is
	// handled, and when it was taken away. After that it may be read on, and be
	// owned once more. It is not told of the end of Run.
	Owned(yes bool)
}

// Owned is an [OwnedTable] of any type.
type Owned interface {
	owned() TopicSpec
	index() func(partition int32) TableIndex
}

func (t *OwnedTable[V]) index() func(int32) TableIndex { return t.Index }

func (t *OwnedTable[V]) owned() TopicSpec {
	spec := t.Spec
	spec.Name, spec.Changelog = t.Topic, true
	return spec
}

// Get returns the value of key, and whether there is one. ctx must be a
// handler's. A value that does not decode is a [*RecordError]. The value is
// decoded anew for each call.
func (t *OwnedTable[V]) Get(ctx context.Context, key string) (v V, ok bool, err error) {
	d, part, err := t.part(ctx)
	if err != nil {
		return v, false, err
	}
	r, staged := d.outputs.find(t.Topic, key)
	if !staged {
		e, ok := part.Get(key)
		if !ok {
			return v, false, nil
		}
		r = t.record(key, e)
	}
	if r.Value == nil {
		return v, false, nil
	}
	m, err := t.event().Message(r)
	return m.Value, err == nil, err
}

// Put sets the value of key; a nil pointer deletes it. It is staged as an
// output is, within the same limits and with the same errors, see [Publish].
func (t *OwnedTable[V]) Put(ctx context.Context, key string, v V) error {
	r, err := t.event().Record(key, v)
	if err != nil {
		return err
	}
	return t.stage(ctx, key, r)
}

// Delete deletes key, as [OwnedTable.Put] sets it.
func (t *OwnedTable[V]) Delete(ctx context.Context, key string) error {
	return t.stage(ctx, key, &kgo.Record{Topic: t.Topic})
}

// All ranges over the keys of the partition of the record in hand, in no order,
// without what the handler itself has staged. Errors come as with [Table.All].
func (t *OwnedTable[V]) All(ctx context.Context) iter.Seq2[Message[V], error] {
	return func(yield func(Message[V], error) bool) {
		_, part, err := t.part(ctx)
		if err != nil {
			yield(Message[V]{Context: ctx}, err)
			return
		}
		for key, e := range part.All() {
			if !yield(t.event().Message(t.record(key, e))) {
				return
			}
		}
	}
}

func (t *OwnedTable[V]) event() Event[V] { return Event[V]{Topic: t.Topic, Codec: t.Codec} }

func (t *OwnedTable[V]) record(key string, e table.Entry) *kgo.Record {
	return &kgo.Record{
		Topic: t.Topic, Partition: e.Partition, Offset: e.Offset, Timestamp: time.UnixMilli(e.Millis),
		Key: []byte(key), Value: e.Value, Headers: e.Headers,
	}
}

func (t *OwnedTable[V]) stage(ctx context.Context, key string, r *kgo.Record) error {
	d, _, err := t.part(ctx)
	if err != nil {
		return err
	}
	r.Key = []byte(key) // also an empty one: compacted topics have no records without
	client.ToPartition(r, d.partition.partition)
	return stageFrom(ctx).add(ctx, []*kgo.Record{r}, d)
}

// part returns the part of the record in hand, which from now on rests on what
// is in it.
func (t *OwnedTable[V]) part(ctx context.Context) (*delivery, *table.Part, error) {
	d := deliveryFrom(ctx)
	if d == nil || d.run == nil {
		return nil, nil, fmt.Errorf("table %s: outside of a handler: read it as a Table", t.Topic)
	}
	if err := context.Cause(d.Context); err != nil {
		return nil, nil, fmt.Errorf("table %s: %w", t.Topic, err)
	}
	x := d.run.exact
	if x == nil {
		return nil, nil, fmt.Errorf("table %s: the Consumer's Delivery is not ExactlyOnce", t.Topic)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	parts, ok := x.tables.parts[t.Topic]
	if !ok {
		return nil, nil, fmt.Errorf("table %s: it is not one of the Consumer's Tables", t.Topic)
	}
	n := d.partition.partition
	part := parts[n]
	if part == nil {
		return nil, nil, fmt.Errorf("table %s: %w", t.Topic, errRevoked)
	}
	d.rests.CompareAndSwap(0, x.tables.state(n))
	return d, part, nil
}

var errOwned = errors.New("it is an owned table of this Consumer: use its Put and Delete")

// find returns the last record that the layers of a handler staged for a key of
// a topic.
func (o *outputs) find(topic, key string) (found *kgo.Record, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.count == 0 {
		return nil, false
	}
	return o.root.find(topic, key)
}

func (s *stage) find(topic, key string) (*kgo.Record, bool) {
	last := func(rs []*kgo.Record) (*kgo.Record, bool) {
		for i := len(rs) - 1; i >= 0; i-- {
			if rs[i].Topic == topic && string(rs[i].Key) == key {
				return rs[i], true
			}
		}
		return nil, false
	}
	if s.child == nil {
		return last(s.own)
	}
	if r, ok := last(s.own[s.childAt:]); ok {
		return r, true
	}
	if r, ok := s.child.find(topic, key); ok {
		return r, true
	}
	return last(s.own[:s.childAt])
}
