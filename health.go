package wherry

import (
	"cmp"
	"slices"
	"time"
)

// Status is what a Consumer is doing; see [Consumer.Status].
type Status struct {
	// Ready is whether the channel of [Consumer.Ready] is closed and Run has
	// not ended.
	Ready bool
	// Partitions are those assigned to this Consumer, by topic and number.
	Partitions []PartitionStatus
}

// PartitionStatus is the state of one assigned partition.
type PartitionStatus struct {
	Topic     string
	Partition int32
	// Committed is the group's offset: where a successor would begin. -1
	// until it is known.
	Committed int64
	// End is the offset after the last record of the partition, as of the
	// last fetch. -1 until it is known.
	End int64
	// Lag is how many offsets lie between the two. (Some of them may hold no
	// record: transactions' marks, compacted records.)
	Lag int64
	// Held is how many records are in memory and have not finished.
	Held int
	// Running is how many of those a handler has in hand, and Waiting how many
	// are parked in [Wait] or wait in a delay topic. A record that waits looks
	// like lag to those who watch the group.
	Running, Waiting int
	// Oldest is the oldest record that a handler has in hand, -1 without one,
	// and OldestSince when it was first seen to be, by Status or a commit. A
	// lane whose handler does not return shows here.
	Oldest      int64
	OldestSince time.Time
	// Restoring is how many records of owned tables are left to be read back
	// before the first record of the partition is handled.
	Restoring int64
	// Paused is whether fetching waits for those to be done.
	Paused bool
}

// Status returns what the Consumer is doing now. It asks no broker.
func (c *Consumer) Status() (s Status) {
	c.init()
	r := c.current.Load()
	if r == nil {
		return s
	}
	select {
	case <-c.ready:
		s.Ready = true
	default:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for tp, p := range r.partitions {
		l := p.lane.State()
		ps := PartitionStatus{
			Topic: tp.topic, Partition: tp.partition, Committed: p.committed, End: p.end, Paused: p.paused,
			Held: l.Held, Running: l.Running, Waiting: l.Waiting, Oldest: l.Oldest, OldestSince: l.Since,
		}
		if p.committed >= 0 {
			ps.Lag = max(0, p.end-p.committed)
		}
		if r.exact != nil {
			ps.Restoring = r.exact.restoring(tp.partition)
		}
		s.Partitions = append(s.Partitions, ps)
	}
	slices.SortFunc(s.Partitions, func(a, b PartitionStatus) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return s
}

// TableStatus is the state of a Table; see [Table.Status].
type TableStatus struct {
	// Ready is whether the table was restored and still follows its topic.
	Ready bool
	// Keys is how many keys have a value.
	Keys int
	// Lag is how many offsets are left to be read, as of the last fetch. While
	// the table is restored it tells the progress.
	Lag int64
}

// Status returns the state of the table now. It asks no broker.
func (t *Table[V]) Status() TableStatus {
	t.init()
	s := TableStatus{Keys: t.store.Len(), Lag: t.lag.Load()}
	select {
	case <-t.ended:
		return s
	default:
	}
	select {
	case <-t.ready:
		s.Ready = true
	default:
	}
	return s
}
