package crashlab

import (
	"context"
	"hash/fnv"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/header"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/retry"
	"github.com/wherry-go/wherry/saga"
)

// SagaParticipants is the subject that is asked by the sagas: what is behind the
// barrier, in one Consumer that is exactly once and carries answers too, and one
// that is at least once.
func SagaParticipants(ctx context.Context, m Member, ready func()) error {
	cl, err := kgo.NewClient(m.Opts...)
	if err != nil {
		return err
	}
	defer cl.Close()
	p := &participant{Member: m, topics: sagaTopics{m.Run}, answers: &wherry.OwnedTable[reqreply.Answered]{Topic: sagaTopics{m.Run}.answers()}}
	session := m.session()
	exact := &wherry.Consumer{
		Client: cl, Group: m.Run + ".participants", Delivery: wherry.ExactlyOnce, Tables: []wherry.Owned{p.answers},
		Order: wherry.ByKey, Concurrency: 16, Logger: m.Logger, Opts: session,
		Policies: []wherry.Policy{wherry.Middleware(p.scripted), retry.Policy{Attempts: 3, Initial: 20 * time.Millisecond}},
	}
	loose := &wherry.Consumer{
		Client: cl, Group: m.Run + ".notify", Order: wherry.ByKey, Concurrency: 16, Logger: m.Logger, Opts: session,
		Policies: []wherry.Policy{wherry.Middleware(p.scripted)},
	}
	for _, s := range SagaSteps() {
		method := p.topics.method(s.Name)
		method.Allow = func(topic string) bool { return topic == p.topics.inbox() || topic == p.topics.courier() }
		switch {
		case s.Kind == EmitStep:
			exact.Handlers = append(exact.Handlers, p.topics.bills().Handler(p.bill))
		case s.Kind == CallStep && s.Loose:
			loose.Handlers = append(loose.Handlers, method.Handler(p.handle))
		case s.Kind == CallStep:
			method.Dedupe = p.answers
			exact.Handlers = append(exact.Handlers, method.HandlerUndo(p.handle), method.Handler(p.handle))
		}
	}
	exact.Handlers = append(exact.Handlers, wherry.Route{Topic: p.topics.courier(), Handler: p.carry})
	return runTogether(ctx, ready, exact, loose)
}

// runner is a Consumer or an Engine.
type runner interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
}

// runTogether runs all until ctx ends, or one fails, and calls ready when all
// are.
func runTogether(ctx context.Context, ready func(), all ...runner) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, len(all))
	for _, r := range all {
		go func() { ended <- r.Run(ctx) }()
	}
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		for _, r := range all {
			select {
			case <-r.Ready():
			case <-ctx.Done():
				return
			}
		}
		ready()
	}()
	var first error
	for range all {
		if err := <-ended; err != nil && first == nil {
			first = err
		}
		stop()
	}
	<-waited
	return first
}

// participant does what the scripts say.
type participant struct {
	Member
	topics  sagaTopics
	answers *wherry.OwnedTable[reqreply.Answered]
}

// told is what a handler tells the policy around it.
type told struct{ failed bool }

type toldKey struct{}

// answer returns what becomes of an attempt.
func (p *participant) answer(op saga.Op) (fails bool, reply Reply) {
	n := sagaNumber(op.ID)
	script := ScriptOf(p.Seed, n)
	if op.Undo {
		return script.Undo[op.Step].To(op.Attempt)
	}
	return script.Do[op.Step].To(op.Attempt)
}

// scripted loses requests, has those answers go another way that are to be lost,
// late, or doubled, and notes what was said.
func (p *participant) scripted(next wherry.Handler) wherry.Handler {
	return func(ctx context.Context, r *kgo.Record) error {
		c := Command{}
		id, ok := header.Get(r, header.CorrelationID)
		if !ok || r.Topic == p.topics.courier() {
			return next(ctx, r)
		}
		step, _, err := c.correlate(id)
		if err != nil {
			return err
		}
		op := saga.Op{Saga: p.Run, ID: c.Saga, Step: step, Undo: c.Undo, Attempt: c.Attempt}
		switch _, reply := p.answer(op); reply {
		case Unheard:
			return nil
		case Silent, Twice, Contrary, Late:
			again := *r
			header.Set(&again, header.ReplyTopic, p.topics.courier())
			header.Strip(&again, func(key string) bool { return key == header.ReplyPartition })
			r = &again
		case Says, Refuses:
		}
		said := &told{}
		if err := next(context.WithValue(ctx, toldKey{}, said), r); err != nil {
			return err
		}
		d := deedOf(op, Said, p.Name)
		d.Failed = said.failed
		return wherry.Publish(ctx, d.Record(p.topics.deeds()))
	}
}

// handle does a step, or undoes it.
func (p *participant) handle(ctx context.Context, _ sagaOrder) (a sagaAnswer, err error) {
	op, _ := saga.OpFrom(ctx)
	fails, reply := p.answer(op)
	said, _ := ctx.Value(toldKey{}).(*told)
	said.failed = fails || reply == Refuses
	unlucky := !said.failed && wherry.Attempt(ctx) == 1 && p.unlucky(op)
	d := deedOf(op, Did, p.Name)
	d.Token, d.Failed = p.Name+"@"+from(wherry.RecordFrom(ctx)), said.failed || unlucky
	if err := wherry.Publish(ctx, d.Record(p.topics.deeds())); err != nil {
		return a, err
	}
	switch {
	case fails:
		return a, &reqreply.Error{Code: string(wherry.CauseFailed), Message: "out of luck"}
	case said.failed:
		return a, &reqreply.Error{Code: "refused", Message: "no"}
	case unlucky:
		return a, errUnlucky
	}
	return sagaAnswer{d.Token}, nil
}

// unlucky says of few attempts that they fail once, and are made again here.
func (p *participant) unlucky(op saga.Op) bool {
	step, _ := stepNamed(op.Step)
	h := fnv.New32a()
	_, _ = h.Write([]byte(op.Key()))
	return !step.Loose && h.Sum32()%20 == 0
}

// bill is asked by an event, and answers with one.
func (p *participant) bill(ctx context.Context, b Bill) error {
	r := wherry.RecordFrom(ctx)
	op := saga.Op{Saga: p.Run, ID: b.ID, Step: "bill", Undo: b.Cancel, Attempt: 1}
	d := deedOf(op, Did, p.Name)
	d.Token = p.Name + "@" + from(r)
	_, reply := p.answer(op)
	yes := &kgo.Record{Topic: p.topics.billed(), Key: r.Key, Value: encoded(billed{b.ID, d.Token})}
	no := &kgo.Record{Topic: p.topics.unbilled(), Key: r.Key, Value: encoded(billed{ID: b.ID})}
	if reply == Refuses && !b.Cancel {
		return wherry.Publish(ctx, no)
	}
	outs := []*kgo.Record{d.Record(p.topics.deeds())}
	switch {
	case b.Cancel || reply == Silent:
	case reply == Late:
		outs = append(outs, p.later(yes, r.Timestamp.Add(lateBy(b.N))))
	case reply == Twice:
		outs = append(outs, yes, p.later(yes, r.Timestamp.Add(againAfter(b.N))))
	case reply == Contrary:
		outs = append(outs, yes, p.later(no, r.Timestamp.Add(againAfter(b.N))))
	default:
		outs = append(outs, yes)
	}
	return wherry.Publish(ctx, outs...)
}

// lateBy is when an answer comes that is late, after its request.
func lateBy(n int) time.Duration { return sagaTimeout + time.Duration(n%7)*200*time.Millisecond }

// againAfter is when an answer comes for the second time.
func againAfter(n int) time.Duration { return time.Duration(n%5) * 700 * time.Millisecond }

// Headers of what the courier carries: to which topic and partition, and when.
const (
	courierTopic     = "lab-topic"
	courierPartition = "lab-partition" // absent: the key's
	courierAt        = "lab-at"
)

// later is a record that is to be delivered at a time.
func (p *participant) later(r *kgo.Record, at time.Time) *kgo.Record {
	again := *r
	again.Topic, again.Headers = p.topics.courier(), append([]kgo.RecordHeader(nil), r.Headers...)
	header.Add(&again, courierTopic, r.Topic)
	header.AddTime(&again, courierAt, at)
	return &again
}

// carry is the courier: it takes answers whose scripts say that they are lost,
// late, or come twice, and delivers what is due.
func (p *participant) carry(ctx context.Context, r *kgo.Record) error {
	if topic, ok := header.Get(r, courierTopic); ok {
		at, _ := header.Time(r, courierAt)
		if err := wherry.Wait(ctx, at); err != nil {
			return err
		}
		out := &kgo.Record{Topic: topic, Key: r.Key, Value: r.Value, Headers: r.Headers}
		header.Strip(out, func(key string) bool { return key == courierTopic || key == courierAt || key == courierPartition })
		if n, ok := header.Int(r, courierPartition); ok {
			wherry.ToPartition(out, int32(n))
		}
		return wherry.Publish(ctx, out)
	}
	c := Command{}
	id, _ := header.Get(r, header.CorrelationID)
	step, partition, err := c.correlate(id)
	if err != nil {
		return err
	}
	reply := &kgo.Record{Topic: p.topics.inbox(), Key: r.Key, Value: r.Value, Headers: append([]kgo.RecordHeader(nil), r.Headers...)}
	n := sagaNumber(c.Saga)
	_, how := p.answer(saga.Op{Saga: p.Run, ID: c.Saga, Step: step, Undo: c.Undo, Attempt: c.Attempt})
	delayed := func(of *kgo.Record, d time.Duration) *kgo.Record {
		again := p.later(of, r.Timestamp.Add(d))
		header.Add(again, courierPartition, strconv.Itoa(int(partition)))
		return again
	}
	switch how {
	case Twice:
		return wherry.Publish(ctx, p.now(reply, partition), delayed(reply, againAfter(n)))
	case Contrary:
		no := *reply
		no.Headers = append([]kgo.RecordHeader(nil), reply.Headers...)
		header.Add(&no, header.ReplyError, `{"status":"error","code":"refused","message":"already done"}`)
		return wherry.Publish(ctx, p.now(reply, partition), delayed(&no, againAfter(n)))
	case Late:
		return wherry.Publish(ctx, delayed(reply, lateBy(n)))
	case Silent, Unheard, Says, Refuses:
	}
	return nil
}

// now is a record for a partition of the inbox.
func (p *participant) now(r *kgo.Record, partition int32) *kgo.Record {
	again := *r
	wherry.ToPartition(&again, partition)
	return &again
}
