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
//
// A request that undoes, of a saga, is for [Method.HandlerUndo]: it is not
// handled here, and answered with an [*Error] of [CodeNoUndo].
func (m Method[Req, Resp]) Handler(fn func(ctx context.Context, req Req) (Resp, error)) wherry.Route {
	return m.route(false, func(ctx context.Context, r *kgo.Record) ([]*kgo.Record, error) {
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
	return m.route(false, func(ctx context.Context, r *kgo.Record) (outs []*kgo.Record, err error) {
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
func (m Method[Req, Resp]) route(undo bool, run func(context.Context, *kgo.Record) ([]*kgo.Record, error)) wherry.Route {
	s := &server{topic: m.Topic, undo: undo, names: m.Profile.named(), allow: m.Allow, store: store{table: m.Dedupe, keep: m.Keep}, run: run}
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
	undo  bool // it takes back what the others of the topic do
	names Profile
	allow func(string) bool
	store store
	run   func(context.Context, *kgo.Record) ([]*kgo.Record, error)

	refusals atomic.Int64 // unix nanoseconds of the last one that was logged
}

// running is a server in the Consumer that it runs in. It is in the context of
// handlers.
type running struct {
	*server
	log      *slog.Logger
	reach    *reach
	group    []byte
	counters *counters
	metrics  *metrics
	before   *running // another one of the same topic
	barrier  bool     // do and undo of the topic share a table
}

type runningKey struct{ topic string }

func (s *server) prepare(setup *wherry.Setup, faults error) error {
	if s.store.table != nil && !setup.Tables {
		faults = errors.Join(faults, fmt.Errorf("method %q: Dedupe needs a Consumer with Delivery ExactlyOnce that lists it in Tables", s.topic))
	}
	before, _ := setup.Value(runningKey{s.topic}).(*running)
	if before != nil && !before.names.reads(s.names) {
		faults = errors.Join(faults, fmt.Errorf("method %q: two of one topic have different Profiles, and Faults knows the headers of a request by its topic: give them one", s.topic))
	}
	faults = errors.Join(faults, s.facing(before, setup.Order))
	if faults == nil {
		log := setup.Logger
		if log == nil {
			log = slog.Default()
		}
		service, _ := setup.Value(serviceKey{}).(*Service)
		if service == nil {
			service = &Service{} // nobody asks it
		}
		this := &running{
			server: s, log: log, reach: newReach(setup.Client), group: []byte(setup.Group), before: before,
			counters: service.counters(s.topic), metrics: newMetrics(service.MeterProvider, s.topic, setup.Group),
		}
		this.pair()
		setup.WithValue(runningKey{s.topic}, this) // for Faults, which knows the topic
		setup.WithValue(s, this)
	}
	return faults
}

// runningFrom returns the last server of r's topic, nil where it is no Method's.
func runningFrom(ctx context.Context, r *kgo.Record) *running {
	s, _ := ctx.Value(runningKey{r.Topic}).(*running)
	return s
}

func (s *server) handle(ctx context.Context, r *kgo.Record) error {
	this, _ := ctx.Value(s).(*running)
	if this == nil {
		return fmt.Errorf("method %q: its route needs a Consumer, which prepares it", s.topic)
	}
	return this.handle(ctx, r)
}

func (s *running) handle(ctx context.Context, r *kgo.Record) error {
	a, err := s.names.address(r)
	asked := err != nil || a.asks()
	s.counters.came(asked)
	if err == nil && asked {
		err = s.answers(ctx, &a)
	}
	if err != nil {
		s.count(ctx, refused, 0)
		s.refuse(ctx, r, a, err)
		return nil
	}
	if asked && !a.awaited(time.Now()) {
		s.count(ctx, expired, 0)
		return nil
	}
	if wrong := s.misdirected(&a); wrong != nil {
		s.count(ctx, fault, 0)
		if !asked {
			return wrong
		}
		return s.stage(ctx, r, &a, []*kgo.Record{s.faultRecord(wrong)})
	}
	if outs, out, err := s.recall(ctx, r, &a); err != nil {
		return err
	} else if outs != nil {
		s.count(ctx, out, 0)
		return s.stage(ctx, r, &a, outs)
	}
	began := time.Now()
	outs, err := s.work(ctx, r, &a)
	took := time.Since(began)
	s.counters.worked(took)
	switch reply := answerable(err); {
	case errors.Is(err, ErrLater):
		return nil
	case err == nil && !asked:
		s.count(ctx, handled, took)
		return nil
	case err == nil:
		return s.answer(ctx, r, &a, outs, nil, took)
	case wherry.Interrupted(ctx):
		return err
	case asked && !a.awaited(time.Now()):
		wherry.Discard(ctx)
		s.count(ctx, expired, took)
		return nil
	case asked && reply != nil:
		wherry.Discard(ctx)
		return s.answer(ctx, r, &a, outs, reply, took)
	}
	s.count(ctx, failed, took)
	return err
}

// count counts what became of a request, and how long its handler took, 0 where
// it was not called.
func (s *running) count(ctx context.Context, out outcome, took time.Duration) {
	s.counters.of[out].Add(1)
	if s.metrics.requests.Enabled(ctx) {
		s.metrics.requests.Add(ctx, 1, s.metrics.of[out].add...)
	}
	if took > 0 && s.metrics.duration.Enabled(ctx) {
		s.metrics.duration.Record(ctx, took.Seconds(), s.metrics.of[out].record...)
	}
}

// work calls the handler, with the deadline of the request.
func (s *running) work(ctx context.Context, r *kgo.Record, a *address) ([]*kgo.Record, error) {
	if a.asks() && !a.deadline.IsZero() {
		var limited until
		limited.set(ctx, a.deadline)
		defer limited.end()
		ctx = &limited
	}
	return s.run(ctx, r)
}

// answers reports why the server would not answer to where a says.
func (s *running) answers(ctx context.Context, a *address) error {
	if !s.allow(a.topic) {
		return errors.New("the server does not answer to that topic: see Method.Allow")
	}
	if a.topic == s.topic {
		return errors.New("the reply topic is that of the requests")
	}
	return s.reach.check(ctx, a)
}

// refuse logs a request that cannot be answered, at most one in a second.
func (s *running) refuse(ctx context.Context, r *kgo.Record, a address, why error) {
	now, last := time.Now().UnixNano(), s.refusals.Load()
	if last != 0 && now-last < int64(time.Second) || !s.refusals.CompareAndSwap(last, now) {
		return
	}
	s.log.WarnContext(ctx, "reqreply: a request is refused, and was not handled", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset,
		"reply topic", clip(a.topic, maxTopic), "reply partition", a.partition, "reason", why)
}

// answer stages the replies, and what Dedupe keeps of them. An answer that
// cannot be staged, since it is too large, becomes an error.
func (s *running) answer(ctx context.Context, r *kgo.Record, a *address, outs []*kgo.Record, reply *Error, took time.Duration) error {
	out := answered
	if reply != nil {
		out, outs = fault, append(outs, s.faultRecord(reply))
	}
	err := s.keepAndStage(ctx, r, a, outs, reply != nil)
	if err != nil && !wherry.Interrupted(ctx) {
		wherry.Discard(ctx)
		out, err = fault, s.keepAndStage(ctx, r, a, []*kgo.Record{s.faultRecord(tooLarge(err))}, true)
	}
	if err == nil {
		s.count(ctx, out, took)
	}
	return err
}

func (s *running) keepAndStage(ctx context.Context, r *kgo.Record, a *address, outs []*kgo.Record, failed bool) error {
	if err := s.store.keepAnswer(ctx, a, outs, failed); err != nil {
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

// endMark is the value of the header that marks the last reply.
var endMark = []byte{0}

// stage stages replies: under the request's key, to where it asked for them.
func (s *running) stage(ctx context.Context, r *kgo.Record, a *address, outs []*kgo.Record) error {
	for i, out := range outs {
		out.Topic, out.Key = a.topic, r.Key
		headers := make([]kgo.RecordHeader, 0, len(out.Headers)+3)
		headers = append(headers, out.Headers...)
		headers = append(headers, kgo.RecordHeader{Key: s.names.CorrelationID, Value: a.id})
		if len(s.group) > 0 {
			headers = append(headers, kgo.RecordHeader{Key: header.ReplyGroup, Value: s.group})
		}
		if i == len(outs)-1 {
			headers = append(headers, kgo.RecordHeader{Key: s.names.End, Value: endMark})
		}
		out.Headers = headers
		if a.stated {
			wherry.ToPartition(out, a.partition)
		}
	}
	return wherry.Publish(ctx, outs...)
}
