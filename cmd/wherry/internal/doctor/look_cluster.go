package doctor

import (
	"context"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// metadata asks for the brokers that are there and for all topics that may be
// described. It asks all brokers to begin with at once: one may hang.
func (g *gathering) metadata(ctx context.Context) error {
	ctx, cancel := g.within(ctx)
	defer cancel()
	type answer struct {
		resp *kmsg.MetadataResponse
		err  error
	}
	seeds := g.Client.SeedBrokers()
	answers := make(chan answer, len(seeds))
	for _, seed := range seeds {
		go func() {
			resp, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, seed) // no topics are all topics
			answers <- answer{resp, err}
		}()
	}
	var resp *kmsg.MetadataResponse
	var err error
	for range seeds {
		if a := <-answers; a.err == nil && resp == nil {
			resp = a.resp
			cancel() // the others; they are waited for
		} else if resp == nil {
			err = a.err
		}
	}
	if resp == nil {
		return err
	}
	f := g.facts
	if resp.ClusterID != nil {
		f.ClusterID = *resp.ClusterID
	}
	for _, b := range resp.Brokers {
		f.Brokers = append(f.Brokers, Broker{ID: b.NodeID})
	}
	f.Seen = map[string]Topic{}
	for _, t := range resp.Topics {
		if t.Topic != nil && kerr.ErrorForCode(t.ErrorCode) == nil {
			f.Seen[*t.Topic] = topicOf(t)
		}
	}
	for _, t := range f.Seen {
		for _, p := range t.Partitions {
			for _, id := range p.Replicas {
				g.down(id)
			}
		}
	}
	g.sortBrokers()
	return nil
}

func topicOf(t kmsg.MetadataResponseTopic) Topic {
	topic := Topic{Name: *t.Topic, ID: t.TopicID, Exists: true, Internal: t.IsInternal}
	for _, p := range t.Partitions {
		topic.Partitions = append(topic.Partitions, Partition{ID: p.Partition, Leader: p.Leader, Replicas: p.Replicas, ISR: p.ISR, Start: -1, Stable: -1, End: -1})
	}
	slices.SortFunc(topic.Partitions, func(a, b Partition) int { return int(a.ID - b.ID) })
	return topic
}

// down notes a broker that is not listed among those that are there.
func (g *gathering) down(id int32) {
	if !slices.ContainsFunc(g.facts.Brokers, func(b Broker) bool { return b.ID == id }) {
		g.facts.Brokers = append(g.facts.Brokers, Broker{ID: id, Down: true})
	}
}

func (g *gathering) sortBrokers() {
	slices.SortFunc(g.facts.Brokers, func(a, b Broker) int { return int(a.ID - b.ID) })
}

// fenced asks for brokers that are registered and away (KIP-1073, Kafka 4.0;
// older ones tell of none).
func (g *gathering) fenced(ctx context.Context) {
	ctx, cancel := g.within(ctx)
	defer cancel()
	req := kmsg.NewPtrDescribeClusterRequest()
	req.IncludeFencedBrokers = true
	resp, err := req.RequestWith(ctx, g.anyone())
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		g.missed("brokers that are registered and away", "DESCRIBE on CLUSTER", err)
		return
	}
	for _, b := range resp.Brokers {
		if b.IsFenced {
			g.down(b.NodeID)
		}
	}
	g.sortBrokers()
}

// each asks all brokers that are there at once.
func (g *gathering) each(ctx context.Context, ask func(ctx context.Context, b *Broker) error) (failed map[int32]error) {
	ctx, cancel := g.within(ctx)
	defer cancel()
	var (
		all sync.WaitGroup
		mu  sync.Mutex
	)
	failed = map[int32]error{}
	for i := range g.facts.Brokers {
		b := &g.facts.Brokers[i]
		if b.Down {
			continue
		}
		all.Go(func() {
			if err := ask(ctx, b); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[b.ID] = err
			}
		})
	}
	all.Wait()
	return failed
}

// versions asks each broker what it can do. One that does not answer is down.
func (g *gathering) versions(ctx context.Context) {
	var mu sync.Mutex
	failed := g.each(ctx, func(ctx context.Context, b *Broker) error {
		req := kmsg.NewPtrApiVersionsRequest()
		req.ClientSoftwareName, req.ClientSoftwareVersion = "wherry", "doctor"
		resp, err := req.RequestWith(ctx, g.Client.Broker(int(b.ID)))
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err != nil {
			return err
		}
		b.Version = kversion.FromApiVersionsResponse(resp).VersionGuess()
		mu.Lock()
		defer mu.Unlock()
		g.features(resp)
		return nil
	})
	for i := range g.facts.Brokers {
		if b := &g.facts.Brokers[i]; failed[b.ID] != nil && ctx.Err() == nil {
			b.Down, b.Silent = true, because("", failed[b.ID])
		}
	}
}

// features takes in what one broker says of features. Those that only some
// support are as good as unsupported.
func (g *gathering) features(resp *kmsg.ApiVersionsResponse) {
	first := g.facts.Features == nil
	if first {
		g.facts.Features = map[string]Span{}
	}
	supported := map[string]int16{}
	for _, s := range resp.SupportedFeatures {
		supported[s.Name] = s.MaxVersion
	}
	for name, span := range g.facts.Features {
		span.Supported = min(span.Supported, supported[name])
		g.facts.Features[name] = span
	}
	if first {
		for name, most := range supported {
			g.facts.Features[name] = Span{Supported: most}
		}
	}
	for _, f := range resp.FinalizedFeatures {
		span := g.facts.Features[f.Name]
		span.Finalized = max(span.Finalized, f.MaxVersionLevel)
		g.facts.Features[f.Name] = span
	}
}
