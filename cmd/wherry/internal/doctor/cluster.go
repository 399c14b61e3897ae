package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cluster looks at brokers and at the replicas of all topics that are seen.
func (e *exam) cluster() {
	var down, silent []int32
	var said []string
	versions := map[string][]int32{}
	for _, b := range e.Brokers {
		switch {
		case b.Silent != "":
			silent, said = append(silent, b.ID), append(said, fmt.Sprintf("broker %d: %s", b.ID, b.Silent))
		case b.Down:
			down = append(down, b.ID)
		case b.Version != "":
			versions[b.Version] = append(versions[b.Version], b.ID)
		}
	}
	e.away(down, silent, said)
	if len(versions) > 1 {
		var each []string
		for _, v := range slices.Sorted(maps.Keys(versions)) {
			each = append(each, v+" on "+and(ids(versions[v])))
		}
		e.find(Finding{
			Check: "broker-versions", Severity: Warning, What: "brokers are of different versions: " + strings.Join(each, "; "),
			Why:  "Requests that one broker knows and another does not fail when a partition or a group moves. It is meant to last only as long as an upgrade.",
			Mend: "Finish the upgrade.",
		})
	}
	e.replicas()
}

// away tells of brokers that are down, and of those that do not answer.
func (e *exam) away(down, silent []int32, said []string) {
	const why = "Partitions that were led there have another leader, or none, where no other replica was in sync. Until all brokers are back fewer failures are survived."
	if len(down) > 0 {
		what := "broker " + ids(down)[0] + " is down"
		if len(down) > 1 {
			what = "brokers " + and(ids(down)) + " are down"
		}
		e.find(Finding{
			Check: "broker-down", Severity: Error, What: what, Why: why,
			Mend:     "See the log, and start it again. A broker that is gone for good is unregistered, after its replicas were moved by kafka-reassign-partitions:",
			Commands: []string{e.tool("kafka-cluster unregister --id %d", down[0])},
		})
	}
	if len(silent) > 0 {
		e.find(Finding{
			Check: "broker-silent", Severity: Error, What: "the cluster lists " + count(len(silent), "broker") + " from which there is no answer", Where: said, Why: "A client that needs it waits for it: it is overloaded, has just gone, or cannot be reached from here at the address that it tells (advertised.listeners).",
			Mend: "Look again in some seconds: the cluster gives up a broker that is gone after broker.session.timeout.ms, 9 s. Else see whether its host and port can be reached from here.",
		})
	}
}

// replicas looks at the leaders and the replicas in sync.
func (e *exam) replicas() {
	leaderless, lagging, below := map[string][]int32{}, map[string][]int32{}, map[string][]int32{}
	for _, name := range slices.Sorted(maps.Keys(e.Seen)) {
		t := e.Seen[name]
		if t.Settings == nil { // it may be one of those looked at
			if i := slices.IndexFunc(e.Topics, func(o Topic) bool { return o.Name == name }); i >= 0 {
				t.Settings = e.Topics[i].Settings
			}
		}
		least, _ := strconv.Atoi(t.Settings["min.insync.replicas"].Value)
		for _, p := range t.Partitions {
			switch {
			case p.Leader < 0:
				leaderless[name] = append(leaderless[name], p.ID)
			case len(p.ISR) < least && len(p.Replicas) >= least:
				below[name] = append(below[name], p.ID)
			case len(p.ISR) < len(p.Replicas):
				lagging[name] = append(lagging[name], p.ID)
			}
		}
	}
	e.partitions(leaderless, Finding{
		Check: "no-leader", Severity: Error, What: "%s without a leader",
		Why:  "Nobody can read or write them, and a Consumer that is assigned one waits; a group or a transaction whose coordinator was there stands still.",
		Mend: "Start the brokers that hold their replicas. Should those be lost for good, a replica that is behind can be made leader, which loses the records that only they had:",
		Commands: []string{
			e.tool("kafka-leader-election --election-type unclean --all-topic-partitions"),
		},
	})
	e.partitions(below, Finding{
		Check: "below-min-isr", Severity: Error, What: "%s with fewer replicas in sync than min.insync.replicas",
		Why:  "Writes that wait for all replicas are refused (NOT_ENOUGH_REPLICAS), and wherry's all do: outputs, dead letters and, on the internal topics, commits and transactions wait.",
		Mend: "Start the brokers that hold the other replicas, or find out why they are behind: a full disk, a slow network.",
	})
	e.partitions(lagging, Finding{
		Check: "under-replicated", Severity: Warning, What: "%s with replicas that are not in sync",
		Why:  "Records are on fewer brokers than was asked for. One more that fails may stop writes, or lose records.",
		Mend: "Start the brokers that hold the other replicas, or find out why they are behind: a full disk, a slow network. These list them:",
		Commands: []string{
			e.tool("kafka-topics --describe --under-replicated-partitions"),
		},
	})
}

// partitions adds f if there are any.
func (e *exam) partitions(byTopic map[string][]int32, f Finding) {
	n := 0
	for _, p := range byTopic {
		n += len(p)
	}
	if n == 0 {
		return
	}
	f.What, f.Where = fmt.Sprintf(f.What, count(n, "partition")), places(byTopic)
	e.find(f)
}

// features looks at transaction.version, which is 2 where every transaction
// has an epoch of its own (KIP-890, part 2; Kafka 4.0 and later).
func (e *exam) features() {
	if e.Features == nil {
		return
	}
	const name, want = "transaction.version", 2
	v := e.Features[name]
	f := Finding{
		Check: "transaction-version", Severity: Warning,
		What: fmt.Sprintf("%s is %d, the brokers can do %d", name, v.Finalized, v.Supported),
		Why:  "Before version 2 (KIP-890) a late request of one transaction may end up in the next one of that producer, or hang in a partition for ever: read_committed readers then stand still.",
	}
	switch {
	case v.Finalized >= want:
		return
	case v.Supported >= want:
		f.Mend = "Finalize it, when all brokers are upgraded; it needs no restart:"
		f.Commands = []string{e.tool("kafka-features upgrade --feature %s=%d", name, want)}
	default:
		f.Severity = Note
		f.What = "the brokers do not have " + name + " 2"
		f.Mend = "Upgrade to Kafka 4.0 or later; until then, look for hanging transactions now and then:"
		f.Commands = []string{e.tool("kafka-transactions find-hanging --broker-id 1")}
	}
	e.find(f)
}

// maxSkew is how far clocks may differ before it is told.
const maxSkew = time.Second

func (e *exam) clocks() {
	for _, c := range e.Clocks {
		off, way := c.Ahead, "behind"
		if off < 0 {
			off, way = -off, "ahead of"
		}
		if off-c.Give <= maxSkew {
			continue
		}
		e.find(Finding{
			Check: "clock-skew", Severity: Warning,
			What: fmt.Sprintf("this machine's clock is %s %s that of %s (±%s)", long(off), way, c.Of, long(c.Give)),
			Why:  "Delayed records become due by the clock of the process that reads them, and deadlines are written by that of the one that failed: waits are longer or shorter by the difference. Starting at a time and retention go by record timestamps.",
			Mend: "Keep the clocks of brokers and services by NTP: see chronyc tracking, or timedatectl, on both.",
		})
	}
}

// brokerNow is the time by the brokers' clock, as far as it is known.
func (e *exam) brokerNow() time.Time {
	if len(e.Clocks) == 0 {
		return e.Now
	}
	return e.Now.Add(e.Clocks[0].Ahead)
}
