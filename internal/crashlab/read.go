package crashlab

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Reader looks at what a run leaves behind. Its client is one that no fault hits.
type Reader struct {
	Client *kgo.Client // that only says how to reach the brokers
	Topics Topics
}

// Log reads all that the run left behind. Transactions that are open are waited
// for, until ctx ends.
func (r Reader) Log(ctx context.Context) (Log, error) {
	l := Log{}
	for _, of := range []struct {
		topic string
		to    *[]*kgo.Record
	}{{r.Topics.In, &l.In}, {r.Topics.A, &l.A}, {r.Topics.B, &l.B}, {r.Topics.Dead, &l.Dead}, {r.Topics.Table, &l.Table}} {
		records, err := r.topic(ctx, of.topic)
		if err != nil {
			return l, err
		}
		*of.to = records
	}
	var err error
	if l.TopicID, err = r.id(ctx, r.Topics.In); err != nil {
		return l, err
	}
	l.Committed, err = r.committed(ctx)
	return l, err
}

// topic reads a topic to the end that it has now.
func (r Reader) topic(ctx context.Context, topic string) (all []*kgo.Record, err error) {
	ends, err := r.ends(ctx, kadm.NewClient(r.Client).ListEndOffsets, topic)
	if err != nil {
		return nil, err
	}
	for p, end := range ends[topic] {
		err := readPartition(ctx, r.Client.Opts(), topic, p, end, func(r *kgo.Record) error {
			all = append(all, r)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b *kgo.Record) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return all, nil
}

// ends returns the ends of topics' partitions, as list has them.
func (r Reader) ends(ctx context.Context, list func(context.Context, ...string) (kadm.ListedOffsets, error), topics ...string) (map[string]map[int32]int64, error) {
	listed, err := list(ctx, topics...)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("the ends of %v: %w", topics, err)
	}
	ends := map[string]map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) {
		if ends[o.Topic] == nil {
			ends[o.Topic] = map[int32]int64{}
		}
		ends[o.Topic][o.Partition] = o.Offset
	})
	return ends, nil
}

// committed returns the group's stable offsets.
func (r Reader) committed(ctx context.Context) (map[int32]Committed, error) {
	offsets, err := kadm.NewClient(r.Client).FetchOffsets(kadm.RequireStable(ctx), r.Topics.Group)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("the offsets of the group: %w", err)
	}
	all := map[int32]Committed{}
	offsets.Each(func(o kadm.OffsetResponse) {
		if o.Topic == r.Topics.In {
			all[o.Partition] = Committed{max(o.At, 0), o.Metadata}
		}
	})
	return all, nil
}

// id returns the topic's id.
func (r Reader) id(ctx context.Context, topic string) ([16]byte, error) {
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &topic
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, r.Client)
	if err != nil || len(resp.Topics) != 1 {
		return [16]byte{}, fmt.Errorf("the id of %s: %w", topic, err)
	}
	return resp.Topics[0].TopicID, nil
}

// Sample looks at the run as it goes on. An error says that the brokers gave no
// answer now, and nothing of the run.
func (r Reader) Sample(ctx context.Context) (s Sample, err error) {
	adm := kadm.NewClient(r.Client)
	topics := []string{r.Topics.A, r.Topics.B, r.Topics.Dead}
	if s.Before, err = r.ends(ctx, adm.ListCommittedOffsets, topics...); err != nil {
		return s, err
	}
	if s.Committed, err = r.committed(ctx); err != nil {
		return s, err
	}
	s.After, err = r.ends(ctx, adm.ListEndOffsets, topics...)
	return s, err
}

// Behind says which partition the group has not committed to its end, or "": of
// the inputs, and of the delay topics on which they wait for another attempt.
func (r Reader) Behind(ctx context.Context) (string, error) {
	ends, err := kadm.NewClient(r.Client).ListEndOffsets(ctx)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return "", fmt.Errorf("the ends of topics: %w", err)
	}
	at, err := kadm.NewClient(r.Client).FetchOffsets(kadm.RequireStable(ctx), r.Topics.Group)
	if err == nil {
		err = at.Error()
	}
	if err != nil {
		return "", fmt.Errorf("the offsets of the group: %w", err)
	}
	var behind []string
	for _, end := range ends.Offsets().Sorted() {
		hop := strings.HasPrefix(end.Topic, r.Topics.In+"."+r.Topics.Group+".retry.") && !strings.HasSuffix(end.Topic, ".keys")
		if end.Topic != r.Topics.In && !hop {
			continue
		}
		o, _ := at.Lookup(end.Topic, end.Partition)
		if o.At < end.At {
			behind = append(behind, fmt.Sprintf("%s/%d: %d of %d", end.Topic, end.Partition, o.At, end.At))
		}
	}
	return strings.Join(behind, ", "), nil
}

// readPartition gives f each record of a partition before end, read committed.
func readPartition(ctx context.Context, opts []kgo.Opt, topic string, partition int32, end int64, f func(*kgo.Record) error) error {
	return readPartitionFrom(ctx, opts, topic, partition, 0, end, f)
}

// readPartitionFrom is readPartition from an offset on.
func readPartitionFrom(ctx context.Context, opts []kgo.Opt, topic string, partition int32, from, end int64, f func(*kgo.Record) error) error {
	if from >= end {
		return nil
	}
	cl, err := kgo.NewClient(append(slices.Clone(opts),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(from)}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(500*time.Millisecond),
		kgo.KeepControlRecords(), // so that the position passes the markers
	)...)
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		fetches := cl.PollFetches(ctx)
		done := false
		for r := range fetches.RecordsAll() {
			if r.Offset < end && !r.Attrs.IsControl() {
				if err := f(r); err != nil {
					return err
				}
			}
			done = done || r.Offset+1 >= end
		}
		switch {
		case done:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("reading %s/%d to its end at %d: %w", topic, partition, end, context.Cause(ctx))
		}
	}
}
