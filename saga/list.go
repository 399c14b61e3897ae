package saga

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/client"
)

// A Filter selects sagas. A saga must match everything that is set.
type Filter struct {
	// Phases are those that a saga may be in. None means any.
	Phases []Phase
	// Open leaves out those that have ended.
	Open bool
	// Stuck and Paused select only those that are.
	Stuck, Paused bool
	// Version is that of the Definition. 0 means any.
	Version int
	// Step selects sagas that have this step in hand: an attempt at it is out, or
	// is going to be made. "" means any.
	Step string
	// Since and Until bound the time when a saga began: not before Since, and
	// before Until. Zero means no bound.
	Since, Until time.Time
}

// Match reports whether a saga matches.
func (f Filter) Match(s Snapshot) bool {
	switch {
	case len(f.Phases) > 0 && !slices.Contains(f.Phases, s.Phase),
		f.Open && s.Phase.Ended(),
		f.Stuck && !s.Stuck,
		f.Paused && !s.Paused,
		f.Version != 0 && f.Version != s.Version,
		!f.Since.IsZero() && s.Began.Before(f.Since),
		!f.Until.IsZero() && !s.Began.Before(f.Until):
		return false
	}
	return f.Step == "" || slices.ContainsFunc(s.Steps, func(p Progress) bool { return p.Step == f.Step && p.inHand() })
}

func (p Progress) inHand() bool {
	switch p.Status {
	case stepDoing.String(), stepBetween.String(), stepUndoing.String(), stepUndoWait.String():
		return true
	}
	return false
}

// Counts are how many sagas there are, also those that have ended and are kept.
type Counts struct {
	Phases   map[Phase]int
	Versions map[int]int // of their Definitions
	// Stuck and Paused are how many of them are.
	Stuck, Paused int
	// Oldest is when the oldest that has not ended began. Zero means there is none.
	Oldest time.Time
	// Offsets are those of the state topic, by partition, that the counts are
	// current to: what was committed before them is in, and maybe more.
	Offsets map[int32]int64
	// Unreadable are records that are of a newer wherry, or damaged.
	Unreadable int
}

// List ranges over the sagas that match a Filter, in the order of their ids. It reads
// the state topic from its start to its present end and asks no owner. So it sees
// what was committed before the call, each saga as its last record says, with that
// record's Partition and Offset. It holds all of them in memory meanwhile. A record
// that cannot be read comes as an error with a Snapshot of its ID; any other error
// comes alone, and is the last.
func (i *Inspector) List(ctx context.Context, f Filter) iter.Seq2[Snapshot, error] {
	return func(yield func(Snapshot, error) bool) {
		all, _, err := i.contents(ctx)
		if err != nil {
			yield(Snapshot{Saga: i.Name, Offset: -1}, err)
			return
		}
		for _, r := range all.sagas {
			s, err := i.readable(r, all.outlines)
			if err == nil && !f.Match(s) {
				continue
			}
			if !yield(s, err) {
				return
			}
		}
	}
}

// Count returns how many sagas there are; it reads the state topic as
// [Inspector.List] does.
func (i *Inspector) Count(ctx context.Context) (Counts, error) {
	c := Counts{Phases: map[Phase]int{}, Versions: map[int]int{}}
	all, offsets, err := i.contents(ctx)
	if err != nil {
		return c, err
	}
	c.Offsets = offsets
	for _, r := range all.sagas {
		in, err := decodeInstance(string(r.Key), r.Value)
		if err != nil {
			c.Unreadable++
			continue
		}
		c.Phases[in.phase]++
		c.Versions[in.version]++
		if in.stuck {
			c.Stuck++
		}
		if in.paused {
			c.Paused++
		}
		if began := at(in.began); !in.phase.Ended() && (c.Oldest.IsZero() || began.Before(c.Oldest)) {
			c.Oldest = began
		}
	}
	return c, nil
}

// Outlines returns those of all Definitions that Engines ran with, by version. It
// reads the state topic as [Inspector.List] does.
func (i *Inspector) Outlines(ctx context.Context) ([]Outline, error) {
	all, _, err := i.contents(ctx)
	return all.outlines.sorted(), err
}

// content is what the state topic has.
type content struct {
	sagas    []*kgo.Record // by key
	outlines outlines
}

// contents reads the state topic, and returns where it ended before.
func (i *Inspector) contents(ctx context.Context) (all content, offsets map[int32]int64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("saga %s: %w", i.Name, err)
		}
	}()
	if err := i.check(); err != nil {
		return all, nil, err
	}
	all.outlines = outlines{}
	if offsets, err = i.ends(ctx); err != nil {
		return all, nil, err
	}
	t := &wherry.Table[[]byte]{Client: i.Client, Topic: stateTopic(i.Name), Codec: asIs{}, Logger: i.log()}
	ctx, stop := context.WithCancel(ctx)
	var run sync.WaitGroup
	run.Go(func() { _ = t.Run(ctx) }) // All says why it ended
	defer run.Wait()
	defer stop()
	for m, err := range t.All(ctx) {
		switch {
		case err != nil:
			return all, nil, err
		case isID(m.Record.Key):
			all.sagas = append(all.sagas, m.Record)
		default:
			all.outlines.take(string(m.Record.Key), m.Record.Value)
		}
	}
	slices.SortFunc(all.sagas, func(a, b *kgo.Record) int { return cmp.Compare(string(a.Key), string(b.Key)) })
	return all, offsets, nil
}

// ends are those of the state topic's partitions.
func (i *Inspector) ends(ctx context.Context) (map[int32]int64, error) {
	if err := i.exists(ctx); err != nil {
		return nil, err
	}
	topic := stateTopic(i.Name)
	cl, err := client.Open(i.Client, nil, client.Outlive(ctx)) // which has nothing cached
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListCommittedOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("asking for the end of %s: %w", topic, err)
	}
	offsets := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) { offsets[o.Partition] = o.Offset })
	return offsets, nil
}

func (i *Inspector) readable(r *kgo.Record, known outlines) (Snapshot, error) {
	id := string(r.Key)
	in, err := decodeInstance(id, r.Value)
	if err != nil {
		return Snapshot{Saga: i.Name, ID: id, Partition: r.Partition, Offset: r.Offset}, err
	}
	s := snapshot(i.Name, in, cmp.Or(known[in.version], i.outline(in.version)))
	s.Partition, s.Offset = r.Partition, r.Offset
	return s, nil
}

// asIs is the Codec of bytes.
type asIs struct{}

func (asIs) Encode(r *kgo.Record, v any) error {
	r.Value = v.([]byte)
	return nil
}

func (asIs) Decode(r *kgo.Record, v any) error {
	*v.(*[]byte) = r.Value
	return nil
}
