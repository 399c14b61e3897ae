package kafkatest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Effects says what a service makes of its inputs, for ExactlyOnce.
type Effects struct {
	// Inputs are the topics that the service reads.
	Inputs []string
	// Outputs are the topics that it writes: one record in each of them for
	// each input, unless Want says otherwise.
	Outputs []string
	// Instead are topics of which an input may have one record in place of all
	// its outputs: dead letters.
	Instead []string
	// Group is the service's consumer group: ExactlyOnce waits until its
	// offsets are behind the last input. "" means that what is there is
	// judged at once, and the offsets are not.
	Group string
	// ID returns what an input and all records that come of it have in common,
	// such as a header (HeaderID) or part of the value. "" takes a record out
	// of the judgement. nil means the record's key.
	//
	// Where several inputs have one ID, their outputs are counted together and
	// their order is not judged.
	ID func(r *kgo.Record) string
	// Want returns the topics in which an input has an output: one record for
	// each time that a topic is named. nil means Outputs.
	Want func(input *kgo.Record) []string
	// Unordered is for services that promise no order. Otherwise outputs in one
	// partition of a topic, of inputs with one key (that is not null) in one
	// partition, must be in the order of their inputs. What is in Instead has no
	// order: a record may be given up long after others were done.
	Unordered bool
}

// HeaderID is an Effects.ID: the value of the last header with this key, or ""
// where there is none.
func HeaderID(key string) func(*kgo.Record) string {
	return func(r *kgo.Record) string {
		id := ""
		for _, h := range r.Headers {
			if h.Key == key {
				id = string(h.Value)
			}
		}
		return id
	}
}

// Check judges records that the caller has read: those of Inputs, Outputs and
// Instead, in the order of each partition, as a read_committed consumer sees
// them. It is ExactlyOnce without a broker, and does not know the group's
// offsets. It returns nil where each input has exactly its outputs, and
// otherwise an error that names each fault, up to 20 of a kind.
func (e Effects) Check(records []*kgo.Record) error { return e.judge(records, nil).err() }

// place is one partition of a topic.
type place struct {
	topic     string
	partition int32
}

// verdict is what came of a judgement.
type verdict struct {
	inputs, good int
	faults       map[string][]string // texts by kind
}

// kinds are those of faults, in the order in which they are told.
var kinds = []string{"missing", "doubled", "unwanted", "out of order", "foreign", "uncommitted"}

func (v *verdict) fault(kind, format string, args ...any) {
	if v.faults == nil {
		v.faults = map[string][]string{}
	}
	v.faults[kind] = append(v.faults[kind], fmt.Sprintf(format, args...))
}

// err returns the report, or nil.
func (v *verdict) err() error {
	if len(v.faults) == 0 {
		return nil
	}
	const most = 20
	var b strings.Builder
	fmt.Fprintf(&b, "not exactly once: %d of %d inputs have what they should", v.good, v.inputs)
	for _, kind := range kinds {
		if n := len(v.faults[kind]); n > 0 {
			fmt.Fprintf(&b, ", %d %s", n, kind)
		}
	}
	for _, kind := range kinds {
		for i, text := range v.faults[kind] {
			if i == most {
				fmt.Fprintf(&b, "\n\t%s: and %d more", kind, len(v.faults[kind])-most)
				break
			}
			fmt.Fprintf(&b, "\n\t%s: %s", kind, text)
		}
	}
	return errors.New(b.String())
}

// origin is what is known of one ID.
type origin struct {
	inputs []*kgo.Record
	want   map[string]int           // outputs by topic, of all inputs together
	got    map[string][]*kgo.Record // by topic
}

// judge compares what there is with what there should be. committed has the
// group's offsets, or is nil.
func (e Effects) judge(records []*kgo.Record, committed map[place]int64) *verdict {
	v := &verdict{}
	id := e.ID
	if id == nil {
		id = func(r *kgo.Record) string { return string(r.Key) }
	}
	origins := map[string]*origin{}
	var order []*origin
	for _, r := range records {
		if !slices.Contains(e.Inputs, r.Topic) || id(r) == "" {
			continue
		}
		v.inputs++
		o := origins[id(r)]
		if o == nil {
			o = &origin{want: map[string]int{}, got: map[string][]*kgo.Record{}}
			origins[id(r)] = o
			order = append(order, o)
		}
		o.inputs = append(o.inputs, r)
		for _, topic := range e.want(r) {
			o.want[topic]++
		}
	}
	written := e.written(records)
	for _, r := range records {
		if !slices.Contains(written, r.Topic) || id(r) == "" {
			continue
		}
		if o := origins[id(r)]; o != nil {
			o.got[r.Topic] = append(o.got[r.Topic], r)
		} else {
			v.fault("foreign", "%s has the id %q, which no input has", where(r), id(r))
		}
	}
	for _, o := range order {
		e.count(v, o)
	}
	if !e.Unordered {
		e.order(v, order)
	}
	for _, r := range records {
		if at, ok := committed[place{r.Topic, r.Partition}]; ok && slices.Contains(e.Inputs, r.Topic) && r.Offset >= at {
			v.fault("uncommitted", "%s: group %q is at offset %d", where(r), e.Group, at)
		}
	}
	return v
}

func (e Effects) want(input *kgo.Record) []string {
	if e.Want != nil {
		return e.Want(input)
	}
	return e.Outputs
}

// written returns the topics whose records are outputs. A topic that is an input
// as well is only judged as that.
func (e Effects) written(records []*kgo.Record) []string {
	all := slices.Concat(e.Outputs, e.Instead)
	if e.Want != nil {
		for _, r := range records {
			if slices.Contains(e.Inputs, r.Topic) {
				all = append(all, e.Want(r)...)
			}
		}
		slices.Sort(all)
		all = slices.Compact(all)
	}
	return slices.DeleteFunc(all, func(topic string) bool { return slices.Contains(e.Inputs, topic) })
}

// count judges how many outputs there are of one ID.
func (e Effects) count(v *verdict, o *origin) {
	instead := 0
	for _, topic := range e.Instead {
		if o.want[topic] == 0 {
			instead += len(o.got[topic])
		}
	}
	good := true
	fault := func(kind, format string, args ...any) {
		good = false
		v.fault(kind, "%s "+format, append([]any{inputs(o)}, args...)...)
	}
	switch n := len(o.inputs); {
	case instead > n:
		fault("doubled", "has %d records in place of its outputs: %s", instead, copies(o, e.Instead))
	case instead == n:
		for _, topic := range e.topics(o) {
			if len(o.got[topic]) > 0 {
				fault("unwanted", "has a record in place of its outputs (%s) and outputs as well: %s", copies(o, e.Instead), copies(o, []string{topic}))
			}
		}
	default:
		for _, topic := range e.topics(o) {
			// With several inputs of one ID, some of which ended otherwise, the
			// share of the others is what is wanted.
			want, got := o.want[topic]*(n-instead)/n, len(o.got[topic])
			of := ""
			if want > 1 {
				of = fmt.Sprintf(" of %d", want)
			}
			switch {
			case got < want && got == 0:
				fault("missing", "has no output in %s%s", topic, elsewhere(o, topic))
			case got < want:
				fault("missing", "has %d%s outputs in %s: %s", got, of, topic, copies(o, []string{topic}))
			case got > want && want == 0:
				fault("unwanted", "has an output in %s, where it should have none: %s", topic, copies(o, []string{topic}))
			case got > want:
				fault("doubled", "has %d outputs in %s in place of %d: %s", got, topic, want, copies(o, []string{topic}))
			}
		}
	}
	if good {
		v.good += len(o.inputs)
	}
}

// topics returns those, other than Instead's, in which an ID has or should have
// outputs.
func (e Effects) topics(o *origin) []string {
	var all []string
	for topic := range o.want {
		all = append(all, topic)
	}
	for topic := range o.got {
		if o.want[topic] == 0 && !slices.Contains(e.Instead, topic) {
			all = append(all, topic)
		}
	}
	slices.Sort(all)
	return all
}

// order judges the order of outputs whose inputs have one key in one partition.
func (e Effects) order(v *verdict, origins []*origin) {
	type line struct {
		in  place
		key string
		out place
	}
	last := map[line]*kgo.Record{}  // the output of the latest input
	input := map[line]*kgo.Record{} // that input
	for _, o := range origins {
		in := o.inputs[0]
		if len(o.inputs) > 1 || in.Key == nil {
			continue
		}
		for _, topic := range e.topics(o) {
			if slices.Contains(e.Instead, topic) {
				continue
			}
			for i, out := range o.got[topic] {
				l := line{place{in.Topic, in.Partition}, string(in.Key), place{topic, out.Partition}}
				switch before := last[l]; {
				case i > 0: // what came twice is a fault of its own
				case before != nil && before.Offset > out.Offset:
					v.fault("out of order", "%s has %s, which is before %s of the earlier input %s", where(in), where(out), where(before), where(input[l]))
				default:
					last[l], input[l] = out, in
				}
			}
		}
	}
}

// where names a record by its place, its key and its time.
func where(r *kgo.Record) string {
	return fmt.Sprintf("%s/%d@%d (key %q, %s)", r.Topic, r.Partition, r.Offset, r.Key, r.Timestamp.UTC().Format("15:04:05.000"))
}

// inputs names those of one ID.
func inputs(o *origin) string {
	if n := len(o.inputs); n > 1 {
		return fmt.Sprintf("%s and %d more inputs of the same id", where(o.inputs[0]), n-1)
	}
	return where(o.inputs[0])
}

// copies names what an ID has in some topics, with the time between the copies.
func copies(o *origin, topics []string) string {
	var all []*kgo.Record
	for _, topic := range topics {
		all = append(all, o.got[topic]...)
	}
	slices.SortStableFunc(all, func(a, b *kgo.Record) int { return cmp.Compare(a.Timestamp.UnixNano(), b.Timestamp.UnixNano()) })
	var b strings.Builder
	for i, r := range all {
		if i == 5 {
			fmt.Fprintf(&b, ", and %d more", len(all)-i)
			break
		}
		if i > 0 {
			fmt.Fprintf(&b, ", and %v later ", r.Timestamp.Sub(all[0].Timestamp).Round(time.Millisecond))
		}
		b.WriteString(where(r))
	}
	return b.String()
}

// elsewhere tells of an output in another topic: half of a transaction.
func elsewhere(o *origin, topic string) string {
	for other, rs := range o.got {
		if other != topic && len(rs) > 0 {
			return ", and it has " + where(rs[0])
		}
	}
	return ""
}
