package reqreply

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/header"
)

// Request returns req as a record of the Method's topic, for those who await
// replies without a [Caller], as sagas do: [Profile.Address] says in it where
// the reply goes. Key, ID and Headers count.
func (m Method[Req, Resp]) Request(ctx context.Context, req Req) (*kgo.Record, error) {
	r, err := encode(m.codec(), m.Topic, req)
	if err != nil {
		return nil, err
	}
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

// Reply returns the answer in a reply, or the error that it is, an [*Error]. A
// reply that does not decode is a [*wherry.RecordError].
func (m Method[Req, Resp]) Reply(r *kgo.Record) (v Resp, err error) {
	p := m.Profile.named()
	if is := p.reply(r); is.failed {
		e := decodeError(is.fault)
		e.Topic = m.Topic
		return v, e
	}
	if v, err = decode[Resp](m.codec(), r); err != nil {
		return v, fmt.Errorf("call %s: the reply: %w", m.Topic, err)
	}
	return v, nil
}

// Address says in a request which one it is and where its reply goes.
func (p Profile) Address(r *kgo.Record, id, topic string, partition int32) {
	p = p.named()
	p.ask(r, []byte(id), p.replyTo(topic, partition))
}

// ReplyTo returns the id of the request that a record answers, "" if it is no
// reply.
func (p Profile) ReplyTo(r *kgo.Record) (id string) {
	p = p.named()
	return string(p.reply(r).id)
}
