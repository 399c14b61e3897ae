package dlq

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// Action is what is done with a dead letter.
type Action string

// The actions of a [Replayer]. In the ledger they say what was done.
const (
	Replay  Action = "replayed"  // copied to the topic that its record failed in, or to another
	Park    Action = "parked"    // copied as it is to a topic where it waits for a person
	Discard Action = "discarded" // left where it is, and passed over from then on
)

// Decision is what was decided about a dead letter, as the ledger has it. Its
// JSON form is the value of the ledger's records.
type Decision struct {
	Action Action    `json:"action"`
	At     time.Time `json:"at"`
	By     string    `json:"by,omitempty"`  // who ran it
	Why    string    `json:"why,omitempty"` // the reason given
	Run    string    `json:"run,omitempty"` // the run's id, one for all of its letters
	// Where the copy is; To is empty when none was made.
	To          string `json:"to,omitempty"`
	ToPartition int32  `json:"toPartition"`
	ToOffset    int64  `json:"toOffset"`
}

// LedgerTopic returns the name of the ledger of a dead-letter topic. It is a
// compacted topic of one partition with the latest [Decision] about each
// letter. Its keys begin with the topic's id, so that a topic that was deleted
// and made anew does not inherit what was decided about the old one.
func LedgerTopic(deadLetters string) string { return deadLetters + ".ledger" }

func ledgerSpec(deadLetters string) wherry.TopicSpec {
	return wherry.TopicSpec{Name: LedgerTopic(deadLetters), Partitions: 1, Changelog: true}
}

// place is where a dead letter stands in its topic.
type place struct {
	partition int32
	offset    int64
}

// topicID is an id as Kafka's own tools write it.
func topicID(id kadm.TopicID) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

func markKey(id kadm.TopicID, at place) string {
	return topicID(id) + "/" + strconv.Itoa(int(at.partition)) + "/" + strconv.FormatInt(at.offset, 10)
}

// parseMarkKey reads a key of the ledger; ok is false for what is no mark of
// the topic with that id.
func parseMarkKey(key []byte, id kadm.TopicID) (at place, ok bool) {
	rest, ok := strings.CutPrefix(string(key), topicID(id)+"/")
	if !ok {
		return at, false
	}
	partition, offset, ok := strings.Cut(rest, "/")
	p, err := strconv.ParseInt(partition, 10, 32)
	o, err2 := strconv.ParseInt(offset, 10, 64)
	return place{int32(p), o}, ok && err == nil && err2 == nil && p >= 0 && o >= 0
}

func markRecord(deadLetters string, id kadm.TopicID, at place, d Decision) (*kgo.Record, error) {
	value, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	return &kgo.Record{Topic: LedgerTopic(deadLetters), Key: []byte(markKey(id, at)), Value: value}, nil
}

// ledger is what was decided about the letters that a dead-letter topic holds:
// some 150 bytes of memory for each of those that are decided.
type ledger struct {
	marks map[place]mark
	texts []string // what marks share: names, reasons
	index map[string]uint32
	next  int64    // where the reading ended
	runs  runsSeen // those that may be at work
}

// mark is a Decision with its texts replaced by their numbers.
type mark struct {
	millis, toOffset         int64
	toPartition              int32
	action, by, why, run, to uint32
}

func newLedger() *ledger {
	l := &ledger{marks: map[place]mark{}, index: map[string]uint32{}, runs: runsSeen{}}
	l.text("")
	return l
}

func (l *ledger) text(s string) uint32 {
	n, ok := l.index[s]
	if !ok {
		n = uint32(len(l.texts))
		l.texts, l.index[s] = append(l.texts, s), n
	}
	return n
}

func (l *ledger) set(at place, d Decision) {
	l.marks[at] = mark{
		millis: d.At.UnixMilli(), toOffset: d.ToOffset, toPartition: d.ToPartition,
		action: l.text(string(d.Action)), by: l.text(d.By), why: l.text(d.Why), run: l.text(d.Run), to: l.text(d.To),
	}
}

func (l *ledger) has(at place) bool {
	_, ok := l.marks[at]
	return ok
}

// get returns what was decided about the letter at a place, nil if nothing was.
func (l *ledger) get(at place) *Decision {
	m, ok := l.marks[at]
	if !ok {
		return nil
	}
	return &Decision{
		Action: Action(l.texts[m.action]), At: time.UnixMilli(m.millis).UTC(), By: l.texts[m.by], Why: l.texts[m.why], Run: l.texts[m.run],
		To: l.texts[m.to], ToPartition: m.toPartition, ToOffset: m.toOffset,
	}
}

// apply takes in a record of the ledger. A mark that it cannot read counts as
// a decision all the same: doing nothing is the safe side.
func (l *ledger) apply(r *kgo.Record, of view) {
	if l.runs.apply(r, of.id) {
		return
	}
	at, ok := parseMarkKey(r.Key, of.id)
	switch {
	case !ok || at.offset < of.starts[at.partition]: // of an older topic, or of a letter that retention removed
	case r.Value == nil:
		delete(l.marks, at)
	default:
		var d Decision
		if json.Unmarshal(r.Value, &d) != nil {
			d = Decision{At: r.Timestamp}
		}
		l.set(at, d)
	}
}

// catchUp reads the ledger of a dead-letter topic from where the reading ended
// before. A ledger that does not exist is empty.
func (l *ledger) catchUp(ctx context.Context, s scan, cl *kgo.Client, of view) error {
	s.topic = LedgerTopic(s.topic)
	v, err := look(ctx, cl, s.topic, s.log)
	if errors.Is(err, errNoTopic) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(v.ends) != 1 {
		return fmt.Errorf("topic %s: it has %d partitions, a ledger has one: it is not wherry's, rename or delete it", s.topic, len(v.ends))
	}
	s.id, s.from, s.to = v.id, map[int32]int64{0: max(l.next, v.starts[0])}, v.ends
	for r, err := range s.records(ctx) {
		if err != nil {
			return err
		}
		l.apply(r, of)
	}
	l.next = v.ends[0]
	return nil
}
