package reqreply

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/header"
)

// Handler returns a route that answers requests with what fn returns. The
// answer is an output of the request's record, as [wherry.Publish] makes it: it
// is sent when fn and all policies returned nil, together with what fn
// published, and with ExactlyOnce in the same transaction as the offset.
//
// An [*Error], or a [wherry.Permanent] error, whose text is sent, is the answer
// at once: the record is done, and what fn published is dropped. Any other
// error goes to the policies: retry tries again, [Faults] answers. So does a
// request that does not decode.
//
// fn's context has the deadline of the request. A request whose deadline has
// passed is not handled, and one whose handler fails after its deadline is not
// tried again: nobody waits for either. Clocks should agree: by how much they
// do not, the deadline moves.
//
// A record without a correlation id or a reply topic is an event: it is handled
// and not answered, and its errors go to the policies.
//
// A request that asks for a topic that is not allowed (see [Method].Allow), for
// one that does not exist or may not be written to, or for a partition that
// there is not, is not handled: it is counted (see [Service]) and logged.
// Delivery is that of the Consumer: at least once a request may be handled, and
// answered, twice.
func (m Method[Req, Resp]) Handler(fn func(ctx context.Context, req Req) (Resp, error)) wherry.Route {
	return m.route(func(ctx context.Context, r *kgo.Record) ([]*kgo.Record, error) {
		req, err := decode[Req](m.codec(), r)
		if err != nil {
			return nil, err
		}
		resp, err := fn(ctx, req)
		if err != nil {
			return nil, err
		}
		out, err := encode(m.codec(), "", resp)
		return []*kgo.Record{out}, err
	})
}

// StreamHandler returns a route as [Method.Handler] does, for answers of many
// values: see [Method.Stream], and NestJS handlers that return an Observable.
// The values are outputs of the record and sent together at its end, within the
// limits of [wherry.Publish]: it is a long answer in parts, not a live feed. An
// [*Error] that ends fn's sequence is sent after the values before it.
func (m Method[Req, Resp]) StreamHandler(fn func(ctx context.Context, req Req) iter.Seq2[Resp, error]) wherry.Route {
	return m.route(func(ctx context.Context, r *kgo.Record) (outs []*kgo.Record, err error) {
		req, err := decode[Req](m.codec(), r)
		if err != nil {
			return nil, err
		}
		for v, err := range fn(ctx, req) {
			if err != nil {
				return outs, err
			}
			out, err := encode(m.codec(), "", v)
			if err != nil {
				return outs, err
			}
			header.Add(out, header.ReplySeq, header.FormatInt(len(outs)))
			outs = append(outs, out)
		}
		if len(outs) == 0 || outs[len(outs)-1].Value == nil { // a null value with the mark would be no value
			end := &kgo.Record{}
			header.Add(end, header.ReplySeq, header.FormatInt(len(outs)))
			outs = append(outs, end)
		}
		return outs, nil
	})
}

// route returns a Route that answers with what run returns: the values in
// records without topic and address.
func (m Method[Req, Resp]) route(run func(context.Context, *kgo.Record) ([]*kgo.Record, error)) wherry.Route {
	s := &server{topic: m.Topic, names: m.Profile.named(), allow: m.Allow, store: store{table: m.Dedupe, keep: m.Keep}, run: run}
	if s.allow == nil {
		s.allow = allowed
	}
	return wherry.Route{Topic: m.Topic, Handler: s.handle, Prepare: func(setup *wherry.Setup) error { return s.prepare(setup, m.check()) }}
}

// allowed is the default of [Method].Allow.
func allowed(topic string) bool {
	return strings.HasSuffix(topic, ".reply") || strings.HasSuffix(topic, ".saga.inbox")
}

// server answers the requests of one Method in one Consumer.
type server struct {
	topic string
	names Profile
	allow func(string) bool
	store store
	run   func(context.Context, *kgo.Record) ([]*kgo.Record, error)

	refusals atomic.Int64 // unix nanoseconds of the last one that was logged
	own      counters     // where there is no Service
}

// running is what a server has of the Consumer that it runs in. It is in the
// context of handlers.
type running struct {
	*server
	log   *slog.Logger
	reach *reach
}

type runningKey struct{ topic string }

func (s *server) prepare(setup *wherry.Setup, faults error) error {
	if s.store.table != nil && !setup.Tables {
		faults = errors.Join(faults, fmt.Errorf("method %q: Dedupe needs a Consumer with Delivery ExactlyOnce that lists it in Tables", s.topic))
	}
	if faults == nil {
		log := setup.Logger
		if log == nil {
			log = slog.Default()
		}
		this := &running{server: s, log: log, reach: newReach(setup.Client)}
		setup.WithValue(runningKey{s.topic}, this) // for Faults, which knows the topic
		setup.WithValue(s, this)
	}
	return faults
}

// runningFrom returns the server of r's topic, nil where it is no Method's.
func runningFrom(ctx context.Context, r *kgo.Record) *running {
	s, _ := ctx.Value(runningKey{r.Topic}).(*running)
	return s
}

func (s *server) handle(ctx context.Context, r *kgo.Record) error {
	n := s.counters(ctx)
	a, err := s.names.address(r)
	asked := err != nil || a.asks()
	if asked {
		n.requests.Add(1)
	} else {
		n.events.Add(1)
	}
	this, _ := ctx.Value(s).(*running)
	if err == nil && asked {
		err = s.answers(ctx, this, &a)
	}
	if err != nil {
		n.refused.Add(1)
		s.refuse(ctx, this, r, a, err)
		return nil
	}
	if asked && !a.awaited(time.Now()) {
		n.expired.Add(1)
		return nil
	}
	if outs, found, err := s.store.find(ctx, &a); err != nil {
		return err
	} else if found {
		n.repeated.Add(1)
		return s.stage(ctx, r, &a, outs)
	}
	began := time.Now()
	outs, err := s.work(ctx, r, &a)
	n.worked(time.Since(began))
	switch fault := answerable(err); {
	case err == nil && !asked:
		return nil
	case err == nil:
		return s.answer(ctx, r, &a, outs, nil)
	case wherry.Interrupted(ctx):
		return err
	case asked && !a.awaited(time.Now()):
		wherry.Discard(ctx)
		n.expired.Add(1)
		return nil
	case asked && fault != nil:
		wherry.Discard(ctx)
		n.faults.Add(1)
		return s.answer(ctx, r, &a, outs, fault)
	}
	n.failed.Add(1)
	return err
}

// work calls the handler, with the deadline of the request.
func (s *server) work(ctx context.Context, r *kgo.Record, a *address) ([]*kgo.Record, error) {
	if a.asks() && !a.deadline.IsZero() {
		limited, cancel := context.WithDeadline(ctx, a.deadline)
		defer cancel()
		ctx = limited
	}
	return s.run(ctx, r)
}

// answers reports why the server would not answer to where a says.
func (s *server) answers(ctx context.Context, this *running, a *address) error {
	if !s.allow(a.topic) {
		return errors.New("the server does not answer to that topic: see Method.Allow")
	}
	if a.topic == s.topic {
		return errors.New("the reply topic is that of the requests")
	}
	if this == nil {
		return nil
	}
	return this.reach.check(ctx, a)
}

// refuse logs a request that cannot be answered, at most one in a second.
func (s *server) refuse(ctx context.Context, this *running, r *kgo.Record, a address, why error) {
	now, last := time.Now().UnixNano(), s.refusals.Load()
	if this == nil || last != 0 && now-last < int64(time.Second) || !s.refusals.CompareAndSwap(last, now) {
		return
	}
	this.log.WarnContext(ctx, "reqreply: a request is refused, and was not handled", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset,
		"reply topic", clip(a.topic, maxTopic), "reply partition", a.partition, "reason", why)
}

// answer stages the replies, and what Dedupe keeps of them. An answer that
// cannot be staged, since it is too large, becomes an error.
func (s *server) answer(ctx context.Context, r *kgo.Record, a *address, outs []*kgo.Record, fault *Error) error {
	if fault != nil {
		outs = append(outs, s.faultRecord(fault))
	}
	err := s.keepAndStage(ctx, r, a, outs)
	if err == nil || wherry.Interrupted(ctx) {
		return err
	}
	wherry.Discard(ctx)
	s.counters(ctx).faults.Add(1)
	return s.keepAndStage(ctx, r, a, []*kgo.Record{s.faultRecord(tooLarge(err))})
}

func (s *server) keepAndStage(ctx context.Context, r *kgo.Record, a *address, outs []*kgo.Record) error {
	if err := s.store.keepAnswer(ctx, a, outs); err != nil {
		return err
	}
	return s.stage(ctx, r, a, outs)
}

func tooLarge(err error) *Error {
	text := "the answer is too large to be sent"
	if refused, ok := errors.AsType[*wherry.OutputError](err); ok {
		text = fmt.Sprintf("the answer of %d bytes is too large to be sent", refused.Size)
	}
	return &Error{Code: CodeTooLarge, Message: text}
}

// faultRecord returns a reply that is an error.
func (s *server) faultRecord(fault *Error) *kgo.Record {
	return &kgo.Record{Headers: []kgo.RecordHeader{{Key: s.names.Error, Value: fault.encode()}}}
}

// stage stages replies: under the request's key, to where it asked for them.
func (s *server) stage(ctx context.Context, r *kgo.Record, a *address, outs []*kgo.Record) error {
	group := wherry.GroupFrom(ctx)
	for i, out := range outs {
		out.Topic, out.Key = a.topic, r.Key
		headers := make([]kgo.RecordHeader, 0, len(out.Headers)+3)
		headers = append(headers, out.Headers...)
		headers = append(headers, kgo.RecordHeader{Key: s.names.CorrelationID, Value: a.id})
		if group != "" {
			headers = append(headers, kgo.RecordHeader{Key: header.ReplyGroup, Value: []byte(group)})
		}
		if i == len(outs)-1 {
			headers = append(headers, kgo.RecordHeader{Key: s.names.End, Value: []byte{0}})
		}
		out.Headers = headers
		if a.stated {
			wherry.ToPartition(out, a.partition)
		}
	}
	return wherry.Publish(ctx, outs...)
}
