package wherry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/client"
	"github.com/wherry-go/wherry/internal/table"
)

// A Table follows a compacted topic as a map from key to the latest value: it
// reads the topic from its start and then keeps up with it. Anyone may write
// to the topic, with a client of their own or from a handler: [Table.Record],
// [Table.Tombstone]. The whole map is in memory, as encoded bytes.
//
// Only committed records are seen, those of a key in the order of its
// partition. What a handler publishes is acknowledged after the handler returned
// and while the next record is handled, so the handler of that next record may
// not see it yet: an update that depends on the value before it must bear to
// be computed from an older one.
//
// [EnsureTopics] makes the topic, of a [TopicSpec] with Changelog.
//
// Its fields must not be changed after Run was called; its methods are safe
// for concurrent use.
type Table[V any] struct {
	// Client says how to reach the cluster; see [Consumer.Client]. Required.
	Client *kgo.Client
	// Topic is the compacted topic. Required.
	Topic string
	// Codec turns values into bytes and back; nil means [JSON].
	Codec Codec
	// Opts override the options of Client for this Table alone.
	Opts []kgo.Opt
	// Logger logs what an operator should know. nil means [slog.Default].
	Logger *slog.Logger

	once    sync.Once
	started atomic.Bool
	store   *table.Store
	cl      *kgo.Client  // Run's own; set before ready is closed
	adm     *kadm.Client // of cl
	ready   chan struct{}
	ended   chan struct{} // closed when Run has returned
	err     error         // why; read after ended
	lag     atomic.Int64
}

func (t *Table[V]) init() {
	t.once.Do(func() {
		t.store, t.ready, t.ended = table.New(), make(chan struct{}), make(chan struct{})
	})
}

// Ready is closed when the map holds all that the topic held when Run began.
func (t *Table[V]) Ready() <-chan struct{} {
	t.init()
	return t.ready
}

// Run follows the topic until ctx is done, and then returns nil. It can be
// called once. It waits, logging, for a broker to answer and for the topic to
// appear. It returns an error if the configuration is wrong, credentials are
// refused, or the cluster lost records, which makes the map wrong.
//
// A value that does not decode stops only those who ask for it.
func (t *Table[V]) Run(ctx context.Context) (err error) {
	t.init()
	if t.started.Swap(true) {
		return errors.New("this Table has run already: make another one")
	}
	defer func() {
		if ctx.Err() != nil {
			err = nil
		}
		if err != nil {
			err = fmt.Errorf("table %s: %w", t.Topic, err)
		}
		t.err = err
		close(t.ended)
	}()
	if err = client.Check(t.Client); err != nil {
		return err
	}
	if t.Topic == "" {
		return errors.New("no topic: set Topic")
	}
	log := cmp.Or(t.Logger, slog.Default()).With("table", t.Topic)
	probe, err := client.Probe(ctx, t.Client, log)
	if err != nil {
		return err
	}
	probe.Close()
	cl, err := client.Open(t.Client, t.Opts,
		client.Outlive(ctx),
		kgo.ConsumeTopics(t.Topic),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// The position must pass the mark of the last transaction too.
		kgo.KeepControlRecords(),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	t.cl, t.adm = cl, kadm.NewClient(cl)
	goal, err := t.goal(ctx, log)
	if err != nil {
		return err
	}
	return t.follow(ctx, cl, goal, log)
}

// Get returns the value of key, and whether there is one. Until the table is
// ready it waits. A value that does not decode is a [*RecordError]; the value
// is decoded anew for each caller, who may change it. After the end of Run it
// answers with what it held then, unless Run returned an error, which it then
// returns.
func (t *Table[V]) Get(ctx context.Context, key string) (v V, ok bool, err error) {
	if err = t.await(ctx, t.Ready()); err != nil {
		return v, false, err
	}
	e, ok := t.store.Get(key)
	if !ok {
		return v, false, nil
	}
	m, err := t.message(key, e)
	return m.Value, err == nil, err
}

// All ranges over the map as it is at the call, in no order. Until the table
// is ready it waits. A value that does not decode comes as a [*RecordError]
// with its record; an error with which nothing can be ranged over comes alone.
func (t *Table[V]) All(ctx context.Context) iter.Seq2[Message[V], error] {
	return func(yield func(Message[V], error) bool) {
		if err := t.await(ctx, t.Ready()); err != nil {
			yield(Message[V]{Context: ctx}, err)
			return
		}
		for key, e := range t.store.All() {
			// Whoever gets the record may change it.
			e.Value, e.Headers = slices.Clone(e.Value), table.CloneHeaders(e.Headers)
			if !yield(t.message(key, e)) {
				return
			}
		}
	}
}

// Wait waits until the table has taken in r: a record that a client produced
// to the table's topic and that was acknowledged, so that it has its partition
// and offset. A reader who waits for what it wrote then finds it.
func (t *Table[V]) Wait(ctx context.Context, r *kgo.Record) error {
	t.init()
	if r.Topic != t.Topic {
		return fmt.Errorf("table %s: waiting for a record of topic %s", t.Topic, r.Topic)
	}
	for {
		next, moved := t.store.Position(r.Partition)
		if next > r.Offset {
			return nil
		}
		wait, cancel := context.WithTimeout(ctx, silence)
		err := t.await(wait, moved)
		silent := wait.Err() != nil
		cancel()
		if err != nil && (!silent || ctx.Err() != nil) {
			return err
		}
		select {
		case <-t.ready: // before, follow does it
			if silent {
				_ = t.skip(ctx, map[int32]int64{r.Partition: r.Offset + 1}) // asked again if no broker answers
			}
		default:
		}
	}
}

// Until waits until what key has satisfies ok, and returns it: v is the zero
// value and found false while there is none. ok must be pure. Until the table is
// ready it waits, and errors come as with [Table.Get].
func (t *Table[V]) Until(ctx context.Context, key string, ok func(v V, found bool) bool) (v V, found bool, err error) {
	for {
		t.init()
		_, moved := t.store.Position(0)
		v, found, err = t.Get(ctx, key)
		if err != nil || ok(v, found) {
			return v, found, err
		}
		if err = t.await(ctx, moved); err != nil {
			return v, found, err
		}
	}
}

// skip has the store pass what is gone below ends.
func (t *Table[V]) skip(ctx context.Context, ends map[int32]int64) error {
	ctx, cancel := context.WithTimeout(ctx, 5*silence)
	defer cancel()
	return t.store.Skip(ctx, t.cl, t.Topic, ends)
}

// Sync waits until the table has taken in all that its topic holds now: it
// asks the brokers for the end of each partition and waits for those, and so
// for every transaction that is open to be decided. What was acknowledged
// before the call is found after it, whoever wrote it.
func (t *Table[V]) Sync(ctx context.Context) error {
	if err := t.await(ctx, t.Ready()); err != nil {
		return err
	}
	ends, err := t.adm.ListEndOffsets(ctx, t.Topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("table %s: asking for its end: %w", t.Topic, err)
	}
	for p, end := range ends[t.Topic] {
		if next, _ := t.store.Position(p); next == 0 && end.Offset > 0 {
			t.cl.ForceMetadataRefresh() // the partition may be a new one
		}
		if err := t.Wait(ctx, &kgo.Record{Topic: t.Topic, Partition: p, Offset: end.Offset - 1}); err != nil {
			return err
		}
	}
	return nil
}

// Record returns a record of the table's topic that sets key to v, or deletes
// it if v is a nil pointer. Every key is one, also the empty one: Kafka refuses
// records without a key on compacted topics.
func (t *Table[V]) Record(key string, v V) (*kgo.Record, error) {
	r, err := t.event().Record(key, v)
	if err != nil {
		return nil, err
	}
	r.Key = []byte(key)
	return r, nil
}

// Tombstone returns a record of the table's topic that deletes key.
func (t *Table[V]) Tombstone(key string) *kgo.Record {
	return &kgo.Record{Topic: t.Topic, Key: []byte(key)}
}

func (t *Table[V]) event() Event[V] { return Event[V]{Topic: t.Topic, Codec: t.Codec} }

func (t *Table[V]) message(key string, e table.Entry) (Message[V], error) {
	return t.event().Message(&kgo.Record{
		Topic: t.Topic, Partition: e.Partition, Offset: e.Offset, Timestamp: time.UnixMilli(e.Millis),
		Key: []byte(key), Value: e.Value, Headers: e.Headers,
	})
}

// await waits for ch, unless the table has ended before it.
func (t *Table[V]) await(ctx context.Context, ch <-chan struct{}) error {
	select {
	case <-t.ended:
		if t.err != nil {
			return t.err // what was restored may be wrong
		}
	default:
	}
	select {
	case <-ch:
		return nil
	default:
	}
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("table %s: waiting for it: %w", t.Topic, context.Cause(ctx))
	case <-t.ended:
		if t.err != nil {
			return t.err
		}
		return fmt.Errorf("table %s: it has stopped", t.Topic)
	}
}
