package doctor

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// topics asks about the topics that are looked at, and about others as far as
// what hurts there needs it.
func (g *gathering) topics(ctx context.Context) {
	why := g.wanted()
	g.find(ctx, why)
	var names []string
	for _, name := range slices.Sorted(maps.Keys(why)) {
		t, ok := g.facts.Seen[name]
		switch {
		case ok:
			names = append(names, name)
		case why[name] == "":
			continue // a relative, or one that may not be seen
		default:
			t = Topic{Name: name, Why: why[name]}
		}
		g.facts.Topics = append(g.facts.Topics, t)
	}
	g.topicSettings(ctx, names)
	if len(names) > 0 {
		g.offsets(ctx, names)
		g.producers(ctx, names)
	}
}

// wanted are the topics to look at, with the reason.
func (g *gathering) wanted() map[string]string {
	why, seen := map[string]string{}, g.facts.Seen
	want := func(name, because string) {
		if _, has := why[name]; !has {
			why[name] = because
		}
	}
	for _, t := range g.Topics {
		want(t, "named in the call")
	}
	for _, group := range g.facts.Groups {
		for _, m := range group.Members {
			for t := range m.Assigned {
				want(t, "assigned to members of group "+group.Name)
			}
			for _, t := range m.Subscribed {
				want(t, "which members of group "+group.Name+" subscribe to")
			}
		}
		for _, c := range group.Commits {
			want(c.Topic, "for which group "+group.Name+" has committed offsets")
		}
		for _, ending := range deadEndings {
			if _, ok := seen[group.Name+ending]; ok {
				want(group.Name+ending, "")
			}
		}
	}
	for range 2 { // dead letters have a ledger, which is no relative of the first
		for _, t := range slices.Collect(maps.Keys(why)) {
			for _, r := range relatives(t, g.Groups, seen) {
				want(r, "")
			}
		}
	}
	return why
}

// find asks for the topics that were not told of with all others: they may not
// exist, or may not be described.
func (g *gathering) find(ctx context.Context, why map[string]string) {
	ctx, cancel := g.within(ctx)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	for name := range why {
		if _, ok := g.facts.Seen[name]; !ok {
			t := kmsg.NewMetadataRequestTopic()
			t.Topic = kmsg.StringPtr(name)
			req.Topics = append(req.Topics, t)
		}
	}
	// For want of rights the list of all topics is short, without an error. One
	// that nobody has is denied then.
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(nobodys)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, g.Client)
	if err != nil {
		g.missed("topics", "DESCRIBE on them", err)
		return
	}
	for _, t := range resp.Topics {
		if t.Topic == nil {
			continue
		}
		switch err := kerr.ErrorForCode(t.ErrorCode); {
		case err == nil:
			g.facts.Seen[*t.Topic] = topicOf(t)
		case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.InvalidTopicException):
		case *t.Topic == nobodys:
			g.facts.Veiled = true
			g.missed("leaders and replicas of topics that this user may not see", "DESCRIBE on TOPIC *", err)
		default:
			g.miss(Missed{What: "topic " + *t.Topic, Named: slices.Contains(g.Topics, *t.Topic)}, "DESCRIBE on TOPIC "+*t.Topic, err)
			why[*t.Topic] = ""
		}
	}
}

// topicSettings asks for settings: of the topics looked at, of the brokers'
// own, and of those that lack replicas.
func (g *gathering) topicSettings(ctx context.Context, names []string) {
	names = slices.Clone(names)
	for name, t := range g.facts.Seen {
		lacks := slices.ContainsFunc(t.Partitions, func(p Partition) bool { return len(p.ISR) < len(p.Replicas) })
		own := name == "__consumer_offsets" || name == "__transaction_state"
		if (lacks || own) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return
	}
	slices.Sort(names)
	ctx, cancel := g.within(ctx)
	defer cancel()
	all, err := describe(ctx, g.Client, kmsg.ConfigResourceTypeTopic, names...)
	if err != nil {
		g.missed("the settings of topics", "DESCRIBE_CONFIGS on them", err)
		return
	}
	for _, d := range all {
		if d.err != nil {
			g.missed("the settings of topic "+d.name, "DESCRIBE_CONFIGS on TOPIC "+d.name, d.err)
			continue
		}
		t := g.facts.Seen[d.name]
		t.Settings = d.settings
		g.facts.Seen[d.name] = t
		if t := g.topic(d.name); t != nil {
			t.Settings = d.settings
		}
	}
}

func (g *gathering) topic(name string) *Topic {
	if i := slices.IndexFunc(g.facts.Topics, func(t Topic) bool { return t.Name == name }); i >= 0 {
		return &g.facts.Topics[i]
	}
	return nil
}
