package doctor

import (
	"fmt"
	"strconv"
)

// internal is a topic of the brokers' own, with the settings that it is made by
// when it is first needed.
type internal struct {
	topic, factor, least string
	check, what          string // what stops without it
}

var internals = []internal{
	{"__consumer_offsets", "offsets.topic.replication.factor", "", "offsets-topic", "groups neither form nor commit"},
	{"__transaction_state", "transaction.state.log.replication.factor", "transaction.state.log.min.isr", "transaction-topic", "no transaction begins or ends"},
}

// internalTopics looks at the replicas of the brokers' own topics, or at what
// they would be.
func (e *exam) internalTopics() {
	for _, in := range internals {
		if t, ok := e.Seen[in.topic]; ok && len(t.Partitions) > 0 {
			least, err := strconv.Atoi(t.Settings["min.insync.replicas"].Value)
			if err != nil {
				least = 0
			}
			e.internalTopic(in, t.replicas(), least, true)
			continue
		}
		for _, b := range e.alive() {
			if b.Settings == nil || e.Veiled {
				continue // Missed has it
			}
			factor, err := strconv.Atoi(b.Settings[in.factor].Value)
			if err != nil {
				e.unknown("broker settings", in.factor)
				continue
			}
			least, err := strconv.Atoi(b.Settings[in.least].Value)
			if err != nil && in.least != "" {
				e.unknown("broker settings", in.least)
			}
			if e.internalTopic(in, factor, least, false) {
				break
			}
		}
	}
}

// internalTopic looks at one; least is 0 if it is not known. It reports whether
// it found something.
func (e *exam) internalTopic(in internal, replicas, least int, made bool) (found bool) {
	brokers := len(e.Brokers)
	is := "has"
	if !made {
		is = "will have"
	}
	f := Finding{Check: in.check, Severity: Warning}
	switch {
	case !made && replicas > brokers:
		f.Severity = Error
		f.What = fmt.Sprintf("%s is %d, on a cluster of %s", in.factor, replicas, count(brokers, "broker"))
		f.Why = fmt.Sprintf("%s does not exist yet and cannot be made: %s.", in.topic, in.what)
		f.Mend = fmt.Sprintf("Set %s=%d in the brokers' server.properties and restart them, or add brokers.", in.factor, brokers)
	case least > replicas:
		f.Severity = Error
		f.What = fmt.Sprintf("%s %s %s and needs %d of them in sync", in.topic, is, count(replicas, "replica"), least)
		f.Why = fmt.Sprintf("It can never have so many: %s.", in.what)
	case replicas == 1 && brokers > 1:
		f.What = fmt.Sprintf("%s %s one replica, on a cluster of %d brokers", in.topic, is, brokers)
		f.Why = fmt.Sprintf("While the broker of one of its partitions is away %s for those that it keeps; if its disk is lost, so are committed offsets or what was decided about transactions.", in.what)
	case least == replicas && replicas > 1:
		f.What = fmt.Sprintf("%s %s %d replicas and needs all of them in sync", in.topic, is, replicas)
		f.Why = fmt.Sprintf("As soon as one broker is away, also for a restart, %s.", in.what)
	case least == 1 && replicas >= 3 && in.least != "":
		f.What = fmt.Sprintf("%s %s %d replicas and needs one of them in sync", in.topic, is, replicas)
		f.Why = "What one broker alone has noted can be lost with it: a transaction that was committed may then hang or be aborted in part."
	default:
		return false
	}
	if f.Mend == "" {
		e.mendInternal(in, &f, replicas, made)
	}
	e.find(f)
	return true
}

// mendInternal says how to change a topic that is there, or one that will be.
func (e *exam) mendInternal(in internal, f *Finding, replicas int, made bool) {
	want := min(3, len(e.Brokers))
	switch {
	case !made && in.least != "":
		f.Mend = fmt.Sprintf("Set %s=%d and %s=%d in the brokers' server.properties, before a transaction is made.", in.factor, want, in.least, max(1, want-1))
	case !made:
		f.Mend = fmt.Sprintf("Set %s=%d in the brokers' server.properties, before a group is made.", in.factor, want)
	case replicas == 1 && len(e.Brokers) > 1:
		f.Mend = "Give it three, or as many as there are brokers: write a reassignment (each partition with its replicas) and have it done by"
		f.Commands = []string{e.tool("kafka-reassign-partitions --execute --reassignment-json-file replicas.json")}
	default:
		f.Mend = "It needs no restart:"
		f.Commands = []string{e.setTopic(in.topic, "min.insync.replicas="+strconv.Itoa(max(1, min(replicas-1, 2))))}
	}
}
