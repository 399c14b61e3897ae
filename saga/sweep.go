package saga

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/client"
)

// swept is an ended saga to be forgotten, and when it ended: in case it was
// started anew.
type swept struct {
	id string
	at int64
}

const (
	sweepSize = 1000 // of one transaction's record
	sweepMost = time.Minute
)

// sweeps forgets ended sagas whose Retention is over, until ctx is done. Memory
// has no ids of them, so it reads the state topic from where the last sweep came
// to: sagas stand there in the order in which they ended. Each is forgotten by a
// tombstone, that a record of the inbox asks for; until that is committed, a start of
// it changes nothing.
func (s *shell) sweeps(ctx context.Context) {
	tick := time.NewTicker(min(max(s.retention/60, time.Second), sweepMost))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, x := range s.clock.all() {
			from, ok := x.sweepable(time.Now().UnixMilli(), s.retention.Milliseconds())
			if !ok {
				continue
			}
			if err := s.sweepPartition(ctx, x, from); err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "saga: ended sagas are not forgotten, trying again", "partition", x.partition, "error", err)
			}
		}
	}
}

// sweepPartition asks to forget what has ended from an offset on.
func (s *shell) sweepPartition(ctx context.Context, x *index, from int64) error {
	topic := stateTopic(s.name)
	began := time.Now().UnixMilli()
	end, start, err := bounds(ctx, s.client, topic, x.partition)
	if err != nil {
		return err
	}
	if from = max(from, start); from >= end {
		x.sweptTo(end, began)
		return nil
	}
	reader, err := client.Open(s.client, nil, kgo.WithContext(ctx), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {x.partition: kgo.NewOffset().At(from)}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxBytes(fetchMaxBytes))
	if err != nil {
		return err
	}
	defer reader.Close()
	var all []swept
	send := func() error {
		if len(all) == 0 {
			return nil
		}
		err := s.tell(ctx, sweepRecord(s.inbox, x.partition, all))
		if err == nil {
			x.ask(len(all))
			all = nil
		}
		return err
	}
	for {
		fetches := reader.PollFetches(ctx)
		if err := context.Cause(ctx); err != nil {
			return err
		}
		for _, e := range fetches.Errors() {
			return fmt.Errorf("reading %s: %w", topic, e.Err)
		}
		for r := range fetches.RecordsAll() {
			from = r.Offset + 1
			if r.Attrs.IsControl() || r.Value == nil {
				continue
			}
			phase, _, ended, _, _, err := peek(r.Value)
			if err != nil || !phase.Ended() {
				continue
			}
			switch id := string(r.Key); x.sweep(id, ended, began, s.retention.Milliseconds(), len(all)) {
			case sweepNow:
				if all = append(all, swept{id, ended}); len(all) == sweepSize {
					if err := send(); err != nil {
						return err
					}
					x.sweptTo(from, ended)
				}
			case sweepLater:
				if err := send(); err != nil {
					return err
				}
				x.sweptTo(r.Offset, ended)
				return nil
			case sweepNever:
			}
		}
		if from >= end {
			if err := send(); err != nil {
				return err
			}
			x.sweptTo(from, began)
			return nil
		}
	}
}

// forgetEnded writes the tombstones that a sweep asked for.
func (s *shell) forgetEnded(ctx context.Context, x *index, offset int64, all []swept) error {
	for _, one := range all {
		if info := x.lookupEnded(one.id, offset); info == nil || info.ended != one.at || !x.claim(one.id, claim{offset: offset}) {
			continue // it was forgotten, and perhaps started anew
		}
		if err := s.table.Delete(ctx, one.id); err != nil {
			return err
		}
	}
	return nil
}

// claim is which record forgets a saga that has ended.
type claim struct {
	offset int64
	purge  bool // it is in the saga's own line: those after it find nothing
}

// claim reports whether the record at an offset may forget a saga that has ended:
// one at a time, or the tombstone of another could come after a new start.
func (x *index) claim(id string, by claim) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	d := digestOf(id)
	if _, is := x.ended[d]; !is {
		return false
	}
	if has, taken := x.claims[d]; taken {
		return has == by
	}
	if x.claims == nil {
		x.claims = map[digest]claim{}
	}
	x.claims[d] = by
	return true
}

// sweepable returns from which offset on ended sagas are to be forgotten, if any
// are.
func (x *index) sweepable(now, retention int64) (from int64, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	over := len(x.ended)-x.asked > mostEnded
	return x.first, x.owned && x.first >= 0 && len(x.ended) > 0 && (over || x.firstEnd+retention <= now)
}

type sweepVerdict uint8

const (
	sweepNever sweepVerdict = iota // it is known no more, or has another end
	sweepNow
	sweepLater
)

// sweep says whether a saga that ended is to be forgotten; so many are already,
// besides those that were asked for before.
func (x *index) sweep(id string, ended, now, retention int64, beside int) sweepVerdict {
	x.mu.Lock()
	defer x.mu.Unlock()
	e, ok := x.ended[digestOf(id)]
	switch {
	case !ok || max(e.at, -e.at) != ended:
		return sweepNever
	case ended+retention <= now, len(x.ended)-x.asked-beside > mostEnded:
		return sweepNow
	}
	return sweepLater
}

// ask notes that so many more were asked to be forgotten.
func (x *index) ask(n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.asked += n
}

// sweptTo notes that all that ended before an offset was asked to be forgotten.
func (x *index) sweptTo(offset, end int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.first, x.firstEnd = offset, end
}
