package saga

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	hdr "github.com/wherry-go/wherry/internal/header"
	"github.com/wherry-go/wherry/reqreply"
)

// kind says what an inbox record is: the header wherry-saga-kind, and none on a
// reply, whose sender knows nothing of sagas.
type kind string

const (
	kindStart kind = "start" // a state, encoded
	kindEvent kind = "event" // an event of another topic, routed or signalled
	kindTick  kind = "tick"  // something is due
	kindGo    kind = "go"    // what was decided is committed: go on
	kindAdmit kind = "admit" // a queued saga may begin
	kindSweep kind = "sweep" // ended sagas to be forgotten, their ids in the value
	kindVerb  kind = "verb"
	kindQuery kind = "query"
	kindReply kind = "" // it has a correlation id
)

// kindOf returns what r says that it is, and whether it says so.
func kindOf(r *kgo.Record) (k kind, ok bool) {
	text, ok := hdr.Get(r, hdr.SagaKind)
	return kind(text), ok
}

// maxID is how long the id of a saga may be, in bytes.
const maxID = 256

// checkID says what is wrong with the id of a saga.
func checkID(id string) error {
	switch {
	case id == "":
		return errors.New("the id is empty")
	case len(id) > maxID:
		return fmt.Errorf("the id has %d bytes, the limit is %d: %.40q", len(id), maxID, id)
	case id[0] == 0:
		return fmt.Errorf("an id cannot begin with a zero byte: %.40q", id)
	}
	return nil
}

// partitioner hashes as Kafka's own clients do, for keys that are not nil.
var partitioner = kgo.StickyKeyPartitioner(nil).ForTopic("")

// partitionOf returns the partition of a saga among so many.
func partitionOf(id string, partitions int32) int32 {
	return int32(partitioner.Partition(&kgo.Record{Key: []byte(id)}, int(partitions))) //nolint:gosec // less than partitions
}

// parseCorrelation returns which attempt a reply answers. The Op has no Saga.
func parseCorrelation(text string) (Op, error) {
	op, _, ok := hdr.ParseCorrelationID(text)
	if !ok || checkID(op.ID) != nil {
		return Op{}, fmt.Errorf("the correlation id %.80q is of no step of a saga", text)
	}
	return Op(op), nil
}

// number reads a number that is written in the one way that we write it.
func number(text string) (int32, bool) {
	n, err := strconv.ParseInt(text, 10, 32)
	return int32(n), err == nil && n >= 0 && strconv.FormatInt(n, 10) == text
}

// inboxRecord makes a record for the inbox.
func inboxRecord(inbox string, partition int32, id string, k kind) *kgo.Record {
	return &kgo.Record{
		Topic: inbox, Partition: partition, Key: []byte(id),
		Headers: []kgo.RecordHeader{{Key: hdr.SagaKind, Value: []byte(k)}},
	}
}

// startRecord asks to start a saga with a state that a version's Codec wrote.
func startRecord(inbox string, partition int32, id string, payload []byte, version int, traceparent string) *kgo.Record {
	r := inboxRecord(inbox, partition, id, kindStart)
	r.Value = payload
	hdr.Add(r, hdr.SagaVersion, strconv.Itoa(version))
	if traceparent != "" {
		hdr.Add(r, "traceparent", traceparent)
	}
	return r
}

// eventRecord tells a saga of an event: e as it was read, or as it would be.
func eventRecord(inbox string, partition int32, id string, e *kgo.Record) *kgo.Record {
	r := inboxRecord(inbox, partition, id, kindEvent)
	r.Value = e.Value
	r.Headers = slices.DeleteFunc(slices.Clone(e.Headers), notForward)
	hdr.Add(r, hdr.SagaKind, string(kindEvent))
	hdr.Add(r, hdr.SagaTopic, e.Topic)
	hdr.Add(r, hdr.SagaPartition, hdr.FormatInt(e.Partition))
	hdr.Add(r, hdr.SagaOffset, hdr.FormatInt(e.Offset))
	if e.Key != nil {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: hdr.SagaKey, Value: e.Key})
	}
	return r
}

// notForward matches headers of an event that mean something else in the inbox.
func notForward(h kgo.RecordHeader) bool {
	return h.Key == hdr.Only || strings.HasPrefix(h.Key, hdr.SagaPrefix)
}

// originalEvent is the opposite of eventRecord: the event as it was read.
func originalEvent(r *kgo.Record) (*kgo.Record, error) {
	topic, ok := hdr.Get(r, hdr.SagaTopic)
	if !ok || topic == "" {
		return nil, errors.New("an event of no topic")
	}
	partition, ok := hdr.Int(r, hdr.SagaPartition)
	offset, ok2 := hdr.Int(r, hdr.SagaOffset)
	if !ok || !ok2 || int64(int32(partition)) != partition {
		return nil, fmt.Errorf("an event of %s without partition and offset", topic)
	}
	e := &kgo.Record{Topic: topic, Partition: int32(partition), Offset: offset, Value: r.Value, Timestamp: r.Timestamp}
	for _, h := range r.Headers {
		if h.Key == hdr.SagaKey {
			e.Key = append([]byte{}, h.Value...)
		}
	}
	e.Headers = slices.DeleteFunc(slices.Clone(r.Headers), notForward)
	return e, nil
}

// sweepRecord asks to forget ended sagas.
func sweepRecord(inbox string, partition int32, all []swept) *kgo.Record {
	r := inboxRecord(inbox, partition, "", kindSweep)
	r.Key = nil
	for _, one := range all {
		r.Value = binary.AppendUvarint(r.Value, uint64(len(one.id)))
		r.Value = append(r.Value, one.id...)
		r.Value = binary.AppendVarint(r.Value, one.at)
	}
	return r
}

// readSweep is the opposite.
func readSweep(value []byte) (all []swept, err error) {
	for len(value) > 0 {
		n, took := binary.Uvarint(value)
		if took <= 0 || n > uint64(len(value)-took) {
			return nil, errShort
		}
		value = value[took:]
		one := swept{id: string(value[:n])}
		value = value[n:]
		if one.at, took = binary.Varint(value); took <= 0 {
			return nil, errShort
		}
		value = value[took:]
		all = append(all, one)
	}
	return all, nil
}

// message is an inbox record as it was understood.
type message struct {
	kind kind
	id   string // "" of a sweep
	op   Op     // that a reply answers, without its Saga
	// record is the event, or r itself.
	record  *kgo.Record
	version int // of a start, 0 if it says none
	swept   []swept
}

// readMessage reads an inbox record. profiles are those that requests are sent
// with.
func readMessage(r *kgo.Record, profiles []reqreply.Profile) (m message, err error) {
	k, said := kindOf(r)
	m = message{kind: k, id: string(r.Key), record: r}
	switch {
	case !said:
		id := replyTo(r, profiles)
		if id == "" {
			return m, errors.New("neither of a kind that an inbox knows nor a reply")
		}
		m.op, err = parseCorrelation(id)
		m.id = m.op.ID
		return m, err
	case k == kindSweep:
		m.id = ""
		m.swept, err = readSweep(r.Value)
		return m, err
	}
	if err := checkID(m.id); err != nil {
		return m, err
	}
	switch k {
	case kindTick, kindGo, kindAdmit, kindVerb, kindQuery:
	case kindStart:
		if r.Value == nil {
			return m, errors.New("a start without a state")
		}
		if text, ok := hdr.Get(r, hdr.SagaVersion); ok {
			n, ok := number(text)
			if !ok || n < 1 {
				return m, fmt.Errorf("a start of version %.20q", text)
			}
			m.version = int(n)
		}
	case kindEvent:
		m.record, err = originalEvent(r)
	default:
		err = fmt.Errorf("of the kind %.40q, which this program does not know", k)
	}
	return m, err
}

// replyTo returns the correlation id of a reply, "" if it is none.
func replyTo(r *kgo.Record, profiles []reqreply.Profile) string {
	for _, p := range profiles {
		if id := p.ReplyTo(r); id != "" {
			return id
		}
	}
	return ""
}

// lineOf returns what orders r among the records of the inbox: the saga that it
// is about.
func lineOf(profiles []reqreply.Profile) func(r *kgo.Record) []byte {
	return func(r *kgo.Record) []byte {
		k, said := kindOf(r)
		switch {
		case !said:
			op, err := parseCorrelation(replyTo(r, profiles))
			if err != nil {
				return nil
			}
			return []byte(op.ID)
		case k == kindSweep:
			return nil
		}
		return r.Key
	}
}

// address says in a record that is sent for op what it is for, and, of a call,
// where its reply goes.
func address(r *kgo.Record, a *act, op Op, inbox string, partition int32, now time.Time, timeout time.Duration) {
	if r.Key == nil {
		r.Key = []byte(op.ID)
	}
	hdr.Op(op).AddTo(r)
	if timeout > 0 {
		hdr.AddTime(r, hdr.Deadline, now.Add(timeout))
	}
	if a.kind == actCall {
		a.profile.Address(r, hdr.Op(op).CorrelationID(partition), inbox, partition)
	}
}
