package wherry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/client"
	"github.com/wherry-go/wherry/internal/lane"
)

// assigned opens a lane for each partition that was added. kgo calls it before
// positions and revoked of the same partitions.
func (r *run) assigned(_ context.Context, _ *kgo.Client, added map[string][]int32) {
	<-r.opened
	r.mu.Lock()
	for topic, ps := range added {
		for _, p := range ps {
			tp := topicPartition{topic, p}
			l := lane.New(r.base, lane.Config{
				Work: r.work, Finished: r.progressed,
				MaxRecords: r.c.maxHeld(), MaxBytes: maxHeldBytes, Room: r.madeRoom,
			})
			r.partitions[tp] = &partition{topicPartition: tp, lane: l, committed: -1, end: -1}
		}
	}
	r.mu.Unlock()
	if len(added) == 0 {
		r.becomeReady()
		return
	}
	r.log.Info("consumer: partitions assigned", "partitions", added)
}

// revoked gives partitions up: what is in hand gets the drain time, what has
// finished is committed, and nothing of the rest counts. It runs before
// another member may begin.
func (r *run) revoked(ctx context.Context, _ *kgo.Client, lost map[string][]int32) {
	gone := r.take(func(tp topicPartition) bool { return slices.Contains(lost[tp.topic], tp.partition) })
	if len(gone) == 0 {
		return
	}
	drain := r.c.drain()
	if limit, ok := r.cl.OptValue(kgo.RebalanceTimeout).(time.Duration); ok {
		drain = min(drain, limit/2) // beyond the limit the group throws this member out
	}
	r.settle(gone, drain)
	ctx, cancel := context.WithTimeout(ctx, lastCommit)
	defer cancel()
	r.commit(ctx, gone)
	r.abandon(gone)
	r.log.Info("consumer: partitions revoked", "partitions", lost)
}

// lost gives up partitions that may be another member's already.
func (r *run) lost(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	<-r.opened
	gone := r.take(func(tp topicPartition) bool { return slices.Contains(lost[tp.topic], tp.partition) })
	if len(gone) == 0 {
		return
	}
	r.abandon(gone)
	r.log.Warn("consumer: partitions lost", "partitions", lost)
}

// take removes the partitions that match from the run's.
func (r *run) take(match func(topicPartition) bool) (taken []*partition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for tp, p := range r.partitions {
		if !match(tp) {
			continue
		}
		taken = append(taken, p)
		delete(r.partitions, tp)
		if p.paused {
			// kgo remembers a pause beyond the assignment.
			r.cl.ResumeFetchPartitions(map[string][]int32{tp.topic: {tp.partition}})
		}
	}
	return taken
}

// abandon cuts the lanes of partitions and remembers those that still run.
func (r *run) abandon(gone []*partition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = slices.DeleteFunc(r.cut, func(p *partition) bool {
		select {
		case <-p.lane.Exited():
			return true
		default:
			return false
		}
	})
	for _, p := range gone {
		p.lane.Cut(errRevoked)
		r.cut = append(r.cut, p)
	}
}

func (r *run) becomeReady() { r.joined.Do(func() { close(r.c.ready) }) }

// positions decides where to read each partition from: where the group is, or
// Consumer.From where it has committed nothing, which is then committed at
// once. kgo calls it with what the group has committed, before it fetches.
func (r *run) positions(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	log, err := r.listLog(ctx, slices.Collect(maps.Keys(offsets)))
	if err != nil {
		r.log.Warn("consumer: asking for the offsets of the log failed, joining again", "error", err)
		return nil, err
	}
	begun := map[string]map[int32]kgo.EpochOffset{}
	for topic, ps := range offsets {
		for p, offset := range ps {
			tp := topicPartition{topic, p}
			if !log.has(tp) {
				return nil, fmt.Errorf("the brokers list no offsets of %v", tp)
			}
			at := offset.EpochOffset()
			if at.Offset < 0 {
				at = kgo.EpochOffset{Epoch: -1, Offset: log.from(r, tp)}
				if begun[topic] == nil {
					begun[topic] = map[int32]kgo.EpochOffset{}
				}
				begun[topic][p] = at
			}
			if at, err = r.inRange(log, tp, at); err != nil {
				r.fail(err)
				return nil, err
			}
			ps[p] = kgo.NewOffset().At(at.Offset).WithEpoch(at.Epoch)
			r.mu.Lock()
			if a := r.partitions[tp]; a != nil {
				a.committed, a.next, a.end = at.Offset, at.Offset, log.end(tp)
			}
			r.mu.Unlock()
		}
	}
	if len(begun) > 0 {
		if err := r.commitBegin(ctx, begun); err != nil {
			r.log.Warn("consumer: committing where the group begins failed, joining again", "error", err)
			return nil, err
		}
	}
	r.becomeReady()
	return offsets, nil
}

// inRange returns at, or what OnReset says where the log does not hold it.
func (r *run) inRange(log *logOffsets, tp topicPartition, at kgo.EpochOffset) (kgo.EpochOffset, error) {
	start, end := log.start(tp), log.end(tp)
	if at.Offset >= start && at.Offset <= end {
		return at, nil
	}
	e := &OffsetRangeError{Group: r.c.Group, Topic: tp.topic, Partition: tp.partition, Offset: at.Offset, Start: start, End: end}
	if r.c.OnReset == nil {
		return at, e
	}
	to, err := r.c.OnReset(e)
	if err != nil {
		return at, err
	}
	if to < start || to > end {
		return at, fmt.Errorf("OnReset returned offset %d: %w", to, e)
	}
	r.log.Warn("consumer: offset out of range, going on elsewhere", "partition", tp.String(), "offset", e.Offset, "to", to, "start", start, "end", end)
	return kgo.EpochOffset{Epoch: -1, Offset: to}, nil
}

// logOffsets are the offsets that the logs of some topics hold.
type logOffsets struct{ starts, ends, after kadm.ListedOffsets }

func (r *run) listLog(ctx context.Context, topics []string) (l *logOffsets, err error) {
	l = &logOffsets{}
	if l.starts, err = r.adm.ListStartOffsets(ctx, topics...); err == nil {
		err = l.starts.Error()
	}
	if err != nil {
		return nil, err
	}
	if r.c.From > 0 {
		if l.after, err = r.adm.ListOffsetsAfterMilli(ctx, int64(r.c.From), topics...); err == nil {
			err = l.after.Error()
		}
		if err != nil {
			return nil, err
		}
	}
	if l.ends, err = r.adm.ListEndOffsets(ctx, topics...); err == nil {
		err = l.ends.Error()
	}
	return l, err
}

func (l *logOffsets) has(tp topicPartition) bool {
	_, started := l.starts.Lookup(tp.topic, tp.partition)
	_, ended := l.ends.Lookup(tp.topic, tp.partition)
	return started && ended
}

func (l *logOffsets) start(tp topicPartition) int64 { return l.starts[tp.topic][tp.partition].Offset }

func (l *logOffsets) end(tp topicPartition) int64 { return l.ends[tp.topic][tp.partition].Offset }

// from is where a group that has committed nothing begins.
func (l *logOffsets) from(r *run, tp topicPartition) int64 {
	switch {
	case r.c.From == Earliest, tp.partition >= r.known[tp.topic]: // made after the Consumer began
		return l.start(tp)
	case r.c.From == Latest:
		return l.end(tp)
	}
	return l.after[tp.topic][tp.partition].Offset
}

// fetchFailed decides what an error of a poll means.
func (r *run) fetchFailed(ctx context.Context, tp topicPartition, err error) {
	if errors.Is(err, context.Canceled) && r.base.Err() == nil {
		return
	}
	if errors.Is(err, kerr.OffsetOutOfRange) {
		if err = r.reset(ctx, tp); err == nil {
			return
		}
		r.fail(err)
		return
	}
	if _, ok := errors.AsType[*kgo.ErrDataLoss](err); ok {
		r.log.ErrorContext(ctx, "consumer: the cluster lost records that were acknowledged", "partition", tp.String(), "error", err)
		return
	}
	kafka, isKafka := errors.AsType[*kerr.Error](err)
	fatal := client.Permanent(err) || errors.Is(err, kgo.ErrClientClosed) || errors.Is(err, kgo.ErrMaxDecompress) ||
		isKafka && !kafka.Retriable && !rejoins(err)
	switch {
	case !fatal:
		r.log.WarnContext(ctx, "consumer: fetching failed, trying again", "partition", tp.String(), "error", err)
	case errors.Is(err, kerr.FencedInstanceID):
		r.fail(fmt.Errorf("another member of the group has the same InstanceID; each needs one of its own: %w", err))
	case tp.topic == "":
		r.fail(err)
	default:
		r.fail(fmt.Errorf("fetching %v: %w", tp, err))
	}
}

// rejoins reports whether err is one after which kgo joins the group again.
func rejoins(err error) bool {
	for _, e := range []error{kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.RebalanceInProgress, kerr.FencedMemberEpoch, kerr.StaleMemberEpoch, kerr.UnreleasedInstanceID} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// reset moves a partition whose next offset the log no longer holds.
func (r *run) reset(ctx context.Context, tp topicPartition) error {
	r.mu.Lock()
	p := r.partitions[tp]
	at := kgo.EpochOffset{Epoch: -1}
	if p != nil {
		at.Offset = p.next
	}
	r.mu.Unlock()
	if p == nil {
		return nil
	}
	log, err := r.listLog(ctx, []string{tp.topic})
	if err != nil {
		return fmt.Errorf("fetching %v: its offset is out of range, and asking for the log's failed: %w", tp, err)
	}
	if !log.has(tp) {
		return fmt.Errorf("fetching %v: the brokers list no offsets of it", tp)
	}
	if at, err = r.inRange(log, tp, at); err != nil {
		return err
	}
	r.cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{tp.topic: {tp.partition: at}})
	return nil
}
