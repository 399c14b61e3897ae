package wherry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/internal/client"
	"github.com/wherry-go/wherry/internal/lane"
)

// commitEvery is the least time between two commits of a busy Consumer, and
// commitPause the most between two that fail. The first record after a pause
// is committed at once.
//
// transactionEvery is that of transactions: one that begins before brokers have
// written down the one before waits longer, inside of them, than this.
const (
	commitEvery      = 100 * time.Millisecond
	transactionEvery = 2 * time.Millisecond
	commitPause      = 5 * time.Second
	transactionPause = 250 * time.Millisecond
)

// progressed tells the commit loop that there is something to commit.
func (r *run) progressed() {
	if r.told.Swap(true) {
		return // and the loop has not looked yet
	}
	select {
	case r.progress <- struct{}{}:
	default:
	}
}

// commitLoop commits what finishes until ctx is done.
func (r *run) commitLoop(ctx context.Context) {
	every, most, which := commitEvery, commitPause, r.owned
	if r.exact != nil {
		every, most, which = transactionEvery, transactionPause, func() []*partition { return nil }
	}
	pause := every
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.progress:
		}
		r.told.Store(false)
		if r.commit(ctx, which, func() {}) {
			pause = every
		} else {
			pause = min(2*pause, most)
			r.progressed()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// commit commits how far the partitions of which have come, and then calls
// then. Both happen under one token, so that a commit never overwrites that of
// the partition's next owner: revoked takes the token before it lets go, and
// what it has let go is not among which any more. It reports whether all was
// committed.
func (r *run) commit(ctx context.Context, which func() []*partition, then func()) bool {
	select {
	case r.committing <- struct{}{}:
		defer func() { <-r.committing }()
	case <-ctx.Done():
		then()
		return false
	}
	defer then()
	if r.exact != nil {
		return r.exact.commit(ctx, which())
	}
	member := r.member()
	offsets := map[topicPartition]position{}
	var moving []*partition
	for _, p := range which() {
		r.mu.Lock()
		id, seen := p.id, p.changes
		// A member that was thrown out joins again under another id; what it
		// had before may be somebody else's.
		ours := p.placed && p.member == member.id && !p.lane.WasCut()
		r.mu.Unlock()
		if !ours {
			continue
		}
		if at := r.position(p, id, seen); at.changes != seen && at.Offset >= 0 {
			offsets[p.topicPartition] = at
			moving = append(moving, p)
		}
	}
	if len(offsets) == 0 {
		return true
	}
	refused, err := r.commitOffsets(ctx, member, offsets)
	r.mu.Lock()
	for _, p := range moving {
		if at := offsets[p.topicPartition]; err == nil && refused[p.topicPartition] == nil {
			p.committed, p.changes = at.Offset, at.changes
		}
	}
	r.mu.Unlock()
	for tp, e := range refused {
		err = errors.Join(err, fmt.Errorf("%v: %w", tp, e))
	}
	if err != nil {
		r.notCommitted(ctx, err)
	}
	return err == nil
}

// notCommitted decides what the error of a commit means: most pass, and it is
// tried again.
func (r *run) notCommitted(ctx context.Context, err error) {
	switch {
	case errors.Is(err, kerr.OffsetMetadataTooLarge):
		r.shorten(err)
	case ctx.Err() != nil, rejoins(err):
		if errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.IllegalGeneration) {
			r.cl.ForceRebalance() // kgo would notice at its next heartbeat
		}
		r.log.Debug("consumer: offsets not committed", "error", err)
	case errors.Is(err, kerr.FencedInstanceID):
		r.fail(sameInstance(err))
	case client.Permanent(err):
		r.fail(fmt.Errorf("committing offsets: %w", err))
	default:
		r.log.Warn("consumer: offsets not committed, trying again", "error", err)
	}
}

// member is this process's membership in the group at one moment.
type member struct {
	id         string
	generation int32
}

// member returns the membership of now. What is committed under it is refused
// once the group has gone on without this member. Brokers do not ask who owns
// a partition, though: whoever commits takes this first and looks then whether
// its partitions are still its own.
func (r *run) member() (m member) {
	m.id, m.generation = r.cl.GroupMetadata()
	return m
}

// instance is the static member id, nil without one.
func (r *run) instance() *string {
	if id, ok := r.cl.OptValue(kgo.InstanceID).(string); ok && id != "" {
		return &id
	}
	return nil
}

// position is how far a partition has come.
type position struct {
	lane.Mark
	topic    kadm.TopicID
	finished string // beyond it, as metadata
	changes  uint64
}

// position returns how far p has come, without what has finished if that is
// what was seen before.
func (r *run) position(p *partition, id kadm.TopicID, seen uint64) (at position) {
	limit := int(r.setLimit.Load())
	if at.topic = id; id == (kadm.TopicID{}) {
		limit = 0
	}
	at.Mark, at.finished, at.changes = p.lane.Position(id, limit, seen)
	return at
}

// shorten makes finished sets fit brokers whose offset.metadata.max.bytes is
// less than Kafka's 4,096.
func (r *run) shorten(err error) {
	const least = 64 // says hardly anything
	limit := r.setLimit.Load() / 4
	if limit < least {
		limit = 0
	}
	r.setLimit.Store(limit)
	r.log.Warn("consumer: the brokers take less metadata with an offset than Kafka by default (offset.metadata.max.bytes): fewer records may run ahead of one that waits, or, at 0, a crash handles them again", "limit", limit, "error", err)
}

// anew is the error of a topic that is not the one that was read.
func anew(topic string) error {
	return fmt.Errorf("topic %s was deleted and made anew while it was read: run another Consumer, and see OnReset for the group's old offsets", topic)
}

func sameInstance(err error) error {
	return fmt.Errorf("another member of the group has the same InstanceID; each needs one of its own: %w", err)
}

// otherKind is for a join that is refused because no way to share out the
// partitions is known to all members.
func otherKind(err error) error {
	return fmt.Errorf("another client library, such as KafkaJS, or a client with another balancer is in this group: stop it first: %w", err)
}

// commitOffsets sends one commit, and returns what was refused. It does not go
// through kgo's own commit: that waits while the group rebalances, for as long
// as the slowest member takes, and cannot be used yet in positions.
func (r *run) commitOffsets(ctx context.Context, m member, offsets map[topicPartition]position) (refused map[topicPartition]error, err error) {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = r.c.Group
	req.MemberID, req.Generation, req.InstanceID = m.id, m.generation, r.instance()
	if req.MemberID == "" { // a commit of nobody would be taken while the group is empty
		return nil, kerr.UnknownMemberID
	}
	byTopic := map[string][]kmsg.OffsetCommitRequestTopicPartition{}
	var names []string
	for tp, at := range offsets {
		rp := kmsg.NewOffsetCommitRequestTopicPartition()
		rp.Partition, rp.Offset, rp.LeaderEpoch = tp.partition, at.Offset, at.Epoch
		if at.finished != "" {
			rp.Metadata = &at.finished
		}
		if byTopic[tp.topic] == nil {
			names = append(names, tp.topic)
		}
		byTopic[tp.topic] = append(byTopic[tp.topic], rp)
	}
	if err := r.knowTopics(ctx, names, offsets); err != nil {
		return nil, err
	}
	nameOf := map[[16]byte]string{}
	for _, name := range names {
		rt := kmsg.NewOffsetCommitRequestTopic()
		r.mu.Lock()
		rt.Topic, rt.TopicID, rt.Partitions = name, r.topics[name], byTopic[name]
		r.mu.Unlock()
		nameOf[rt.TopicID] = name
		req.Topics = append(req.Topics, rt)
	}
	resp, err := req.RequestWith(ctx, r.cl)
	if err != nil {
		return nil, err
	}
	refused = map[topicPartition]error{}
	for _, t := range resp.Topics {
		name := t.Topic
		if name == "" {
			name = nameOf[t.TopicID]
		}
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				refused[topicPartition{name, p.Partition}] = err
				if errors.Is(err, kerr.UnknownTopicID) {
					r.mu.Lock()
					delete(r.topics, name)
					r.mu.Unlock()
				}
			}
		}
	}
	return refused, nil
}

// knowTopics learns the ids of topics, by which commits go since version 10 of
// the request (KIP-848), and refuses offsets of a topic that was made anew.
func (r *run) knowTopics(ctx context.Context, names []string, offsets map[topicPartition]position) error {
	if err := r.learnTopics(ctx, names); err != nil {
		return err
	}
	for tp, at := range offsets {
		r.mu.Lock()
		id := r.topics[tp.topic]
		r.mu.Unlock()
		if at.topic != (kadm.TopicID{}) && at.topic != id { // these offsets would be taken for the other's
			err := anew(tp.topic)
			r.fail(err)
			return err
		}
	}
	return nil
}
