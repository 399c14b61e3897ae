package reqreply

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/header"
)

// Request returns req as a record of the Method's topic, for those who await
// replies without a [Caller], as sagas do: [Profile.Address] says in it where
// the reply goes. Codec, Key, ID and Headers count; Timeout does not: the record
// has no deadline.
func (m Method[Req, Resp]) Request(ctx context.Context, req Req) (*kgo.Record, error) {
	r, err := encode(m.codec(), m.Topic, req)
	if err != nil {
		return nil, err
	}
	// With room for what follows: a deadline, a trace, and where replies go.
	r.Headers = append(make([]kgo.RecordHeader, 0, len(r.Headers)+6), r.Headers...)
	if m.Key != nil {
		if key := m.Key(req); key != "" {
			r.Key = []byte(key)
		}
	}
	if m.Headers != nil {
		r.Headers = append(r.Headers, m.Headers(ctx, req)...)
	}
	if m.ID != nil {
		if id := m.ID(req); id != "" {
			header.Add(r, header.RequestID, id)
		}
	}
	return r, nil
}

// Reply returns the answer that a record is, or the error, an [*Error]. One that
// does not decode is a [*wherry.RecordError]. An undo that was answered without
// a value is the zero Resp, see [Method.HandlerUndo]. r must be a reply to this
// Method, see [Profile.ReplyTo]; the end mark of a stream is taken for a null
// value.
func (m Method[Req, Resp]) Reply(r *kgo.Record) (v Resp, err error) {
	p := m.Profile.named()
	return m.value(p.reply(r), r)
}

// Address says in a request which one it is and where its reply goes: to that
// topic and partition. id comes back with the reply as it is, of at most 2048
// bytes, also where the Profile is Binary: a Profile says how Callers make theirs.
// It should be printable ASCII and not begin with { or [, which NestJS parses.
func (p Profile) Address(r *kgo.Record, id, topic string, partition int32) {
	p = p.named()
	p.ask(r, []byte(id), p.replyTo(topic, partition))
}

// ReplyTo returns the id of the request that a record answers, "" if it is no
// reply: as [Profile.Address] gave it.
func (p Profile) ReplyTo(r *kgo.Record) (id string) {
	p = p.named()
	return string(p.reply(r).id)
}

// CorrelationID returns the id of the request whose handler was given ctx, by
// which its reply is known: "" outside of handlers and for records without one.
// Where the handler is that of no Method it is the header kafka_correlationId.
func CorrelationID(ctx context.Context) string {
	r := wherry.RecordFrom(ctx)
	if r == nil {
		return ""
	}
	name := header.CorrelationID
	if s := runningFrom(ctx, r); s != nil {
		name = s.names.CorrelationID
	}
	id, _ := header.Get(r, name)
	return id
}
