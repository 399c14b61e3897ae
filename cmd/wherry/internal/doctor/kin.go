package doctor

import (
	"strings"
	"time"
)

// role is what a topic is to wherry.
type role int

const (
	plain  role = iota
	delay       // of retry.Topics: records wait there
	keys        // of retry.Topics with KeepOrder: which keys wait
	dead        // dead letters
	ledger      // what was decided about dead letters
)

// kin is what a topic is by its name, and of which topic.
type kin struct {
	role   role
	origin string        // of a delay topic or keys: the topic whose records wait; "" if it is not seen. Of a ledger: the dead letters
	delay  time.Duration // of a delay topic
}

// deadEndings are how topics of dead letters are called: by wherry's examples,
// by its replayer, by Spring and by others.
var deadEndings = []string{".dlq", "-dlq", "_dlq", ".dlt", "-dlt", ".parked"}

// kinOf tells a topic by its name. Delay topics are <topic>.<group>.retry.<delay>
// and keys end in keys instead, a ledger is <topic>.ledger, unless they were
// given other names (retry.Topics.Name).
func (e *exam) kinOf(name string) kin { return kinOf(name, e.Seen) }

func kinOf(name string, seen map[string]Topic) kin {
	if stem, ok := strings.CutSuffix(name, ".ledger"); ok {
		if _, has := seen[stem]; has || isDead(stem) {
			return kin{role: ledger, origin: stem}
		}
	}
	if _, has := seen[name+".ledger"]; has || isDead(name) {
		return kin{role: dead}
	}
	i := strings.LastIndex(name, ".retry.")
	if i < 0 || !strings.Contains(name[:i], ".") {
		return kin{}
	}
	label, origin := name[i+len(".retry."):], originOf(name[:i], seen)
	if label == "keys" {
		return kin{role: keys, origin: origin}
	}
	if d, err := time.ParseDuration(label); err == nil && d > 0 {
		return kin{role: delay, origin: origin, delay: d}
	}
	return kin{}
}

func isDead(name string) bool {
	name = strings.ToLower(name)
	for _, ending := range deadEndings {
		if strings.HasSuffix(name, ending) {
			return true
		}
	}
	return false
}

// originOf finds the topic in <topic>.<group>: both may have dots, so it is the
// longest that there is.
func originOf(stem string, seen map[string]Topic) string {
	for i := strings.LastIndex(stem, "."); i > 0; i = strings.LastIndex(stem[:i], ".") {
		if _, ok := seen[stem[:i]]; ok {
			return stem[:i]
		}
	}
	return ""
}

// relatives are the topics that wherry keeps beside a topic: its delay topics,
// those of the groups alone if there are any, and a ledger.
func relatives(topic string, groups []string, seen map[string]Topic) (names []string) {
	for name := range seen {
		k := kinOf(name, seen)
		if k.origin != topic || k.role == plain {
			continue
		}
		ours := k.role == ledger || len(groups) == 0
		for _, g := range groups {
			ours = ours || strings.HasPrefix(name, topic+"."+g+".retry.")
		}
		if ours {
			names = append(names, name)
		}
	}
	return names
}
