package doctor

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/wherry-go/wherry/internal/lane"
)

// group looks at a group that was asked for.
func (e *exam) group(g *Group) {
	if !g.Exists {
		e.find(Finding{
			Check: "group-missing", Severity: Error, What: "there is no group " + g.Name,
			Why:  "No member of it is running, and it has no committed offsets: none ever did, or they expired (offsets.retention.minutes, 7 days after the last member left). A Consumer begins at Consumer.From. It may be a typo.",
			Mend: "These are the groups that there are:", Commands: []string{e.tool("kafka-consumer-groups --list")},
		})
		return
	}
	e.state(g)
	e.members(g)
	e.outOfRange(g)
	e.held(g)
	e.sets(g)
}

// state looks at what the group does.
func (e *exam) state(g *Group) {
	switch strings.ToLower(strings.ReplaceAll(g.State, "_", "")) {
	case "stable":
	case "empty":
		f := Finding{
			Check: "group-empty", Severity: Note, What: fmt.Sprintf("group %s has no members", g.Name),
			Why:  "Nobody reads for it; its offsets expire after 7 days (offsets.retention.minutes).",
			Mend: "Start its service.",
		}
		if lag := e.Lag(g); lag.Total > 0 {
			f.Severity, f.What = Warning, fmt.Sprintf("%s, and a lag of %d", f.What, lag.Total)
		}
		e.find(f)
	default:
		e.find(Finding{
			Check: "group-state", Severity: Note, What: fmt.Sprintf("group %s is in state %s", g.Name, g.State),
			Why:  "It is sharing its partitions out. That takes a moment; if it is so each time one looks, members come and go, or one does not answer.",
			Mend: "Look again. If it stays so, see which members restart, or are thrown out for want of heartbeats.",
		})
	}
}

// members looks at who has what.
func (e *exam) members(g *Group) {
	partitions, assigned := map[string]bool{}, 0
	var idle, static []string
	for _, m := range g.Members {
		for _, t := range m.Subscribed {
			for _, p := range e.Seen[t].Partitions {
				partitions[place(t, p.ID)] = true
			}
		}
		for t, ps := range m.Assigned {
			for _, p := range ps {
				partitions[place(t, p)] = true
				assigned++
			}
		}
		if len(m.Assigned) == 0 {
			idle = append(idle, m.name())
		}
		if m.Instance != "" {
			static = append(static, m.name())
		}
	}
	f := Finding{Check: "idle-members", Severity: Note, Where: idle, What: fmt.Sprintf("%s of group %s without a partition", count(len(idle), "member"), g.Name)}
	switch {
	case len(idle) == 0:
	case len(g.Members) > len(partitions):
		f.What += fmt.Sprintf(": %s for %s", count(len(g.Members), "member"), count(len(partitions), "partition"))
		f.Why = "A partition has one reader at most, so these only stand by. Consumer.Concurrency and ByKey are how one process handles more at once."
		f.Mend = "Fewer processes do as well; or give the topics more partitions (keys then move to others)."
		e.find(f)
	case assigned < len(partitions) || len(g.Members) <= len(partitions):
		f.Severity = Warning
		f.Why = "There are enough partitions: the members may subscribe to different topics, or one has not yet given up what it should."
		f.Mend = "See what each has and whether the group is stable:"
		f.Commands = []string{e.tool("kafka-consumer-groups --describe --group %s --members --verbose", quoted(g.Name))}
		e.find(f)
	}
	if len(static) > 0 {
		e.find(Finding{
			Check: "static-members", Severity: Note, Where: static, What: fmt.Sprintf("group %s has %s with a group.instance.id", g.Name, count(len(static), "member")),
			Why:  "What a static member reads stands still from when it stops until it is back or its session times out (KIP-345). Two processes with one id throw each other out.",
			Mend: "See that each process has an id of its own, and that it comes back sooner than its session timeout.",
		})
	}
}

// name is how people find a member.
func (m Member) name() string {
	id := m.ID
	if m.Instance != "" {
		id = m.Instance
	}
	if host := strings.TrimPrefix(m.Host, "/"); host != "" {
		return id + " (" + m.Client + " at " + host + ")"
	}
	return id
}

// outOfRange looks for committed offsets that the log does not have.
func (e *exam) outOfRange(g *Group) {
	var ahead, behind []string
	resets := [2]map[string][]int32{{}, {}} // of those ahead and behind
	for _, c := range g.Commits {
		p, ok := e.partition(c.Topic, c.Partition)
		switch {
		case !ok || c.Offset < 0:
		case p.End >= 0 && c.Offset > p.End:
			resets[0][c.Topic] = append(resets[0][c.Topic], c.Partition)
			ahead = append(ahead, fmt.Sprintf("%s: committed %d, the end is %d", place(c.Topic, c.Partition), c.Offset, p.End))
		case p.Start >= 0 && c.Offset < p.Start:
			resets[1][c.Topic] = append(resets[1][c.Topic], c.Partition)
			behind = append(behind, fmt.Sprintf("%s: committed %d, the first is %d", place(c.Topic, c.Partition), c.Offset, p.Start))
		}
	}
	if len(ahead) > 0 {
		e.find(Finding{
			Check: "offset-ahead", Severity: Error, Where: ahead, What: fmt.Sprintf("group %s has committed offsets beyond the end of %s", g.Name, count(len(ahead), "partition")),
			Why:  "The topic was made anew, or its log was cut. A Consumer stops there with an OffsetRangeError, unless Consumer.OnReset says where to go on; others jump by their auto.offset.reset, without a word, once the log is as long as that.",
			Mend: "Stop the group's members, and choose where to go on, such as the first record:", Commands: e.resets(g, resets[0]),
		})
	}
	if len(behind) > 0 {
		e.find(Finding{
			Check: "offset-behind", Severity: Error, Where: behind, What: fmt.Sprintf("group %s has committed offsets that are no longer there in %s", g.Name, count(len(behind), "partition")),
			Why:  "Retention has deleted records that the group has not read. A Consumer stops there with an OffsetRangeError, unless Consumer.OnReset says where to go on.",
			Mend: "Find out what was lost, lengthen retention.ms, and go on from what is there, with the group's members stopped:", Commands: e.resets(g, resets[1]),
		})
	}
}

// resets are the commands that move offsets to what is there.
func (e *exam) resets(g *Group, partitions map[string][]int32) (all []string) {
	for _, topic := range slices.Sorted(maps.Keys(partitions)) {
		of := strings.Join(ids(slices.Sorted(slices.Values(partitions[topic]))), ",")
		all = append(all, e.tool("kafka-consumer-groups --group %s --reset-offsets --to-earliest --execute --topic %s:%s", quoted(g.Name), topic, of))
	}
	return all
}

// sets looks for finished sets that cannot be read: metadata that was made by a
// Consumer, for another topic or offset than the one that it stands with.
func (e *exam) sets(g *Group) {
	var lost []string
	for _, c := range g.Commits {
		t, ok := e.Seen[c.Topic]
		if !ok || !looksLikeSet(c.Metadata) {
			continue
		}
		if _, err := lane.Decode(c.Metadata, t.ID, c.Offset); err != nil {
			lost = append(lost, place(c.Topic, c.Partition)+" at offset "+strconv.FormatInt(c.Offset, 10))
		}
	}
	if len(lost) > 0 {
		e.find(Finding{
			Check: "finished-set", Severity: Warning, Where: lost, What: fmt.Sprintf("group %s has commits whose finished set cannot be read, in %s", g.Name, count(len(lost), "partition")),
			Why:  "What was finished beyond the committed offset is not known: it is handled again. The topic was made anew, or something else than a Consumer has moved the offset.",
			Mend: "Nothing needs to be done if handlers bear a record twice. Move offsets only while the group is stopped, and without the old metadata.",
		})
	}
}

// looksLikeSet reports whether a Consumer has written metadata: base64 that
// begins with a version and a topic's id. U+FFFD is what Kafka makes of bytes
// that are no text.
func looksLikeSet(metadata string) bool {
	clean := strings.ReplaceAll(metadata, "\uFFFD", "A")
	b, err := base64.RawURLEncoding.DecodeString(clean)
	return err == nil && len(b) > 1+16 && b[0] == 1
}

// partition finds a partition of a topic that is looked at.
func (e *exam) partition(topic string, id int32) (Partition, bool) {
	for i := range e.Topics {
		if e.Topics[i].Name != topic {
			continue
		}
		if j := slices.IndexFunc(e.Topics[i].Partitions, func(p Partition) bool { return p.ID == id }); j >= 0 {
			return e.Topics[i].Partitions[j], true
		}
	}
	return Partition{}, false
}
