package wherry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/planted"
	"github.com/wherry-go/wherry/internal/table"
)

// tables are the parts of owned tables that a run has. exact.mu guards them.
type tables struct {
	parts  map[string]map[int32]*table.Part // by topic and partition
	warm   map[string]map[int32]*table.Part // given up in the last rebalance
	states map[int32]int64                  // grows when writes to partition n are rolled back
	left   map[int32]int64                  // records to be read back

	making  map[string]func(partition int32) TableIndex // by topic; nil without one
	indexes map[*table.Part]TableIndex
}

func newTables(owned []Owned) tables {
	t := tables{
		parts: map[string]map[int32]*table.Part{}, warm: map[string]map[int32]*table.Part{},
		states: map[int32]int64{}, left: map[int32]int64{},
		making: map[string]func(int32) TableIndex{}, indexes: map[*table.Part]TableIndex{},
	}
	for _, o := range owned {
		name := o.owned().Name
		t.making[name] = o.index()
		t.parts[name], t.warm[name] = map[int32]*table.Part{}, map[int32]*table.Part{}
	}
	return t
}

// part makes an empty part.
func (t *tables) part(topic string, n int32) *table.Part {
	if t.making[topic] == nil {
		return table.NewPart(nil)
	}
	index := t.making[topic](n)
	part := table.NewPart(index)
	t.indexes[part] = index
	return part
}

// tell tells the index of a part, if it has one, whether it is owned.
func (t *tables) tell(part *table.Part, owned bool) {
	if index := t.indexes[part]; index != nil {
		index.Owned(owned)
	}
}

// forget drops the parts that were kept from the last rebalance and are not
// owned again.
func (t *tables) forget() {
	for topic, warm := range t.warm {
		for n, part := range warm {
			if t.parts[topic][n] != part {
				delete(t.indexes, part)
			}
		}
		clear(warm)
	}
}

// state is never 0.
func (t *tables) state(n int32) int64 { return t.states[n] + 1 }

// write makes the writes among outputs pending, and reports whether there are any.
func (t *tables) write(n int32, outputs []*kgo.Record) (writes bool) {
	for _, r := range outputs {
		if part := t.parts[r.Topic][n]; part != nil {
			part.Write(r)
			writes = true
		}
	}
	return writes
}

// commit takes in what a transaction wrote.
func (t *tables) commit(entries []*entry) {
	type place struct {
		topic string
		n     int32
	}
	written := map[place][]*kgo.Record{}
	for _, e := range entries {
		if !e.writes || e.p.lane.WasCut() { // its part was given up, and may have been read back since
			continue
		}
		for _, r := range e.outputs {
			if _, ok := t.parts[r.Topic]; ok {
				at := place{r.Topic, e.p.partition}
				written[at] = append(written[at], r)
			}
		}
	}
	for at, rs := range written {
		if part := t.parts[at.topic][at.n]; part != nil {
			part.Commit(rs)
		}
	}
}

// rollback drops what is pending in partition n.
func (t *tables) rollback(n int32) {
	t.states[n]++
	if planted.Is(planted.KeepOverlay) {
		return
	}
	for _, parts := range t.parts {
		if part := parts[n]; part != nil {
			part.Rollback()
		}
	}
}

// rollback drops what is pending in partition n. The lanes of that number,
// which are among those of partitions, begin nothing until what had begun before
// is to be run again: it comes first. It is called under x.mu.
func (x *exact) rollback(n int32, partitions []*partition) {
	for _, p := range partitions {
		if p.partition == n {
			p.lane.Hold()
			x.held = append(x.held, p.lane)
		}
	}
	x.tables.rollback(n)
	x.run.progressed() // take releases them
}

// giveUp takes back the parts of partitions that were taken away, whose lanes
// are cut. It is called under run.mu.
func (x *exact) giveUp(gone []*partition) {
	if len(x.tables.parts) == 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	beside := slices.Collect(maps.Values(x.run.partitions))
	for _, p := range gone {
		n := p.partition
		x.rollback(n, beside)
		if x.run.hasPartition(n) {
			continue // of another topic
		}
		for topic, parts := range x.tables.parts {
			if part := parts[n]; part != nil {
				delete(parts, n)
				x.tables.warm[topic][n] = part
				x.tables.tell(part, false)
			}
		}
	}
}

// hasPartition reports whether a partition of that number is assigned. It is
// called under run.mu.
func (r *run) hasPartition(n int32) bool {
	for tp := range r.partitions {
		if tp.partition == n {
			return true
		}
	}
	return false
}

// restore reads back the parts of owned tables that come with partitions. It is
// called after the group's stable offsets were fetched: what was written in the
// same transactions is in the log by then, below its high watermark.
func (x *exact) restore(ctx context.Context, partitions []int32) error {
	for topic := range x.tables.parts {
		parts := map[int32]*table.Part{}
		x.mu.Lock()
		for _, n := range partitions {
			if x.tables.parts[topic][n] != nil {
				continue
			}
			if parts[n] = x.tables.warm[topic][n]; parts[n] == nil {
				parts[n] = x.tables.part(topic, n)
				x.tables.warm[topic][n] = parts[n] // it goes on where a rebalance ends it
			}
		}
		x.mu.Unlock()
		if len(parts) == 0 {
			continue
		}
		err := table.Restore(ctx, x.run.c.Client, nil, topic, parts, x.run.log, func(n int32, left int64) {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.tables.left[n] = left
		})
		if err != nil {
			return fmt.Errorf("reading back table %s: %w", topic, err)
		}
		x.mu.Lock()
		maps.Copy(x.tables.parts[topic], parts)
		for _, part := range parts {
			x.tables.tell(part, true)
		}
		clear(x.tables.left)
		x.mu.Unlock()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.tables.forget() // another member has these by now
	return nil
}

// restoring is how many records are left to be read back for partition n.
func (x *exact) restoring(n int32) int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.tables.left[n]
}

// together checks that partitions of one number came to this member together:
// they share their part of the tables, which has one writer. It is called under
// run.mu.
func (r *run) together() error {
	if len(r.c.Tables) == 0 || len(r.handlers) == 1 {
		return nil
	}
	topics := map[int32]int{}
	for tp := range r.partitions {
		topics[tp.partition]++
	}
	for n, have := range topics {
		if have != len(r.handlers) {
			return fmt.Errorf("of the partitions %d of its %d topics, which share their part of the tables, %d came to this member: all members of group %s need the same topics (stop all of them to change those) and kgo.RangeBalancer", n, len(r.handlers), have, r.c.Group)
		}
	}
	return nil
}

// numbers are the partition numbers of offsets, each once.
func numbers[V any](offsets map[string]map[int32]V) (all []int32) {
	for _, ps := range offsets {
		for n := range ps {
			if !slices.Contains(all, n) {
				all = append(all, n)
			}
		}
	}
	slices.Sort(all)
	return all
}

// awaitOrigins waits until the topics of the routes exist: tables are made with
// as many partitions.
func (r *run) awaitOrigins(ctx context.Context, probe *kgo.Client) error {
	for told := false; len(r.c.Tables) > 0; told = true {
		found, err := r.ask(ctx, probe, r.setup.Topics)
		if err != nil {
			return err
		}
		missing := slices.DeleteFunc(slices.Clone(r.setup.Topics), func(topic string) bool { return len(found[topic].Partitions) > 0 })
		if len(missing) == 0 {
			return nil
		}
		if !told {
			r.log.WarnContext(ctx, "consumer: topics do not exist yet, waiting for them: its tables are to have as many partitions", "topics", missing)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
	return nil
}

// tablesFit checks that the topics that are read have as many partitions as the
// tables, with which they share their numbers.
func (r *run) tablesFit(ctx context.Context, probe *kgo.Client, topics []string) error {
	if len(r.c.Tables) == 0 {
		return nil
	}
	names := slices.Clone(topics)
	for _, t := range r.c.Tables {
		names = append(names, t.owned().Name)
	}
	found, err := r.made(ctx, probe, names)
	if err != nil {
		return err
	}
	want := len(found[topics[0]].Partitions)
	for _, name := range names {
		if have := len(found[name].Partitions); have != want {
			return &TopicError{name, fmt.Errorf("it has %d partitions and %s has %d: the topics and tables of a Consumer with Tables need the same number", have, topics[0], want)}
		}
	}
	return nil
}

// made asks for topics that exist, for a while until every broker has heard of
// those that were just made.
func (r *run) made(ctx context.Context, probe *kgo.Client, names []string) (kadm.TopicDetails, error) {
	const tries = 50
	for try := 1; ; try++ {
		found, err := r.ask(ctx, probe, names)
		missing := slices.ContainsFunc(names, func(name string) bool { return len(found[name].Partitions) == 0 })
		if err != nil || !missing || try == tries {
			return found, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
