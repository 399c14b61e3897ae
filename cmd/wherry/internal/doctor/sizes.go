package doctor

import (
	"fmt"
	"strconv"
)

// sizes compares the largest record of topics that belong together.
func (e *exam) sizes(t *Topic, k kin) {
	most, ok := e.number(t, "max.message.bytes")
	if !ok {
		return
	}
	if most < batchBytes && k.role == plain {
		e.find(Finding{
			Check: "max-message-bytes", Severity: Warning, What: fmt.Sprintf("topic %s has max.message.bytes %d", t.Name, most),
			Why:  "franz-go writes batches of up to 1,000,012 bytes: larger ones are refused (MESSAGE_TOO_LARGE), with all records in them.",
			Mend: "Lower kgo.ProducerBatchMaxBytes in the services that write to it, or", Commands: []string{e.setTopic(t.Name, "max.message.bytes=1048588")},
		})
	}
	need := int64(0)
	consider := func(origin string, more int64) {
		if limit, err := strconv.ParseInt(e.settingOf(origin, "max.message.bytes"), 10, 64); err == nil {
			need = max(need, limit+more)
		}
	}
	switch k.role {
	case delay:
		consider(k.origin, hopHeaders)
	case dead:
		for _, g := range e.Groups {
			for _, c := range g.Commits {
				if e.kinOf(c.Topic).role == plain {
					consider(c.Topic, letterHeaders)
				}
			}
		}
	case plain, keys, ledger:
	}
	if most < need {
		e.tight = append(e.tight, tight{t.Name, most, need})
	}
}

// tight is a topic where the largest record of another does not fit in once it
// has grown by headers.
type tight struct {
	topic      string
	most, need int64
}

// noRoom tells of all such topics at once: there are as many as delays, and all
// are so by default.
func (e *exam) noRoom() {
	if len(e.tight) == 0 {
		return
	}
	f := Finding{
		Check: "headers-room", Severity: Note, What: count(len(e.tight), "topic") + " of wherry's own cannot take the largest records of the topics that they serve",
		Why:  "A record grows by headers on its way there: up to 2 KiB in a delay topic, 16 KiB as a dead letter. One that just fits into its own topic is refused, and stops its Consumer if it fails.",
		Mend: "If records may be that large; it needs no restart:",
	}
	for _, t := range e.tight {
		f.Where = append(f.Where, fmt.Sprintf("%s has max.message.bytes %d", t.topic, t.most))
		f.Commands = append(f.Commands, e.setTopic(t.topic, fmt.Sprintf("max.message.bytes=%d", t.need)))
	}
	e.find(f)
}

// settingOf returns a setting of one of the topics looked at; "" if not known.
func (e *exam) settingOf(topic, name string) string {
	for i := range e.Topics {
		if e.Topics[i].Name == topic {
			return e.Topics[i].Settings[name].Value
		}
	}
	return ""
}
