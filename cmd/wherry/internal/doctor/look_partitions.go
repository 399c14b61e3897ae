package doctor

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// offsets asks where the topics' partitions begin and end.
func (g *gathering) offsets(ctx context.Context, names []string) {
	ctx, cancel := g.within(ctx)
	defer cancel()
	for _, ask := range []struct {
		list func(context.Context, ...string) (kadm.ListedOffsets, error)
		set  func(*Partition, int64)
	}{
		{g.adm.ListStartOffsets, func(p *Partition, o int64) { p.Start = o }},
		{g.adm.ListCommittedOffsets, func(p *Partition, o int64) { p.Stable = o }},
		{g.adm.ListEndOffsets, func(p *Partition, o int64) { p.End = o }},
	} {
		listed, err := ask.list(ctx, names...)
		if err != nil {
			g.missed("where some partitions begin and end", "DESCRIBE on the topics", err)
		}
		for _, name := range names {
			t := g.topic(name)
			for i := range t.Partitions {
				if o, ok := listed.Lookup(name, t.Partitions[i].ID); ok && o.Err == nil {
					ask.set(&t.Partitions[i], o.Offset)
				}
			}
		}
	}
}

// producers asks the leaders which producers they remember.
func (g *gathering) producers(ctx context.Context, names []string) {
	for _, name := range names {
		g.producersOf(ctx, g.topic(name))
	}
}

func (g *gathering) producersOf(ctx context.Context, t *Topic) {
	ctx, cancel := g.within(ctx)
	defer cancel()
	set := kadm.TopicsSet{}
	for _, p := range t.Partitions {
		if p.Leader >= 0 {
			set.Add(t.Name, p.ID)
		}
	}
	if len(set) == 0 {
		return
	}
	all, err := g.adm.DescribeProducers(ctx, set)
	if err != nil {
		g.missed("the producers of topic "+t.Name, "READ on TOPIC "+t.Name, err)
	}
	for i := range t.Partitions {
		for _, pr := range all[t.Name].Partitions[t.Partitions[i].ID].ActiveProducers.Sorted() {
			t.Partitions[i].Producers = append(t.Partitions[i].Producers, Producer{
				ID: pr.ProducerID, Epoch: pr.ProducerEpoch, OpenFrom: pr.CurrentTxnStartOffset, Last: time.UnixMilli(pr.LastTimestamp),
				Transactional: pr.CurrentTxnStartOffset >= 0 || pr.CoordinatorEpoch >= 0,
			})
		}
	}
}
