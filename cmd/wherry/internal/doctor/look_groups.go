package doctor

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// groups asks about the groups.
func (g *gathering) groups(ctx context.Context) {
	for _, name := range g.Groups {
		group := Group{Name: name}
		if err := g.describe(ctx, &group); err != nil {
			g.miss(Missed{What: "group " + name, Named: true}, "DESCRIBE on GROUP "+name, err)
			continue
		}
		g.commits(ctx, &group)
		if !group.Exists && len(group.Commits) > 0 { // its offsets alone are left
			group.Exists, group.State, group.Protocol = true, "Empty", "classic"
		}
		g.facts.Groups = append(g.facts.Groups, group)
	}
}

// describe asks for a group's members, in the new protocol (KIP-848) and then
// in the classic one.
func (g *gathering) describe(ctx context.Context, group *Group) error {
	ctx, cancel := g.within(ctx)
	defer cancel()
	if g.describeNew(ctx, group) {
		return nil
	}
	all, err := g.adm.DescribeGroups(ctx, group.Name)
	if err != nil {
		return err
	}
	d := all[group.Name]
	switch {
	case errors.Is(d.Err, kerr.GroupIDNotFound), strings.EqualFold(d.State, "dead"):
		return nil
	case d.Err != nil:
		return d.Err
	}
	group.Exists, group.State, group.Protocol, group.Assignor = true, d.State, "classic", d.Protocol
	for _, m := range d.Members {
		member := Member{ID: m.MemberID, Instance: orEmpty(m.InstanceID), Client: m.ClientID, Host: m.ClientHost, Assigned: map[string][]int32{}}
		if join, ok := m.Join.AsConsumer(); ok {
			member.Subscribed = join.Topics
		}
		if has, ok := m.Assigned.AsConsumer(); ok {
			for _, t := range has.Topics {
				if len(t.Partitions) > 0 {
					member.Assigned[t.Topic] = t.Partitions
				}
			}
		}
		group.Members = append(group.Members, member)
	}
	return nil
}

// describeNew is describe for the new protocol; ok is false where the group has
// the classic one, or does not exist.
func (g *gathering) describeNew(ctx context.Context, group *Group) (ok bool) {
	req := kmsg.NewPtrConsumerGroupDescribeRequest()
	req.Groups = []string{group.Name}
	resp, err := req.RequestWith(ctx, g.Client)
	if err != nil || len(resp.Groups) != 1 || resp.Groups[0].ErrorCode != 0 {
		return false
	}
	names := map[[16]byte]string{} // some brokers tell ids alone
	for name, t := range g.facts.Seen {
		names[t.ID] = name
	}
	d := resp.Groups[0]
	group.Exists, group.State, group.Protocol, group.Assignor = true, d.State, "consumer", d.AssignorName
	for _, m := range d.Members {
		member := Member{ID: m.MemberID, Instance: orEmpty(m.InstanceID), Client: m.ClientID, Host: m.ClientHost, Subscribed: m.SubscribedTopics, Assigned: map[string][]int32{}}
		for _, t := range m.Assignment.TopicPartitions {
			if name := cmp.Or(t.Topic, names[t.TopicID]); name != "" && len(t.Partitions) > 0 {
				member.Assigned[name] = t.Partitions
			}
		}
		group.Members = append(group.Members, member)
	}
	return true
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func partitionsOf(set kadm.TopicsSet) map[string][]int32 {
	all := map[string][]int32{}
	for _, t := range set.Sorted() {
		if len(t.Partitions) > 0 {
			all[t.Topic] = t.Partitions
		}
	}
	return all
}

// commits asks for a group's offsets twice: as they are, and for those that a
// transaction holds.
func (g *gathering) commits(ctx context.Context, group *Group) {
	ctx, cancel := g.within(ctx)
	defer cancel()
	all, err := g.adm.FetchOffsets(ctx, group.Name)
	if err != nil {
		if !errors.Is(err, kerr.GroupIDNotFound) {
			g.missed("the offsets of group "+group.Name, "DESCRIBE on GROUP "+group.Name, err)
		}
		return
	}
	stable, err := g.adm.FetchOffsets(kadm.RequireStable(ctx), group.Name)
	if err != nil {
		g.missed("whether a transaction holds offsets of group "+group.Name, "DESCRIBE on GROUP "+group.Name, err)
	}
	for _, o := range all.Sorted() {
		c := Commit{Topic: o.Topic, Partition: o.Partition, Offset: o.At, Metadata: o.Metadata}
		if s, ok := stable.Lookup(o.Topic, o.Partition); ok {
			c.Held = errors.Is(s.Err, kerr.UnstableOffsetCommit)
		}
		group.Commits = append(group.Commits, c)
	}
}
