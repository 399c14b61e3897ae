package table

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Silence is how long nothing may arrive from a partition before the brokers
// are asked whether anything is left to arrive.
const Silence = time.Second

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
	for p, next := range behind {
		if start, ok := starts.Lookup(topic, p); ok && start.Err == nil && start.Offset > next {
			s.Advance(p, start.Offset)
			delete(behind, p)
		}
	}
	moved, err := skip(ctx, cl, topics[topic], behind, ends)
	for p, next := range moved {
		s.Advance(p, next)
	}
	return err
}

// skip returns how far the positions of the partitions in from can be moved
// towards ends, because nothing is there to read. Of a partition that could
// not be asked it returns what it learned before, and the error.
func skip(ctx context.Context, cl *kgo.Client, topic kadm.TopicDetail, from, ends map[int32]int64) (map[int32]int64, error) {
	to := map[int32]int64{}
	var faults []error
	for p, next := range from {
		leader := cl.Broker(int(topic.Partitions[p].Leader))
		for moved := true; moved && next < ends[p]; {
			beyond, err := empty(ctx, leader, topic, p, next)
			if err != nil {
				faults = append(faults, fmt.Errorf("asking for offset %d of partition %d: %w", next, p, err))
				break
			}
			moved = beyond > next
			next = max(next, beyond)
		}
		to[p] = next
	}
	return to, errors.Join(faults...)
}

// empty returns the offset up to which no record is left from offset from on,
// as one fetch shows it.
func empty(ctx context.Context, leader *kgo.Broker, topic kadm.TopicDetail, p int32, from int64) (int64, error) {
	req := kmsg.NewPtrFetchRequest()
	req.IsolationLevel = 1 // read committed
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = topic.Topic, topic.ID
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
		KeepControlRecords: true, Offset: from, IsolationLevel: kgo.ReadCommitted(), Topic: topic.Topic, Partition: p,
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
