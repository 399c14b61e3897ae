package dlq

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// pass moves the positions in next over offsets at which a reader finds
// nothing: what was deleted since the extent was asked for, what compaction
// removed from the tail, aborted records without a mark after them. A kgo
// client passes those too, but does not tell.
func (s scan) pass(ctx context.Context, cl *kgo.Client, next map[int32]int64) error {
	adm := kadm.NewClient(cl)
	topics, err := adm.ListTopics(kadm.WithAuthorizedOps(ctx), s.topic)
	if err != nil {
		return s.unanswered(ctx, err)
	}
	detail := topics[s.topic]
	if errors.Is(detail.Err, kerr.UnknownTopicOrPartition) || detail.Err == nil && detail.ID != s.id {
		return errors.New("it was deleted while it was read")
	}
	starts, err := adm.ListStartOffsets(ctx, s.topic)
	if err = errors.Join(detail.Err, err); err != nil {
		return s.unanswered(ctx, err)
	}
	for p, at := range next {
		if start, ok := starts.Lookup(s.topic, p); ok && start.Err == nil {
			at = max(at, start.Offset)
		}
		for moved := true; moved && at < s.to[p]; {
			_, to, err := peek(ctx, cl, detail, p, at, s.uncommitted)
			if err != nil {
				if err := s.unanswered(ctx, err); err != nil {
					return err
				}
				break
			}
			moved = to > at
			at = max(at, to)
		}
		next[p] = at
	}
	return nil
}

// unanswered logs that the brokers could not be asked, or returns why that is
// the end of the scan.
func (s scan) unanswered(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.log.WarnContext(ctx, "dlq: nothing arrives, and asking whether something is left failed", "topic", s.topic, "error", err)
	return nil
}

// peek fetches once from an offset. It returns the records that it finds, those
// that are committed unless told otherwise, and the offset up to which there is none.
func peek(ctx context.Context, cl *kgo.Client, of kadm.TopicDetail, p int32, from int64, uncommitted bool) (found []*kgo.Record, empty int64, err error) {
	leader, ok := of.Partitions[p]
	if !ok {
		return nil, from, fmt.Errorf("topic %s has no partition %d", of.Topic, p)
	}
	req := kmsg.NewPtrFetchRequest()
	level := kgo.ReadCommitted()
	req.IsolationLevel = 1
	if uncommitted {
		level, req.IsolationLevel = kgo.ReadUncommitted(), 0
	}
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = of.Topic, of.ID
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = p, from, 64<<10
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	kresp, err := cl.Broker(int(leader.Leader)).RetriableRequest(ctx, req)
	if err != nil {
		return nil, from, err
	}
	resp := kresp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, from, err
	}
	if len(resp.Topics) == 0 || len(resp.Topics[0].Partitions) == 0 {
		return nil, from, nil // the broker's quota held the answer back
	}
	at := &resp.Topics[0].Partitions[0]
	read, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: from, IsolationLevel: level, Topic: of.Topic, Partition: p,
	}, at, kgo.DefaultDecompressor(), nil)
	switch {
	case read.Err != nil:
		return nil, from, read.Err
	case len(read.Records) > 0:
		return read.Records, from, nil
	case len(at.RecordBatches) > 0:
	case uncommitted: // nothing is left
		return nil, max(from, read.HighWatermark), nil
	default: // nothing up to the oldest open transaction
		return nil, max(from, read.LastStableOffset), nil
	}
	return nil, next, nil
}

// complete returns a letter with the key, the value and the headers that it
// does not have itself, from where its record failed.
func (j *job) complete(ctx context.Context, l *Letter) (*Letter, error) {
	topics, err := kadm.NewClient(j.cl).ListTopics(kadm.WithAuthorizedOps(ctx), l.Topic)
	if err != nil {
		return nil, err
	}
	origin := topics[l.Topic]
	if origin.Err != nil {
		return nil, fmt.Errorf("its key and value are in %s/%d/%d: %w", l.Topic, l.Partition, l.Offset, origin.Err)
	}
	found, _, err := peek(ctx, j.cl, origin, l.Partition, l.Offset, false)
	switch {
	case errors.Is(err, kerr.OffsetOutOfRange), err == nil && (len(found) == 0 || found[0].Offset != l.Offset):
		return nil, fmt.Errorf("its key and value are not in it, and retention or compaction has removed them from %s/%d/%d", l.Topic, l.Partition, l.Offset)
	case err != nil:
		return nil, fmt.Errorf("its key and value are in %s/%d/%d: %w", l.Topic, l.Partition, l.Offset, err)
	}
	full := *l
	full.Key, full.Value, full.Headers, full.Timestamp, full.Missing = found[0].Key, found[0].Value, found[0].Headers, found[0].Timestamp, false
	return &full, nil
}
