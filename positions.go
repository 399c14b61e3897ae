package wherry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/lane"
)

// positions decides where to read each partition from: where the group is, or
// Consumer.From where it has committed nothing, which is then committed at
// once. kgo calls it with what the group has committed, before it fetches; an
// error makes it join again.
func (r *run) positions(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	found, err := r.decide(ctx, offsets)
	if err != nil {
		r.log.Warn("consumer: where to begin is not known, joining again", "error", err)
		return nil, err
	}
	r.becomeReady()
	return found, nil
}

func (r *run) decide(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	// kgo leaves a partition out whose offset it could not learn, and would
	// never read it.
	for _, p := range r.owned() {
		if _, ok := offsets[p.topic][p.partition]; !ok && !r.isPlaced(p) {
			return nil, fmt.Errorf("the group's offset of %v could not be read", p)
		}
	}
	log, err := r.listLog(ctx, slices.Collect(maps.Keys(offsets)))
	if err != nil {
		return nil, fmt.Errorf("asking for the offsets of the log: %w", err)
	}
	if err := r.learnTopics(ctx, slices.Collect(maps.Keys(offsets))); err != nil {
		return nil, fmt.Errorf("asking for the topics' ids: %w", err)
	}
	if err := r.sync(ctx); err != nil {
		return nil, err
	}
	if r.exact != nil {
		r.mu.Lock()
		err := r.together()
		r.mu.Unlock()
		if err != nil {
			r.fail(err)
			return nil, err
		}
		if err := r.exact.restore(ctx, numbers(offsets)); err != nil {
			if ctx.Err() == nil {
				r.fail(err)
			}
			return nil, err
		}
	}
	begun := map[topicPartition]position{}
	for topic, ps := range offsets {
		for n, offset := range ps {
			tp, at := topicPartition{topic, n}, offset.EpochOffset()
			switch known, committed := log.has(tp), at.Offset >= 0; {
			case !known && !committed && r.c.From != Earliest:
				return nil, fmt.Errorf("the brokers list no offsets of %v", tp)
			case !known && !committed:
				ps[n] = kgo.NewOffset().AtStart()
				r.place(tp, kgo.EpochOffset{Offset: -1, Epoch: -1}, kgo.EpochOffset{Offset: -1, Epoch: -1}, -1)
				continue
			case !known: // it has no leader for now; kgo waits for one
				r.place(tp, at, at, -1)
				continue
			case !committed:
				at = kgo.EpochOffset{Epoch: -1, Offset: log.from(r, tp)}
				begun[tp] = position{Mark: lane.Mark{Offset: at.Offset, Epoch: -1}}
			}
			to, err := r.inRange(log, tp, at)
			if err != nil {
				r.fail(err)
				return nil, err
			}
			ps[n] = kgo.NewOffset().At(to.Offset).WithEpoch(to.Epoch)
			r.place(tp, at, to, log.end(tp))
		}
	}
	if len(begun) == 0 {
		return offsets, nil
	}
	refused, err := r.commitOffsets(ctx, r.member(), begun)
	for tp, e := range refused {
		err = errors.Join(err, fmt.Errorf("%v: %w", tp, e))
	}
	if err != nil {
		return nil, fmt.Errorf("committing where the group begins: %w", err)
	}
	return offsets, nil
}

// place notes where a partition is read from, and what of it has finished.
func (r *run) place(tp topicPartition, committed, next kgo.EpochOffset, end int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.partitions[tp]
	if p == nil {
		return
	}
	p.committed, p.next, p.end, p.placed = committed.Offset, next.Offset, end, true
	p.id = r.topics[tp.topic]
	var finished []lane.Run
	if committed == next {
		finished = p.finished(r.fetchedSet(tp))
	}
	p.lane.Begin(lane.Mark{Offset: next.Offset, Epoch: next.Epoch}, finished)
}

func (r *run) isPlaced(p *partition) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return p.placed
}

// inRange returns at, or what OnReset says where the log does not hold it.
func (r *run) inRange(log *logOffsets, tp topicPartition, at kgo.EpochOffset) (to kgo.EpochOffset, err error) {
	start, end := log.start(tp), log.end(tp)
	if at.Offset >= start && at.Offset <= end {
		return at, nil
	}
	e := &OffsetRangeError{Group: r.c.Group, Topic: tp.topic, Partition: tp.partition, Offset: at.Offset, Start: start, End: end}
	if r.c.OnReset == nil {
		return at, e
	}
	defer func() {
		if p := recover(); p != nil { // on a goroutine of kgo's, where it would end the process
			err = fmt.Errorf("OnReset panicked: %v: %w", p, e)
		}
	}()
	offset, err := r.c.OnReset(e)
	if err != nil {
		return at, err
	}
	if offset < start || offset > end {
		return at, fmt.Errorf("OnReset returned offset %d: %w", offset, e)
	}
	r.log.Warn("consumer: offset out of range, going on elsewhere", "partition", tp.String(), "offset", e.Offset, "to", offset, "start", start, "end", end)
	return kgo.EpochOffset{Epoch: -1, Offset: offset}, nil
}

// reset moves a partition whose next offset the log no longer holds.
func (r *run) reset(ctx context.Context, tp topicPartition) error {
	const tries = 10
	for try := 1; ; try++ {
		log, err := r.listLog(ctx, []string{tp.topic})
		if err == nil && !log.has(tp) {
			err = errors.New("the brokers list none")
		}
		if err == nil {
			return r.resetTo(log, tp)
		}
		if try == tries {
			return fmt.Errorf("fetching %v: its offset is out of range, and asking for the log's failed: %w", tp, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (r *run) resetTo(log *logOffsets, tp topicPartition) error {
	r.mu.Lock()
	p := r.partitions[tp]
	at := kgo.EpochOffset{Epoch: -1}
	if p != nil {
		at.Offset = p.next
		p.lane.Forget()
	}
	r.mu.Unlock()
	if p == nil {
		return nil
	}
	to, err := r.inRange(log, tp, at)
	if err != nil {
		return err
	}
	r.cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{tp.topic: {tp.partition: to}})
	return nil
}

// logOffsets are the offsets that the logs of some topics hold. Partitions
// whose leader did not tell are missing.
type logOffsets struct{ starts, ends, after kadm.ListedOffsets }

func (r *run) listLog(ctx context.Context, topics []string) (l *logOffsets, err error) {
	l = &logOffsets{}
	if len(topics) == 0 {
		return l, nil // no topics would mean all
	}
	if l.starts, err = r.adm.ListStartOffsets(ctx, topics...); err != nil {
		return nil, err
	}
	if r.c.From > 0 {
		if l.after, err = r.adm.ListOffsetsAfterMilli(ctx, int64(r.c.From), topics...); err != nil {
			return nil, err
		}
	}
	if l.ends, err = r.adm.ListEndOffsets(ctx, topics...); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *logOffsets) has(tp topicPartition) bool {
	in := func(all kadm.ListedOffsets) bool {
		o, ok := all.Lookup(tp.topic, tp.partition)
		return ok && o.Err == nil
	}
	return in(l.starts) && in(l.ends) && (l.after == nil || in(l.after))
}

func (l *logOffsets) start(tp topicPartition) int64 { return l.starts[tp.topic][tp.partition].Offset }

func (l *logOffsets) end(tp topicPartition) int64 { return l.ends[tp.topic][tp.partition].Offset }

// from is where a group that has committed nothing begins.
func (l *logOffsets) from(r *run, tp topicPartition) int64 {
	_, hop := r.setup.hops[tp.topic]
	switch {
	case r.c.From == Earliest, hop, tp.partition >= r.known[tp.topic]: // made after the Consumer began
		return l.start(tp)
	case r.c.From == Latest:
		return l.end(tp)
	}
	return l.after[tp.topic][tp.partition].Offset
}
