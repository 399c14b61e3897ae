package wherry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/internal/client"
)

// commitEvery is the least time between two commits of a busy Consumer. The
// first record after a pause is committed at once.
const commitEvery = 100 * time.Millisecond

// progressed tells the commit loop that a record has finished.
func (r *run) progressed() {
	select {
	case r.progress <- struct{}{}:
	default:
	}
}

// commitLoop commits what finishes until ctx is done.
func (r *run) commitLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.progress:
		}
		r.mu.Lock()
		all := make([]*partition, 0, len(r.partitions))
		for _, p := range r.partitions {
			all = append(all, p)
		}
		r.mu.Unlock()
		r.commit(ctx, all)
		select {
		case <-ctx.Done():
			return
		case <-time.After(commitEvery):
		}
	}
}

// commit commits how far the given partitions have come. Those that were taken
// away are not among them: revoked takes the same token before it returns, so
// a commit can never overwrite that of the next owner.
func (r *run) commit(ctx context.Context, all []*partition) {
	select {
	case r.committing <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-r.committing }()

	offsets := map[string]map[int32]kgo.EpochOffset{}
	for _, p := range all {
		low, moved := p.lane.Low()
		r.mu.Lock()
		committed := p.committed
		r.mu.Unlock()
		if !moved || low.Offset == committed || p.lane.WasCut() {
			continue
		}
		if offsets[p.topic] == nil {
			offsets[p.topic] = map[int32]kgo.EpochOffset{}
		}
		offsets[p.topic][p.partition] = kgo.EpochOffset{Epoch: low.Epoch, Offset: low.Offset}
	}
	if len(offsets) == 0 {
		return
	}
	switch err := r.commitOffsets(ctx, offsets); {
	case err == nil:
		r.mu.Lock()
		for _, p := range all {
			if at, ok := offsets[p.topic][p.partition]; ok {
				p.committed = at.Offset
			}
		}
		r.mu.Unlock()
	case ctx.Err() != nil, rejoins(err):
		// What was not committed is done again by the next owner.
		r.log.Debug("consumer: offsets not committed", "error", err)
	case errors.Is(err, kerr.FencedInstanceID):
		r.fail(fmt.Errorf("another member of the group has the same InstanceID; each needs one of its own: %w", err))
	case client.Permanent(err):
		r.fail(fmt.Errorf("committing offsets: %w", err))
	default:
		r.log.Warn("consumer: offsets not committed, trying again", "error", err)
		r.progressed()
	}
}

// commitOffsets commits and returns the first refusal.
func (r *run) commitOffsets(ctx context.Context, offsets map[string]map[int32]kgo.EpochOffset) (err error) {
	r.cl.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, e error) {
		if err = e; err == nil {
			err = refusal(resp)
		}
	})
	return err
}

// commitBegin commits where partitions begin that the group has no offsets of.
// It is called before kgo has taken those partitions in, when kgo's own commit
// cannot be used yet.
func (r *run) commitBegin(ctx context.Context, offsets map[string]map[int32]kgo.EpochOffset) error {
	found, err := r.adm.ListTopics(ctx, slices.Collect(maps.Keys(offsets))...)
	if err != nil {
		return err
	}
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = r.c.Group
	req.MemberID, req.Generation = r.cl.GroupMetadata()
	if id, ok := r.cl.OptValue(kgo.InstanceID).(string); ok && id != "" {
		req.InstanceID = &id
	}
	for topic, ps := range offsets {
		rt := kmsg.NewOffsetCommitRequestTopic()
		rt.Topic, rt.TopicID = topic, found[topic].ID // by id since version 10 (KIP-848)
		for p, at := range ps {
			rp := kmsg.NewOffsetCommitRequestTopicPartition()
			rp.Partition, rp.Offset = p, at.Offset
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
	}
	resp, err := req.RequestWith(ctx, r.cl)
	if err != nil {
		return err
	}
	return refusal(resp)
}

// refusal returns the first error in the response to a commit.
func refusal(resp *kmsg.OffsetCommitResponse) error {
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("%s/%d: %w", t.Topic, p.Partition, err)
			}
		}
	}
	return nil
}
