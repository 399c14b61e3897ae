package kafkatest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ExactlyOnce ends the test unless each input of a service has exactly its
// outputs, in order, and says of each that has not what there is in their place:
//
//	kafkatest.ExactlyOnce(t, k, kafkatest.Effects{
//		Inputs: []string{"order.placed"}, Outputs: []string{"order.paid"}, Group: "billing",
//	})
//
// It first waits, up to k.Timeout, until the group has committed all inputs, and
// then reads all topics from where the test began to their end, as a
// read_committed consumer does. Call it when no more inputs are sent; the service
// may run or have ended. It says:
//
//   - missing: an input without an output, or with one in some topics only
//   - doubled: an input with more outputs than it should have, each with its
//     place and time
//   - unwanted: an output where the input should have none
//   - out of order: outputs of one key that are not in the order of their inputs
//   - foreign: an output of no input
//   - uncommitted: an input that is there at or after the group's offset
//
// Records of transactions that were aborted are not seen, as nobody sees them.
// One that is still open when the time is over ends the test. Inputs and outputs
// that retention or compaction has removed are missed: use topics without.
func ExactlyOnce(t testing.TB, k *Cluster, e Effects) {
	t.Helper()
	if len(e.Inputs) == 0 || len(e.Outputs) == 0 && e.Want == nil {
		t.Fatalf("kafkatest: ExactlyOnce without inputs or without outputs proves nothing: set Effects.Inputs and Effects.Outputs")
	}
	ctx, cancel := k.within(t, k.longest())
	defer cancel()
	var committed map[place]int64
	if e.Group != "" {
		committed = k.commits(ctx, t, e)
	}
	// A wait in vain is judged all the same: what is missing tells why.
	ctx, cancel = context.WithTimeout(context.Background(), k.longest())
	defer cancel()
	records, err := k.history(ctx, e.Inputs)
	if err == nil {
		var outputs []*kgo.Record
		outputs, err = k.history(ctx, e.written(records))
		records = append(records, outputs...)
	}
	if err != nil {
		t.Fatalf("kafkatest: exactly once: %v%s", err, k.hint())
	}
	if len(records) == 0 {
		t.Fatalf("kafkatest: ExactlyOnce with topics that hold nothing proves nothing: inputs %q", e.Inputs)
	}
	if err := e.judge(records, committed).err(); err != nil {
		t.Fatalf("kafkatest: %v%s", err, k.hint())
	}
}

// commits waits until the group has committed what there is of the inputs, and
// returns its offsets. When ctx ends it returns what they are then.
func (k *Cluster) commits(ctx context.Context, t testing.TB, e Effects) map[place]int64 {
	t.Helper()
	adm := kadm.NewClient(k.admin)
	for step := 5 * time.Millisecond; ; step = min(2*step, k.longest()/100) {
		// Not with ctx: the last answer counts when its time is over.
		ask, cancel := context.WithTimeout(context.Background(), k.adminTimeout())
		got, err := adm.FetchOffsets(kadm.RequireStable(ask), e.Group)
		if errors.Is(err, kerr.GroupIDNotFound) { // it has committed nothing yet
			err = nil
		}
		var ends map[place]int64
		if err == nil {
			ends, err = endsOf(ask, adm.ListEndOffsets, e.Inputs)
		}
		cancel()
		if err != nil && ctx.Err() != nil {
			t.Fatalf("kafkatest: exactly once: the offsets of group %q: %v", e.Group, err)
		}
		committed, behind := map[place]int64{}, err != nil
		for p, end := range ends {
			at := int64(0)
			if o, ok := got.Lookup(p.topic, p.partition); ok {
				at = max(o.At, 0)
			}
			committed[p] = at
			begin, _ := k.begin.Lookup(p.topic, p.partition)
			behind = behind || max(at, begin.At, 0) < end && !k.onlyMarkers(ctx, p, at, end)
		}
		if !behind || ctx.Err() != nil {
			return committed
		}
		select {
		case <-time.After(step):
		case <-ctx.Done():
		}
	}
}

// onlyMarkers tells whether a partition holds no record from at on, but the
// markers of transactions, whose offsets a group need not commit.
func (k *Cluster) onlyMarkers(ctx context.Context, p place, at, end int64) bool {
	if end-at > 100 { // no need to look
		return false
	}
	rs, err := k.read(ctx, map[place]int64{p: at}, map[place]int64{p: end})
	return err == nil && len(rs) == 0
}

// endsOf returns the ends of topics' partitions, as list has them.
func endsOf(ctx context.Context, list func(context.Context, ...string) (kadm.ListedOffsets, error), topics []string) (map[place]int64, error) {
	ends, err := list(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("the ends of topics %q: %w", topics, err)
	}
	all := map[place]int64{}
	ends.Each(func(o kadm.ListedOffset) { all[place{o.Topic, o.Partition}] = o.Offset })
	return all, nil
}

// history reads topics from where the test began to their ends of now.
func (k *Cluster) history(ctx context.Context, topics []string) ([]*kgo.Record, error) {
	adm := kadm.NewClient(k.admin)
	ends, err := endsOf(ctx, adm.ListEndOffsets, topics)
	if err != nil {
		return nil, err
	}
	starts, err := adm.ListStartOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("the starts of topics %q: %w", topics, err)
	}
	from := map[place]int64{}
	for p := range ends {
		start, _ := starts.Lookup(p.topic, p.partition)
		begin, _ := k.begin.Lookup(p.topic, p.partition)
		from[p] = max(start.Offset, begin.At, 0)
	}
	records, err := k.read(ctx, from, ends)
	if err != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		stable, _ := endsOf(context.WithoutCancel(ctx), adm.ListCommittedOffsets, topics)
		for p, at := range stable {
			if at < ends[p] {
				return nil, fmt.Errorf("%s/%d: a transaction is open since offset %d, and nobody ends it: %w", p.topic, p.partition, at, err)
			}
		}
	}
	return records, err
}

// read reads partitions between offsets, read committed, and returns the records
// by partition, those of each in order.
func (k *Cluster) read(ctx context.Context, from, to map[place]int64) ([]*kgo.Record, error) {
	parts, left := map[string]map[int32]kgo.Offset{}, map[place]bool{}
	for p, end := range to {
		if from[p] >= end {
			continue
		}
		if parts[p.topic] == nil {
			parts[p.topic] = map[int32]kgo.Offset{}
		}
		parts[p.topic][p.partition], left[p] = kgo.NewOffset().At(from[p]), true
	}
	if len(left) == 0 {
		return nil, nil
	}
	cl, err := kgo.NewClient(append(k.own(),
		kgo.ConsumePartitions(parts),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // so that positions pass the markers of transactions
	)...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	byPlace := map[place][]*kgo.Record{}
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		fetches.EachRecord(func(r *kgo.Record) {
			p := place{r.Topic, r.Partition}
			if r.Offset < to[p] && !r.Attrs.IsControl() {
				byPlace[p] = append(byPlace[p], r)
			}
			if r.Offset+1 >= to[p] {
				delete(left, p)
			}
		})
		if ctx.Err() != nil && len(left) > 0 {
			return nil, fmt.Errorf("%d partitions, such as %v, could not be read to their end: %w", len(left), anyOf(left), context.Cause(ctx))
		}
	}
	var all []*kgo.Record
	for _, rs := range byPlace {
		all = append(all, rs...)
	}
	slices.SortStableFunc(all, comparePlaces)
	return all, nil
}

// comparePlaces orders records by topic, partition and offset.
func comparePlaces(a, b *kgo.Record) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
}

func anyOf(places map[place]bool) place {
	for p := range places {
		return p
	}
	return place{}
}
