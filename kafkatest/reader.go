package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// errTimeout is the cause of a context that ended because its time was over.
var errTimeout = errors.New("time is over")

// reader reads one topic from where the test began, all partitions, read
// committed, without a group: no rebalance to wait for, nothing to leave behind.
// It has no goroutine of its own; whoever waits for a record polls.
type reader struct {
	topic  string
	client *kgo.Client
	turn   chan struct{} // holds a token while somebody uses the fields below
	queue  []*kgo.Record
	at     map[int32]int64 // next offset of each partition, where known; transaction markers are offsets too
	given  int             // records returned so far
}

// reader returns the reader of a topic, made at first use.
func (k *Cluster) reader(t testing.TB, topic string) *reader {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.readers == nil {
		t.Fatalf("kafkatest: the cluster is closed: the test that made it has ended")
	}
	if r := k.readers[topic]; r != nil {
		return r
	}
	opts := []kgo.Opt{
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // so that positions pass the markers of transactions
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	}
	if k.virtual {
		// It reads from the start of the test to its end: the fewer fetches, the
		// less an idle hour costs. A record ends the wait at once.
		opts = append(opts, kgo.FetchMaxWait(time.Minute))
	}
	at := map[int32]int64{}
	if begin := k.begin[topic]; len(begin) > 0 {
		parts := make(map[int32]kgo.Offset, len(begin))
		for p, o := range begin {
			parts[p], at[p] = kgo.NewOffset().At(o.At), o.At
		}
		opts = append(opts, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: parts}))
	} else {
		opts = append(opts, kgo.ConsumeTopics(topic))
	}
	client, err := kgo.NewClient(append(k.own(), opts...)...)
	if err != nil {
		t.Fatalf("kafkatest: open a reader: %v", err)
	}
	r := &reader{topic: topic, client: client, turn: make(chan struct{}, 1), at: at}
	k.readers[topic] = r
	return r
}

// next returns the next record, or the cause of ctx's end.
func (r *reader) next(ctx context.Context) (*kgo.Record, error) {
	if err := r.take(ctx); err != nil {
		return nil, err
	}
	defer r.give()
	for len(r.queue) == 0 {
		if err := r.poll(ctx); err != nil {
			return nil, err
		}
	}
	first := r.queue[0]
	r.queue = r.queue[1:]
	r.given++
	return first, nil
}

// rest reads up to what is committed now, and returns the first record there,
// without counting it as given, or nil.
func (r *reader) rest(ctx context.Context, admin *kgo.Client) (*kgo.Record, error) {
	if err := r.take(ctx); err != nil {
		return nil, err
	}
	defer r.give()
	adm := kadm.NewClient(admin)
	ends, err := adm.ListCommittedOffsets(ctx, r.topic)
	if err == nil {
		err = ends.Error()
	}
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return nil, errors.New("the topic does not exist: name it in NewCluster or make it with Create")
	}
	if err != nil {
		return nil, fmt.Errorf("list the committed offsets: %w", err)
	}
	starts, err := adm.ListStartOffsets(ctx, r.topic)
	if err != nil {
		return nil, fmt.Errorf("list the start offsets: %w", err)
	}
	for {
		if len(r.queue) > 0 {
			return r.queue[0], nil
		}
		behind := false
		ends.Each(func(end kadm.ListedOffset) {
			start, _ := starts.Lookup(end.Topic, end.Partition)
			behind = behind || max(r.at[end.Partition], start.Offset) < end.Offset
		})
		if !behind {
			return nil, nil
		}
		if err := r.poll(ctx); err != nil {
			return nil, err
		}
	}
}

// poll waits for one fetch and queues its records. Errors that go away by
// themselves (a topic that is not there yet, a leader that moves) are waited
// for until ctx ends.
func (r *reader) poll(ctx context.Context) error {
	fetches := r.client.PollFetches(ctx)
	fetches.EachRecord(func(rec *kgo.Record) {
		r.at[rec.Partition] = rec.Offset + 1
		if !rec.Attrs.IsControl() {
			r.queue = append(r.queue, rec)
		}
	})
	if len(r.queue) > 0 {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, e := range fetches.Errors() {
		var broker *kerr.Error
		if errors.As(e.Err, &broker) && broker.Retriable {
			continue
		}
		return fmt.Errorf("read %s/%d: %w", e.Topic, e.Partition, e.Err)
	}
	return nil
}

// take waits for the reader's turn. It is a channel and not a mutex because the
// holder waits for brokers, and whoever waits for it may run out of time.
func (r *reader) take(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// give ends the turn.
func (r *reader) give() { <-r.turn }
