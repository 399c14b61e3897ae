package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// topic looks at a topic, by its role.
func (e *exam) topic(t *Topic) {
	if t.Internal {
		return
	}
	if !t.Exists {
		e.find(Finding{
			Check: "topic-missing", Severity: Error, What: fmt.Sprintf("there is no topic %s, %s", t.Name, t.Why),
			Why:  "A Consumer that reads it makes it, where it may, and otherwise does not start; what others write to it is refused. It may be a typo.",
			Mend: "If the name is right:", Commands: []string{e.tool("kafka-topics --create --topic %s", t.Name)},
		})
		return
	}
	k := e.kinOf(t.Name)
	e.copies(t)
	if k.role == plain || k.role == dead { // wherry alone reads the others, and reads committed
		e.transactional(t)
	}
	e.stable(t)
	if t.Settings == nil { // Missed has it
		e.counts(t, k)
		return
	}
	e.inSync(t)
	e.unclean(t)
	switch k.role {
	case delay:
		e.delayTopic(t, k)
	case keys, ledger:
		e.changelog(t)
	case dead:
		e.deadTopic(t)
	case plain:
		e.compacted(t)
	}
	e.counts(t, k)
	e.sizes(t, k)
}

// get returns a topic's setting, and notes it where it is not told.
func (e *exam) get(t *Topic, name string) (value string, ok bool) {
	s, ok := t.Settings[name]
	if !ok {
		e.unknown("topic settings", name)
	}
	return s.Value, ok
}

// number is get for numbers.
func (e *exam) number(t *Topic, name string) (n int64, ok bool) {
	value, ok := e.get(t, name)
	n, err := strconv.ParseInt(value, 10, 64)
	return n, ok && err == nil
}

// replicas is how many replicas each partition has: those of the one that has
// the least.
func (t *Topic) replicas() int {
	least := 0
	for i, p := range t.Partitions {
		if i == 0 || len(p.Replicas) < least {
			least = len(p.Replicas)
		}
	}
	return least
}

// copies looks at the replication factor.
func (e *exam) copies(t *Topic) {
	if t.replicas() == 1 && len(e.Brokers) > 1 {
		e.find(Finding{
			Check: "one-replica", Severity: Warning, What: fmt.Sprintf("topic %s has one replica, on a cluster of %d brokers", t.Name, len(e.Brokers)),
			Why:  "While the broker that has it is away nothing is read or written there; if its disk is lost, so are the records.",
			Mend: "Give it three, or as many as there are brokers: write a reassignment (each partition with its replicas) and have it done by",
			Commands: []string{
				e.tool("kafka-reassign-partitions --execute --reassignment-json-file replicas.json"),
			},
		})
	}
}

// inSync looks at min.insync.replicas.
func (e *exam) inSync(t *Topic) {
	least, ok := e.number(t, "min.insync.replicas")
	replicas := t.replicas()
	if !ok || replicas == 0 {
		return
	}
	f := Finding{Check: "min-isr", Severity: Warning, What: fmt.Sprintf("topic %s has min.insync.replicas %d and %s", t.Name, least, count(replicas, "replica"))}
	switch n := int(least); {
	case n > replicas:
		f.Severity = Error
		f.Why = "It can never have so many in sync: writes that wait for all replicas are refused (NOT_ENOUGH_REPLICAS), and wherry's all do."
	case n == replicas && n > 1:
		f.Why = "As soon as one broker is away, also for a restart, writes are refused (NOT_ENOUGH_REPLICAS)."
	case n == 1 && replicas >= 3:
		f.Why = "A record counts as written when one broker has it: if that one is lost at the wrong moment, so are acknowledged records and what exactly once rests on."
	default:
		return
	}
	f.Mend, f.Commands = "One less than there are replicas is usual:", []string{e.setTopic(t.Name, "min.insync.replicas="+strconv.Itoa(max(1, min(replicas-1, 2))))}
	e.find(f)
}

func (e *exam) unclean(t *Topic) {
	if value, ok := e.get(t, "unclean.leader.election.enable"); !ok || value != "true" || e.everywhereUnclean() {
		return
	}
	e.find(Finding{
		Check: "unclean-election", Severity: Warning, What: fmt.Sprintf("topic %s has unclean.leader.election.enable", t.Name),
		Why:  "A replica that is behind may become leader: acknowledged records are lost, and committed offsets then lie beyond the end.",
		Mend: "It needs no restart:", Commands: []string{e.setTopic(t.Name, "unclean.leader.election.enable=false")},
	})
}

// everywhereUnclean reports whether the brokers have it for all topics, which
// is told once.
func (e *exam) everywhereUnclean() bool {
	return slices.ContainsFunc(e.alive(), func(b Broker) bool { return b.Settings["unclean.leader.election.enable"].Value == "true" })
}

// policy is a topic's cleanup.policy.
func (e *exam) policy(t *Topic) (compact, remove, ok bool) {
	value, ok := e.get(t, "cleanup.policy")
	for _, p := range strings.Split(value, ",") {
		compact = compact || strings.TrimSpace(p) == "compact"
		remove = remove || strings.TrimSpace(p) == "delete"
	}
	return compact, remove, ok
}

// compacted looks at a topic that may be a changelog of somebody's.
func (e *exam) compacted(t *Topic) {
	compact, remove, _ := e.policy(t)
	if !compact {
		return
	}
	kept, ok := e.get(t, "retention.ms")
	if !ok || kept == "-1" && !remove {
		return
	}
	f := Finding{
		Check: "changelog-retention", Severity: Note, What: fmt.Sprintf("topic %s is compacted and has retention.ms %s", t.Name, millis(kept)),
		Why:      "Apache Kafka does not look at it while cleanup.policy is compact alone; other brokers do, and wherry.EnsureTopics refuses such a topic as a Changelog: the last record of a key would go.",
		Mend:     "If a Table is made of it:",
		Commands: []string{e.setTopic(t.Name, "retention.ms=-1")},
	}
	if remove {
		f.Severity = Warning
		f.What = fmt.Sprintf("topic %s is compacted and also deleted, after %s", t.Name, millis(kept))
		f.Why = "The last record of a key goes when it is so old: a Table that is built from it forgets keys that were not written for that long."
		f.Commands = []string{e.setTopic(t.Name, "cleanup.policy=compact,retention.ms=-1")}
	}
	e.find(f)
}
