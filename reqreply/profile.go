package reqreply

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/header"
)

// A Profile says in which headers a request and its replies find each other.
// The zero Profile is that of NestJS; [Spring] returns that of Spring Kafka.
// What is read does not depend on Binary: both forms are understood.
type Profile struct {
	// CorrelationID is on a request and on its replies. "" means
	// kafka_correlationId.
	CorrelationID string
	// ReplyTopic and ReplyPartition are on a request. "" means kafka_replyTopic
	// and kafka_replyPartition.
	ReplyTopic     string
	ReplyPartition string
	// Error is on a reply that is an error, with its text. "" means
	// kafka_nest-err.
	Error string
	// End is on the last reply. "" means kafka_nest-is-disposed.
	End string
	// Binary has requests carry the reply partition as an int32 of 4 bytes, and
	// 16 raw bytes as the correlation id, as Spring Kafka's
	// ReplyingKafkaTemplate does. false means text for both, as NestJS does.
	Binary bool
}

// Spring returns the Profile of Spring Kafka 4.1. It has no header of its own
// for errors (its documentation has a program choose one): Error stays
// kafka_nest-err unless it is set. Its values are JSON as a rule, so set a
// Method's Codec to wherry.JSON{} too.
func Spring() Profile { return Profile{Binary: true} }

// named returns p with its defaults filled in.
func (p Profile) named() Profile {
	p.CorrelationID = cmp.Or(p.CorrelationID, header.CorrelationID)
	p.ReplyTopic = cmp.Or(p.ReplyTopic, header.ReplyTopic)
	p.ReplyPartition = cmp.Or(p.ReplyPartition, header.ReplyPartition)
	p.Error = cmp.Or(p.Error, header.ReplyError)
	p.End = cmp.Or(p.End, header.ReplyEnd)
	return p
}

// distinct reports whether no two of p's headers have one name.
func (p Profile) distinct() bool {
	if p == (Profile{Binary: p.Binary}) {
		return true // as nearly always
	}
	p = p.named()
	return len(map[string]bool{p.CorrelationID: true, p.ReplyTopic: true, p.ReplyPartition: true, p.Error: true, p.End: true}) == 5
}

// reads reports whether p has the same headers as other, in whatever form.
func (p Profile) reads(other Profile) bool {
	other.Binary = p.Binary
	return p == other
}

// Limits of what a request may say of its reply. A name of a topic has at most
// 249 characters (Kafka's org.apache.kafka.common.internals.Topic).
const (
	maxTopic       = 249
	maxCorrelation = 2048
	maxErrorText   = 16 << 10
)

// address is where the replies to a request go.
type address struct {
	id        []byte // the correlation id, echoed as it came
	topic     string // "" where the record is an event
	partition int32
	stated    bool   // whether the request names a partition
	request   string // the request's id, see Method.ID
	deadline  time.Time
	saga      saga
}

// asks reports whether somebody asked for an answer.
func (a *address) asks() bool { return a.topic != "" && len(a.id) > 0 }

// awaited reports whether somebody still waits for it.
func (a *address) awaited(now time.Time) bool { return a.deadline.IsZero() || now.Before(a.deadline) }

// address reads where the answer to r goes. The last of several headers of one
// key counts, and one without a value is none. p has its names. The error says
// why no answer can be sent.
func (p *Profile) address(r *kgo.Record) (a address, err error) {
	var partition []byte
	var topic []byte
	for i := range r.Headers {
		switch h := &r.Headers[i]; h.Key {
		case p.CorrelationID:
			a.id = h.Value
		case p.ReplyTopic:
			topic = h.Value
		case p.ReplyPartition:
			partition = h.Value
		case header.RequestID:
			a.request = string(h.Value)
		case header.Deadline:
			a.deadline, _ = time.Parse(time.RFC3339Nano, string(h.Value)) // what is no time is no deadline
		case header.Saga:
			a.saga.name = h.Value
		case header.SagaDirection:
			a.saga.direction = h.Value
		case header.SagaDone:
			a.saga.done = true
		}
	}
	if len(a.id) == 0 || len(topic) == 0 {
		return a, nil
	}
	switch {
	case len(topic) > maxTopic || !utf8.Valid(topic):
		return a, errors.New("the reply topic is no name of a topic")
	case len(a.id) > maxCorrelation:
		return a, fmt.Errorf("the correlation id has %d bytes, the limit is %d", len(a.id), maxCorrelation)
	case len(a.request) > maxCorrelation:
		return a, fmt.Errorf("the request id has %d bytes, the limit is %d", len(a.request), maxCorrelation)
	}
	a.topic = string(topic)
	if len(partition) > 0 {
		a.stated = true
		a.partition, err = parsePartition(partition)
	}
	return a, err
}

// parsePartition reads the number of a partition: 4 bytes of which one is no
// digit are an int32, all else is decimal text.
func parsePartition(v []byte) (int32, error) {
	digits := len(v) > 0
	for _, c := range v {
		digits = digits && '0' <= c && c <= '9'
	}
	if len(v) == 4 && !digits {
		p := binary.BigEndian.Uint32(v)
		if p > math.MaxInt32 {
			return 0, fmt.Errorf("the reply partition is %d", int32(p)) //nolint:gosec // that is what was sent
		}
		return int32(p), nil
	}
	p, err := strconv.ParseInt(string(v), 10, 32)
	if !digits || err != nil {
		return 0, fmt.Errorf("the reply partition %.20q is no number of a partition", v)
	}
	return int32(p), nil
}

// formatPartition is the opposite.
func (p *Profile) formatPartition(n int32) []byte {
	if p.Binary {
		return binary.BigEndian.AppendUint32(nil, uint32(n))
	}
	return strconv.AppendInt(nil, int64(n), 10)
}

// replyTo returns the headers of requests that say where their replies go.
func (p *Profile) replyTo(topic string, partition int32) [2]kgo.RecordHeader {
	return [2]kgo.RecordHeader{
		{Key: p.ReplyTopic, Value: []byte(topic)},
		{Key: p.ReplyPartition, Value: p.formatPartition(partition)},
	}
}

// ask puts into a request which one it is and where its replies go, after the
// headers of the application, as NestJS does.
func (p *Profile) ask(r *kgo.Record, id []byte, replyTo [2]kgo.RecordHeader) {
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: p.CorrelationID, Value: id}, replyTo[0], replyTo[1])
}

// reply is what a record says as a reply.
type reply struct {
	id     []byte
	fault  []byte // the text of its error
	failed bool   // present, even empty, means error
	end    bool
	none   bool  // there is no value, and none is meant
	seq    int64 // -1 where it is not one of several
	group  []byte
}

// reply reads r as a reply. p has its names.
func (p *Profile) reply(r *kgo.Record) reply {
	is := reply{seq: -1}
	for i := range r.Headers {
		switch h := &r.Headers[i]; h.Key {
		case p.CorrelationID:
			is.id = h.Value
		case p.Error:
			is.fault, is.failed = h.Value, true
		case p.End:
			is.end = true
		case header.ReplyNothing:
			is.none = true
		case header.ReplySeq:
			if n, err := strconv.ParseInt(string(h.Value), 10, 64); err == nil && n >= 0 {
				is.seq = n
			}
		case header.ReplyGroup:
			is.group = h.Value
		}
	}
	return is
}
