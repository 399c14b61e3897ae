package wherry

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/lane"
	"github.com/wherry-go/wherry/internal/planted"
)

// assigned opens a lane for each partition that was added. kgo calls it at the
// begin of each session of the group, before positions and revoked.
func (r *run) assigned(ctx context.Context, cl *kgo.Client, added map[string][]int32) {
	<-r.opened
	member, _ := cl.GroupMetadata()
	if r.exact != nil {
		r.exact.claim(partitionsOf(added))
	}
	r.retake(ctx, member)
	r.mu.Lock()
	if !r.ending {
		for topic, ps := range added {
			for _, n := range ps {
				r.openLane(topicPartition{topic, n}, member)
			}
		}
	}
	r.mu.Unlock()
	r.progressed() // a commit that fell into the rebalance
	if len(added) == 0 {
		r.becomeReady()
		return
	}
	r.log.Info("consumer: partitions assigned", "partitions", added)
}

// openLane is called under r.mu.
func (r *run) openLane(tp topicPartition, member string) *partition {
	p := &partition{topicPartition: tp, member: member, committed: -1, next: -1, end: -1}
	route, hop := r.routes[tp.topic], r.setup.hops[tp.topic]
	cfg := lane.Config{
		Work: r.worker(p), Order: lane.Order(r.c.Order), Pool: r.pool,
		Key: route.Key, Size: route.Size, Linger: route.Linger,
		Until: r.working, Finished: r.progressed,
		MaxRecords: r.c.maxHeld(), MaxBytes: maxHeldBytes, MaxSpan: r.c.maxSpan(), Room: r.madeRoom,
	}
	if hop.Due != nil {
		cfg.Due = func(rec *kgo.Record) (due time.Time) {
			defer func() {
				if recover() != nil { // Origin tells what is wrong with the record
					due = time.Time{}
				}
			}()
			return hop.Due(rec)
		}
	}
	p.lane = lane.New(r.base, cfg)
	r.partitions[tp] = p
	return p
}

// retake begins partitions again that this member kept though it was thrown
// out of the group and has joined again under another id: kgo goes on with
// them, but others may have had and committed them in between.
func (r *run) retake(ctx context.Context, member string) {
	r.mu.Lock()
	kept := r.takeLocked(func(p *partition) bool { return p.member != member })
	r.mu.Unlock()
	if len(kept) == 0 {
		return
	}
	r.abandon(kept)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.working, cancel)() // a poll waits for this, and the end for the poll
	r.log.Warn("consumer: thrown out of the group and back, beginning again at its offsets", "partitions", len(kept))
	for {
		all, err := r.adm.FetchOffsets(kadm.RequireStable(ctx), r.c.Group)
		for _, p := range kept {
			if o, ok := all.Lookup(p.topic, p.partition); ok && err == nil {
				err = o.Err // such as that another's transaction is open
			}
		}
		if err == nil {
			err = r.sync(ctx)
		}
		if err == nil && r.exact != nil {
			var again []int32
			for _, p := range kept {
				again = append(again, p.partition)
			}
			err = r.exact.restore(ctx, again)
		}
		if err == nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			to := map[string]map[int32]kgo.EpochOffset{}
			for _, old := range kept {
				at, set := max(old.committed, 0), ""
				if o, ok := all.Lookup(old.topic, old.partition); ok && o.At >= 0 {
					at, set = o.At, o.Metadata
				}
				if r.ending {
					continue
				}
				p := r.openLane(old.topicPartition, member)
				p.committed, p.next, p.end, p.placed, p.id = at, at, old.end, true, old.id
				p.lane.Begin(lane.Mark{Offset: at, Epoch: -1}, p.finished(set))
				if to[p.topic] == nil {
					to[p.topic] = map[int32]kgo.EpochOffset{}
				}
				to[p.topic][p.partition] = kgo.EpochOffset{Epoch: -1, Offset: at}
			}
			r.cl.SetOffsets(to)
			return
		}
		r.log.Warn("consumer: where to begin again is not known, trying again", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-r.working.Done():
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// revoked gives partitions up: what is in hand gets the drain time, what has
// finished is committed, and nothing of the rest counts. It runs before
// another member may begin.
func (r *run) revoked(ctx context.Context, _ *kgo.Client, lost map[string][]int32) {
	<-r.opened
	if planted.Is(planted.KeepRevoked) {
		return
	}
	gone := r.take(lost)
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
	r.commit(ctx, func() []*partition { return gone }, func() { r.abandon(gone) })
	r.log.Info("consumer: partitions revoked", "partitions", lost)
}

// lost gives up partitions that may be another member's already.
func (r *run) lost(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	<-r.opened
	gone := r.take(lost)
	if len(gone) == 0 {
		return
	}
	r.abandon(gone)
	r.log.Warn("consumer: partitions lost", "partitions", lost)
}

// owned returns the partitions of the run.
func (r *run) owned() []*partition {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.partitions))
}

// take removes partitions from the run's.
func (r *run) take(lost map[string][]int32) []*partition {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.takeLocked(func(p *partition) bool { return slices.Contains(lost[p.topic], p.partition) })
}

func (r *run) takeLocked(match func(*partition) bool) (taken []*partition) {
	for tp, p := range r.partitions {
		if !match(p) {
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
	if r.exact != nil {
		r.exact.giveUp(gone)
	}
}

// partitionsOf lists what kgo tells of in maps.
func partitionsOf(topics map[string][]int32) (all []topicPartition) {
	for topic, ps := range topics {
		for _, n := range ps {
			all = append(all, topicPartition{topic, n})
		}
	}
	return all
}

func (r *run) becomeReady() { r.joined.Do(func() { close(r.c.ready) }) }
