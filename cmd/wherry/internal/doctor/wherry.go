package doctor

import (
	"fmt"
	"time"
)

const (
	day = 24 * time.Hour
	// slack is how long the readers of a delay topic may be away.
	slack = day
	// shortGrief and longGrief are how long dead letters should be kept at
	// least: until somebody looks, and until all is mended.
	shortGrief = 7 * day
	longGrief  = 30 * day
	// hopHeaders and letterHeaders are what a record grows by in a delay topic
	// and in a topic of dead letters.
	hopHeaders    = 2 << 10
	letterHeaders = 16 << 10
)

// delayTopic looks at a topic where records wait to be tried again.
func (e *exam) delayTopic(t *Topic, k kin) {
	if compact, _, ok := e.policy(t); ok && compact {
		e.find(Finding{
			Check: "delay-policy", Severity: Error, What: fmt.Sprintf("delay topic %s is compacted", t.Name),
			Why:  "Of several records of a key that wait only the last would be tried again: the others are lost.",
			Mend: "It needs no restart:", Commands: []string{e.setTopic(t.Name, "cleanup.policy=delete")},
		})
	}
	if size, ok := e.number(t, "retention.bytes"); ok && size >= 0 {
		e.find(Finding{
			Check: "delay-retention", Severity: Error, What: fmt.Sprintf("delay topic %s keeps %d bytes of a partition", t.Name, size),
			Why:  "When more records wait, the oldest go before they were tried again.",
			Mend: "It needs no restart:", Commands: []string{e.setTopic(t.Name, "retention.bytes=-1")},
		})
	}
	kept, ok := e.number(t, "retention.ms")
	if !ok || kept < 0 {
		return
	}
	d := time.Duration(kept) * time.Millisecond
	f := Finding{
		Check: "delay-retention", What: fmt.Sprintf("delay topic %s keeps records for %s, of which they wait %s", t.Name, long(d), long(k.delay)),
		Mend: "It needs no restart:", Commands: []string{e.setTopic(t.Name, "retention.ms="+millisOf(k.delay+7*day))},
	}
	switch {
	case d <= k.delay:
		f.Severity, f.Why = Error, "They are gone before they are due: what failed once is lost."
	case d < k.delay+slack:
		f.Severity, f.Why = Warning, fmt.Sprintf("If its Consumers are away for %s longer, records that wait are lost. wherry makes these topics with 7 days to spare.", long(d-k.delay))
	default:
		return
	}
	e.find(f)
}

// deadTopic looks at a topic of dead letters.
func (e *exam) deadTopic(t *Topic) {
	if compact, _, ok := e.policy(t); ok && compact {
		e.find(Finding{
			Check: "dead-letter-policy", Severity: Error, What: fmt.Sprintf("dead-letter topic %s is compacted", t.Name),
			Why:  "Letters keep the keys of their records: of several with one key only the last remains.",
			Mend: "It needs no restart:", Commands: []string{e.setTopic(t.Name, "cleanup.policy=delete")},
		})
		return
	}
	kept, ok := e.number(t, "retention.ms")
	d := time.Duration(kept) * time.Millisecond
	if !ok || kept < 0 || d >= longGrief {
		return
	}
	f := Finding{
		Check: "dead-letter-retention", Severity: Note, What: fmt.Sprintf("dead-letter topic %s keeps letters for %s", t.Name, long(d)),
		Why:  "What nobody replayed by then is lost.",
		Mend: "Keep them longer, or for ever (-1):", Commands: []string{e.setTopic(t.Name, "retention.ms="+millisOf(90*day))},
	}
	if d < shortGrief {
		f.Severity = Warning
	}
	e.find(f)
}

// changelog looks at a topic of wherry's own that tables are built from.
func (e *exam) changelog(t *Topic) {
	compact, remove, ok := e.policy(t)
	kept, told := e.get(t, "retention.ms")
	if ok && (!compact || remove) || told && kept != "-1" {
		policy, _ := e.get(t, "cleanup.policy")
		e.find(Finding{
			Check: "changelog", Severity: Error, What: fmt.Sprintf("topic %s has cleanup.policy %s and retention.ms %s", t.Name, policy, millis(kept)),
			Why:  "It is a table of wherry's own, which forgets what is deleted: decided letters would be replayed again, records overtake those of their key. wherry refuses it.",
			Mend: "It needs no restart:", Commands: []string{e.setTopic(t.Name, "cleanup.policy=compact,retention.ms=-1")},
		})
	}
}

// counts compares the numbers of partitions of topics that belong together.
func (e *exam) counts(t *Topic, k kin) {
	have := len(t.Partitions)
	switch k.role {
	case ledger:
		if have != 1 {
			e.find(Finding{
				Check: "ledger-partitions", Severity: Error, What: fmt.Sprintf("ledger %s has %d partitions", t.Name, have),
				Why:  "Who replays first is decided by the order of its one partition: wherry dlq refuses it.",
				Mend: "If it is not wherry's, rename it. If it is, and what was decided may be forgotten, delete it; wherry dlq makes it anew:", Commands: []string{e.tool("kafka-topics --delete --topic %s", t.Name)},
			})
		}
	case delay, keys:
		need := len(e.Seen[k.origin].Partitions)
		f := Finding{
			Check: "delay-partitions", Severity: Note, What: fmt.Sprintf("%s has %s, %s has %d", t.Name, count(have, "partition"), k.origin, need),
			Why: "With retry.Topics.KeepOrder the delay topics need at least as many as their topic: the Consumer does not start. Without it, fewer of them share the work of those that wait.",
		}
		switch {
		case need == 0 || have == need:
			return
		case have < need:
			f.Severity, f.Mend = Warning, "While nothing waits in it:"
			f.Commands = []string{e.tool("kafka-topics --alter --topic %s --partitions %d", t.Name, need)}
		default:
			f.Why, f.Mend = "Nothing breaks; the surplus stays empty.", "Nothing needs to be done."
		}
		e.find(f)
	case plain, dead:
	}
}
