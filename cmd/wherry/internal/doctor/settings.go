package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

const (
	// leastTimeout is the transaction timeout of an exactly-once Consumer.
	leastTimeout = 10_000
	// groupSession is kgo's session timeout, which a Consumer joins its group
	// with unless its Opts say otherwise.
	groupSession = 45_000
	// batchBytes is the largest batch that kgo writes (ProducerBatchMaxBytes).
	batchBytes = 1_000_012
	// finishedSet is the longest metadata that a Consumer commits.
	finishedSet = 3_000
)

// rule is the check of one broker setting. judge returns 0 for a value that is
// fine.
type rule struct {
	check, setting string
	judge          func(value string) Severity
	why            string
	want           string // the value to set; what it needs beside, in hint
	hint           string
}

// below judges numbers: those under limit are of severity s.
func below(limit int64, s Severity) func(string) Severity {
	return func(value string) Severity {
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && n < limit {
			return s
		}
		return 0
	}
}

func above(limit int64, s Severity) func(string) Severity {
	return func(value string) Severity {
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && n > limit {
			return s
		}
		return 0
	}
}

func yes(s Severity) func(string) Severity {
	return func(value string) Severity {
		if strings.EqualFold(value, "true") {
			return s
		}
		return 0
	}
}

// brokerRules are the checks of broker settings.
var brokerRules = []rule{{
	// Since Kafka 4.0 a broker retries by itself what meets the markers of the
	// transaction before (KAFKA-18654).
	check: "txn-retry-backoff", setting: "add.partitions.to.txn.retry.backoff.ms", judge: above(5, Warning), want: "1",
	why:  "A transaction that begins before the markers of the last one are written waits in the broker for so many milliseconds, or a multiple of that: exactly once takes 30 ms and more where it could take 5.",
	hint: "Leave add.partitions.to.txn.retry.backoff.max.ms at 100.",
}, {
	check: "offset-metadata", setting: "offset.metadata.max.bytes", want: "4096",
	judge: func(value string) Severity {
		if s := below(finishedSet, Warning)(value); s != 0 {
			return s
		}
		return below(4096, Note)(value)
	},
	why: "A Consumer that handles records out of order keeps what is finished beyond the offset in the metadata of its commits, up to 3,000 characters. With less room fewer records are in hand at once, and after a crash more are handled again.",
}, {
	check: "session-timeout-max", setting: "group.max.session.timeout.ms", judge: below(groupSession, Error), want: "1800000",
	why: "franz-go joins a group with a session timeout of 45 s: the broker refuses it (INVALID_SESSION_TIMEOUT), unless Consumer.Opts has a shorter kgo.SessionTimeout.",
}, {
	check: "session-timeout-min", setting: "group.min.session.timeout.ms", judge: above(groupSession, Error), want: "6000",
	why: "franz-go joins a group with a session timeout of 45 s: the broker refuses it (INVALID_SESSION_TIMEOUT), unless Consumer.Opts has a longer kgo.SessionTimeout.",
}, {
	check: "txn-timeout-max", setting: "transaction.max.timeout.ms", judge: below(leastTimeout, Error), want: "900000",
	why: "An exactly-once Consumer asks for a transaction timeout of 10 s: the broker refuses it (INVALID_TRANSACTION_TIMEOUT), and the Consumer does not start.",
}, {
	check: "txn-id-expiration", setting: "transactional.id.expiration.ms", judge: below(3_600_000, Warning), want: "604800000",
	why: "A producer that was silent for so long is forgotten; its next transaction fails (INVALID_PRODUCER_ID_MAPPING), the records are handled again, and until then a zombie of it is not fenced.",
}, {
	check: "auto-create-topics", setting: "auto.create.topics.enable", judge: yes(Note), want: "false",
	why: "A name with a typo in it makes a topic, with default partitions and retention, that nobody reads. wherry's clients do not ask for it; others do.",
}, {
	check: "unclean-election", setting: "unclean.leader.election.enable", judge: yes(Warning), want: "false",
	why: "A replica that is behind may become leader: acknowledged records are lost, committed offsets then lie beyond the end, and no guarantee of exactly once holds.",
}, {
	check: "message-max-bytes", setting: "message.max.bytes", judge: below(batchBytes, Warning), want: "1048588",
	why: "franz-go writes batches of up to 1,000,012 bytes: larger ones are refused (MESSAGE_TOO_LARGE) in topics without a max.message.bytes of their own, and take the records that share the batch with them.",
}}

// brokerSettings looks at the settings of all brokers.
func (e *exam) brokerSettings() {
	for _, r := range brokerRules {
		byValue := map[string][]int32{}
		fixed := false
		for _, b := range e.alive() {
			s, ok := b.Settings[r.setting]
			switch {
			case b.Settings == nil: // Missed has it
			case !ok:
				e.unknown("broker settings", r.setting)
			default:
				byValue[s.Value] = append(byValue[s.Value], b.ID)
				fixed = fixed || s.Fixed
			}
		}
		for _, value := range slices.Sorted(maps.Keys(byValue)) {
			if s := r.judge(value); s != 0 {
				what := fmt.Sprintf("%s is %s on %s", r.setting, value, e.which(byValue[value]))
				e.find(e.mendBroker(r, Finding{Check: r.check, Severity: s, What: what, Why: r.why}, fixed))
			}
		}
	}
}

// mendBroker says how to set a broker setting.
func (e *exam) mendBroker(r rule, f Finding, fixed bool) Finding {
	set := r.setting + "=" + r.want
	if fixed {
		f.Mend = fmt.Sprintf("Set %s in the server.properties of each broker, and restart one after the other.", set)
	} else {
		f.Mend = "It needs no restart:"
		f.Commands = []string{e.tool("kafka-configs --alter --entity-type brokers --entity-default --add-config %s", set)}
	}
	if r.hint != "" {
		f.Mend = r.hint + " " + f.Mend
	}
	return f
}

// which says which of the brokers are meant.
func (e *exam) which(brokers []int32) string {
	switch all := len(e.alive()); {
	case len(brokers) == 1:
		return "broker " + ids(brokers)[0]
	case len(brokers) == all:
		return fmt.Sprintf("all %d brokers", all)
	}
	return "brokers " + and(ids(brokers))
}
