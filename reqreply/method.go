package reqreply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// A Method is a question and its answer: a topic for requests, the types of
// both, and how they travel. It is declared once, for those who call and those
// who answer:
//
//	var GetUser = reqreply.Method[string, *User]{Topic: "user.getUser"}
//
// As with [wherry.Event], a Validate() error of Req or Resp is asked on both
// sides. A null value is a nil pointer, map, slice or interface, or a struct{};
// for other types it is undecodable. (A NestJS handler that finds nothing
// answers null.)
//
// A Method is a value without state, safe for concurrent use. Caller and server
// may copy it and set the fields that are theirs.
type Method[Req, Resp any] struct {
	// Topic is where requests go. Required.
	Topic string
	// ReplyTopic is where a Caller reads replies. Methods may share one. "" means
	// Topic with ".reply" behind it, as NestJS names it.
	ReplyTopic string
	// Codec turns values into bytes and back; nil means [Text].
	Codec wherry.Codec
	// Profile has the names and forms of the headers. The zero value is NestJS's.
	Profile Profile

	// Timeout is how long a call waits whose context has no deadline, or a later
	// one. 0 means 30s.
	Timeout time.Duration
	// Key returns the key of a request's record: those of one key are handled in
	// order, by one server. nil, or "", means none: to any partition.
	Key func(Req) string
	// ID returns the id of a request, the same for each attempt to have it
	// done; it travels in the header wherry-request-id. See Dedupe. nil, or "",
	// means none.
	ID func(Req) string
	// Headers returns further headers of a request. nil means none.
	Headers func(ctx context.Context, req Req) []kgo.RecordHeader
	// Group is the consumer group of those who answer. With it a call fails at
	// once with [ErrNoResponder], and sends nothing, where no live member of the
	// group reads Topic. Live is what the group's coordinator takes for live: a
	// server that crashed counts until its session times out (45 s by default).
	//
	// The coordinator is asked with DescribeGroups (and ConsumerGroupDescribe
	// for groups of KIP-848), for which the caller needs DESCRIBE on the group:
	// while there are calls, once a second for each group and topic, of which
	// only the first is waited for, and ten times a second while there is no
	// member. So a group that all have left is noticed after a second at most.
	// Where nobody can be asked the request is sent.
	// "" means that nobody is asked.
	Group string

	// Allow says which topics the server answers to. A request that names
	// another one is not handled: it is counted and logged. nil means those
	// that end in ".reply" or ".saga.inbox".
	//
	// Whoever can write to Topic can otherwise have the server write to any
	// topic that the server may write to.
	Allow func(topic string) bool
	// Dedupe keeps answers, so that a request that comes again gets the answer
	// of the first time and is not handled again: one with the same ID, or,
	// without one, the same record's correlation id. It needs a Consumer with
	// Delivery ExactlyOnce that lists the table in Tables. All requests of one
	// id must have the same key, since a table has a part for each partition.
	// Errors that were not answered are not kept. nil means none.
	//
	// Requests of sagas are told apart by saga, step and direction, whatever the
	// attempt and the ID, and errors are not kept of them; see
	// [Method.HandlerUndo] for what else it is for them.
	Dedupe *wherry.OwnedTable[Answered]
	// Keep is how long Dedupe keeps an answer. 0 means 10 minutes, and a day for
	// requests of sagas.
	Keep time.Duration
}

// AnyMethod is a [Method] of any types.
type AnyMethod interface {
	check() error
	replies() (topic string, names Profile)
}

// TopicName returns the Method's topic.
func (m Method[Req, Resp]) TopicName() string { return m.Topic }

// ReplyTopicName returns where a Caller reads replies.
func (m Method[Req, Resp]) ReplyTopicName() string { return cmp.Or(m.ReplyTopic, m.Topic+replySuffix) }

// replySuffix is NestJS's.
const replySuffix = ".reply"

func (m Method[Req, Resp]) replies() (topic string, names Profile) {
	return m.ReplyTopicName(), m.Profile.named()
}

func (m Method[Req, Resp]) codec() wherry.Codec {
	if m.Codec == nil {
		return Text{}
	}
	return m.Codec
}

// check reports all that is wrong with m.
func (m Method[Req, Resp]) check() error {
	var faults []error
	fault := func(text string) { faults = append(faults, fmt.Errorf("method %q: %s", m.Topic, text)) }
	if m.Topic == "" {
		fault("no topic: set Topic")
	}
	if m.Topic != "" && m.ReplyTopic == m.Topic {
		fault("ReplyTopic is Topic: replies would be taken for requests")
	}
	if m.Timeout < 0 || m.Keep < 0 {
		fault("Timeout and Keep must not be negative")
	}
	if !m.Profile.distinct() {
		fault("two headers of the Profile have one name")
	}
	return errors.Join(faults...)
}

// Call sends req and returns the answer. An error of the server is an [*Error];
// otherwise it is [ErrNoResponder], [ErrBusy], [ErrEnded], that of ctx with its
// cause, an answer that does not decode (a [*wherry.RecordError]), or why the
// request could not be sent.
//
// Call waits for the Caller's Run to be ready. The deadline travels with the
// request, and a server skips what nobody waits for any more. After an error
// the request may have been handled, or be handled yet.
//
// Of several replies (of several groups that read the topic, of a stream) the
// first counts; see [Method.Gather] and [Method.Stream].
func (m Method[Req, Resp]) Call(ctx context.Context, caller *Caller, req Req) (resp Resp, err error) {
	c, err := m.ask(ctx, caller, req, 1)
	if err == nil {
		defer func() { c.end(err) }()
		var got answer
		if got, err = c.next(); err == nil {
			return m.read(c, got)
		}
	}
	return resp, fmt.Errorf("call %s: %w", m.Topic, err)
}

// read returns the value of a reply, or the error that it is.
func (m Method[Req, Resp]) read(c *call, got answer) (v Resp, err error) {
	c.line.answered.Add(1)
	return m.value(got.reply, got.record)
}

func (m Method[Req, Resp]) value(is reply, r *kgo.Record) (v Resp, err error) {
	switch {
	case is.failed:
		e := decodeError(is.fault)
		e.Topic = m.Topic
		return v, e
	case is.none:
		return v, nil
	}
	if v, err = decode[Resp](m.codec(), r); err != nil {
		return v, fmt.Errorf("call %s: the reply: %w", m.Topic, err)
	}
	return v, nil
}
