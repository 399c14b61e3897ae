package crashlab

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/lane"
)

// Log is what a run left behind: the records of each topic that a read_committed
// consumer sees, in the order of each partition, and what was committed.
type Log struct {
	In, A, B, Dead, Table []*kgo.Record

	TopicID   [16]byte            // of In
	Committed map[int32]Committed // of In, at the end
	Samples   []Sample            // taken while it ran; not of DelayTopics, where an effect may come after its offset
}

// Committed is what the group has committed of a partition.
type Committed struct {
	Offset   int64
	Metadata string
}

// Sample is a look at a run: the stable offsets of the group, and where the
// topics of outputs ended before and after the offsets were asked for.
type Sample struct {
	Committed     map[int32]Committed
	Before, After map[string]map[int32]int64 // by topic; before: the last stable offset, after: the high watermark
}

// Finding is something that must not be.
type Finding struct {
	Kind string // of a few: lost, doubled, torn, count, …
	Text string
}

func (f Finding) String() string { return f.Kind + ": " + f.Text }

// effect is what must come of one input, and where it was seen.
type effect struct {
	Input
	at    *kgo.Record
	count int // of its key after it, as it must be
	seen  map[string][]*kgo.Record
}

func (e *effect) String() string {
	return fmt.Sprintf("input %d (%s, key %s) at %s", e.N, e.Kind, e.Key, from(e.at))
}

// checker is one run of Check.
type checker struct {
	topics   Topics
	log      Log
	effects  map[string]*effect // by the place of their input
	order    []*effect          // as in the log, partition by partition
	findings []Finding
}

func (c *checker) find(kind, format string, args ...any) {
	c.findings = append(c.findings, Finding{kind, fmt.Sprintf(format, args...)})
}

// Check compares what a run left behind with what must come of its inputs, and
// returns all that is wrong: nil is the only good answer. It is pure.
func Check(topics Topics, log Log) []Finding {
	c := &checker{topics: topics, log: log, effects: map[string]*effect{}}
	c.expect()
	c.outputs(topics.A, log.A)
	c.outputs(topics.B, log.B)
	c.letters()
	c.counts()
	c.keysInOrder(log.A)
	c.keysInOrder(log.B)
	c.table()
	c.offsets()
	for i, s := range log.Samples {
		c.sample(i, s)
	}
	return c.findings
}

// expect computes what must come of the inputs: a counter for each key, which is
// in one partition.
func (c *checker) expect() {
	count, seen := map[string]int{}, map[int]*kgo.Record{}
	for _, r := range c.log.In {
		in, err := readInput(r.Value)
		if err != nil {
			c.find("lab", "%s/%s is no input: %v", r.Topic, from(r), err)
			continue
		}
		if before := seen[in.N]; before != nil {
			c.find("lab", "input %d was sent twice, at %s and %s", in.N, from(before), from(r))
		}
		seen[in.N] = r
		if !in.Dead() {
			count[in.Key] = in.Next(count[in.Key])
		}
		e := &effect{Input: in, at: r, count: count[in.Key], seen: map[string][]*kgo.Record{}}
		c.effects[from(r)] = e
		c.order = append(c.order, e)
	}
}

// outputs enters the records of A or B.
func (c *checker) outputs(topic string, records []*kgo.Record) {
	for _, r := range records {
		var out Output
		if err := json.Unmarshal(r.Value, &out); err != nil {
			c.find("lab", "%s/%s is no output: %v", topic, from(r), err)
			continue
		}
		e := c.effects[out.From]
		switch {
		case e == nil || e.N != out.N:
			c.find("foreign", "%s/%s is of input %d at %s, which is not there", topic, from(r), out.N, out.From)
			continue
		case out.Fails:
			c.find("half", "%s/%s is of attempt %d by %s of %v, which failed", topic, from(r), out.Attempt, out.Process, e)
			continue
		case !e.Emits():
			c.find("unwanted", "%v has an output at %s/%s, by %s", e, topic, from(r), out.Process)
		case out.Count != e.count:
			c.find("count", "%v has the count %d at %s/%s, by %s, in place of %d", e, out.Count, topic, from(r), out.Process, e.count)
		}
		e.seen[topic] = append(e.seen[topic], r)
	}
}

// letters enters the dead letters, which have the bytes of their input.
func (c *checker) letters() {
	byN := map[int]*effect{}
	for _, e := range c.order {
		byN[e.N] = e
	}
	for _, r := range c.log.Dead {
		in, err := readInput(r.Value)
		e := byN[in.N]
		switch {
		case err != nil || e == nil:
			c.find("foreign", "%s/%s is a letter of no input: %v", r.Topic, from(r), err)
			continue
		case !e.Dead():
			c.find("unwanted", "%v was dead-lettered at %s: %s", e, from(r), headers(r))
		case string(r.Value) != string(e.at.Value) || string(r.Key) != e.Key:
			c.find("lab", "the letter of %v has other bytes", e)
		}
		e.seen[r.Topic] = append(e.seen[r.Topic], r)
	}
}

// covered reports whether the group has committed the input, as it must have in
// the end: what is missing of one that is not, is not lost.
func (c *checker) covered(e *effect) bool {
	if c.log.Committed == nil {
		return true
	}
	at := c.log.Committed[e.at.Partition]
	runs, _ := lane.Decode(at.Metadata, c.log.TopicID, at.Offset) // what does not decode is told by offsets
	return e.at.Offset < at.Offset || within(runs, e.at.Offset)
}

func within(runs []lane.Run, offset int64) bool {
	return slices.ContainsFunc(runs, func(r lane.Run) bool { return r.Begin <= offset && offset < r.End })
}

// counts: each input has each effect once.
func (c *checker) counts() {
	for _, e := range c.order {
		want := map[string]int{}
		switch {
		case e.Dead():
			want[c.topics.Dead] = 1
		case e.Emits():
			want[c.topics.A], want[c.topics.B] = 1, 1
		}
		a, b := len(e.seen[c.topics.A]), len(e.seen[c.topics.B])
		if a != b {
			c.find("torn", "%v has %d outputs in A and %d in B", e, a, b)
		}
		for _, topic := range []string{c.topics.A, c.topics.B, c.topics.Dead} {
			got := e.seen[topic]
			switch {
			case len(got) < want[topic] && c.covered(e):
				c.find("lost", "%v has nothing in %s", e, topic)
			case len(got) > max(want[topic], 1):
				c.find("doubled", "%v is in %s %d times: %s", e, topic, len(got), copies(got))
			}
		}
	}
}

// keysInOrder: the outputs of a key come in the order of its inputs.
func (c *checker) keysInOrder(records []*kgo.Record) {
	last := map[string]*effect{}
	for _, r := range records {
		var out Output
		if json.Unmarshal(r.Value, &out) != nil || c.effects[out.From] == nil {
			continue // told before
		}
		e := c.effects[out.From]
		if before := last[e.Key]; before != nil && before.at.Offset > e.at.Offset {
			c.find("order", "the output of %v comes at %s/%s, after that of %v", e, r.Topic, from(r), before)
		}
		last[e.Key] = e
	}
}

// table: what the table's records come to is what the inputs come to, and each of
// them was true when it was written.
func (c *checker) table() {
	want, partition := map[string]int{}, map[string]int32{}
	for _, e := range c.order {
		partition[e.Key] = e.at.Partition
		if e.Dead() || !c.covered(e) {
			continue
		}
		want[e.Key] = e.count
	}
	got, place := map[string]int{}, map[string]int64{}
	for _, r := range c.log.Table {
		key := string(r.Key)
		p, known := partition[key]
		if !known {
			if key != ForeignKey {
				c.find("table", "%s/%s has the key %q, which no input has", r.Topic, from(r), key)
			}
			continue
		}
		if p != r.Partition {
			c.find("table", "%s/%s has the key %s, whose inputs are in partition %d", r.Topic, from(r), key, p)
		}
		var out Output
		if r.Value != nil {
			if err := json.Unmarshal(r.Value, &out); err != nil {
				c.find("lab", "%s/%s is no counter: %v", r.Topic, from(r), err)
				continue
			}
		}
		e := c.effects[out.From]
		switch {
		case r.Value == nil:
		case out.Fails:
			c.find("half", "%s/%s was written by attempt %d of input %d, which failed", r.Topic, from(r), out.Attempt, out.N)
		case e == nil || e.Key != key:
			c.find("table", "%s/%s is of input %d at %s, which is not there", r.Topic, from(r), out.N, out.From)
		case e.count != out.Count:
			c.find("table", "%s/%s has the count %d of %v, in place of %d", r.Topic, from(r), out.Count, e, e.count)
		case e.at.Offset <= place[key] && place[key] > 0:
			c.find("table", "%s/%s is of %v, and a record before it of a later input, at %d", r.Topic, from(r), e, place[key])
		}
		if e != nil {
			place[key] = e.at.Offset
		}
		got[key] = out.Count
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if got[key] != want[key] {
			c.find("table", "the count of %s is %d in place of %d", key, got[key], want[key])
		}
	}
}

// ForeignKey is the key of a record of the table that is not the workload's: of
// a transaction that holds back the last stable offset (see Foreign).
const ForeignKey = "foreign"

// offsets: at the end all is committed.
func (c *checker) offsets() {
	if c.log.Committed == nil {
		return
	}
	for _, e := range c.order {
		if at := c.log.Committed[e.at.Partition]; at.Offset <= e.at.Offset {
			c.find("offsets", "%v is not committed: the group is at %d with %q", e, at.Offset, at.Metadata)
		}
	}
}

// sample: what was visible before the offsets were asked for is covered by them,
// and what they cover is visible.
func (c *checker) sample(i int, s Sample) {
	finished := map[int32][]lane.Run{}
	for p, at := range s.Committed {
		if at.Metadata == "" {
			continue
		}
		runs, err := lane.Decode(at.Metadata, c.log.TopicID, at.Offset)
		if err != nil {
			c.find("finished set", "sample %d: of partition %d at %d: %v: %q", i, p, at.Offset, err, at.Metadata)
		}
		finished[p] = runs
	}
	for _, e := range c.order {
		at := s.Committed[e.at.Partition]
		covered := e.at.Offset < at.Offset || within(finished[e.at.Partition], e.at.Offset)
		for topic, rs := range e.seen {
			for _, r := range rs {
				switch {
				case !covered && r.Offset < s.Before[topic][r.Partition]:
					c.find("torn", "sample %d: %v was visible at %s/%s, and not committed: the group was at %d", i, e, topic, from(r), at.Offset)
				case covered && r.Offset >= s.After[topic][r.Partition]:
					c.find("torn", "sample %d: %v was committed, at %d, and not there yet: it is at %s/%s", i, e, at.Offset, topic, from(r))
				}
			}
		}
	}
}

func copies(rs []*kgo.Record) string {
	texts := make([]string, len(rs))
	for i, r := range rs {
		var out Output
		_ = json.Unmarshal(r.Value, &out) // a dead letter is none
		texts[i] = fmt.Sprintf("%s count %d by %s attempt %d at %s", from(r), out.Count, out.Process, out.Attempt, r.Timestamp.UTC().Format("15:04:05.000"))
	}
	return strings.Join(texts, ", ")
}

func headers(r *kgo.Record) string {
	var texts []string
	for _, h := range r.Headers {
		if len(h.Value) < 200 {
			texts = append(texts, h.Key+"="+string(h.Value))
		}
	}
	return strings.Join(texts, " ")
}
