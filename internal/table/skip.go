package table

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Skip moves the position of partitions that are behind ends over offsets at
// which a reader finds nothing: what was deleted since the ends were asked
// for, what compaction removed from the tail, and aborted records without a
// mark after them. A kgo client passes those too, but does not tell.
//
// It asks the leader for what is at the position, and moves it only over what
// the answer shows to be empty; an open transaction is not.
func (s *Store) Skip(ctx context.Context, cl *kgo.Client, topic string, ends map[int32]int64) error {
	behind := map[int32]int64{}
	for p, end := range ends {
		if next, _ := s.Position(p); next < end {
			behind[p] = next
		}
	}
	if len(behind) == 0 {
		return nil
	}
	adm := kadm.NewClient(cl)
	topics, err := adm.ListTopics(ctx, topic)
	if err == nil {
		err = topics.Error()
	}
	if err != nil {
		return fmt.Errorf("asking who leads its partitions: %w", err)
	}
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err != nil {
		return fmt.Errorf("asking for its start: %w", err)
	}
	var faults []error
	for p, next := range behind {
		if start, ok := starts.Lookup(topic, p); ok && start.Err == nil && start.Offset > next {
			s.Advance(p, start.Offset)
			continue
		}
		leader := cl.Broker(int(topics[topic].Partitions[p].Leader))
		for moved := true; moved && next < ends[p]; {
			var to int64
			if to, err = empty(ctx, leader, topic, topics[topic].ID, p, next); err != nil {
				faults = append(faults, fmt.Errorf("asking for offset %d of partition %d: %w", next, p, err))
				break
			}
			moved = to > next
			next = max(next, to)
			s.Advance(p, next)
		}
	}
	return errors.Join(faults...)
}

// empty returns the offset up to which no record is left from offset from on,
// as one fetch shows it.
func empty(ctx context.Context, leader *kgo.Broker, topic string, id kadm.TopicID, p int32, from int64) (int64, error) {
	req := kmsg.NewPtrFetchRequest()
	req.IsolationLevel = 1 // read committed
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = topic, id
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = p, from, 64<<10
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	kresp, err := leader.RetriableRequest(ctx, req)
	if err != nil {
		return from, err
	}
	resp := kresp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return from, err
	}
	if len(resp.Topics) == 0 || len(resp.Topics[0].Partitions) == 0 {
		return from, nil // the broker's quota held the answer back
	}
	at := &resp.Topics[0].Partitions[0]
	read, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		KeepControlRecords: true, Offset: from, IsolationLevel: kgo.ReadCommitted(), Topic: topic, Partition: p,
	}, at, kgo.DefaultDecompressor(), nil)
	switch {
	case read.Err != nil:
		return from, read.Err
	case len(read.Records) > 0: // the client's to read
		return from, nil
	case len(at.RecordBatches) == 0: // nothing up to the oldest open transaction
		return max(from, read.LastStableOffset), nil
	}
	return next, nil
}
