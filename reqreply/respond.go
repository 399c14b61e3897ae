package reqreply

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/client"
)

// respondPause is the time between two attempts to read a Service's Topic.
const respondPause = 5 * time.Second

// respondFetch is how long a broker may hold a request for questions, of which
// there are few.
const respondFetch = 5 * time.Second

// responder answers those who ask for a Service while a Consumer runs.
type responder struct {
	service *Service
	lent    *kgo.Client
	log     *slog.Logger
	names   Profile
	ready   chan struct{} // closed when it answers, or cannot for now
	once    sync.Once
}

func newResponder(s *Service, lent *kgo.Client, log *slog.Logger) *responder {
	return &responder{service: s, lent: lent, log: cmp.Or(log, slog.Default()), names: Profile{}.named(), ready: make(chan struct{})}
}

func (p *responder) Ready() <-chan struct{}     { return p.ready }
func (p *responder) Sync(context.Context) error { return nil }
func (p *responder) settled()                   { p.once.Do(func() { close(p.ready) }) }

// Run answers until ctx is done. It never fails: a Consumer has more to do than
// to be asked for.
func (p *responder) Run(ctx context.Context) error {
	defer p.settled()
	turn := p.service.turn
	select {
	case turn <- struct{}{}:
	default: // another Consumer of the Service answers
		p.settled()
		select {
		case turn <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
	}
	defer func() { <-turn }()
	for {
		err := p.respond(ctx)
		p.settled()
		if ctx.Err() != nil {
			return nil
		}
		p.log.WarnContext(ctx, "reqreply: the service cannot be asked for now, trying again", "service", p.service.Name, "topic", p.service.Topic, "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(respondPause):
		}
	}
}

// respond reads questions, from now on, until it cannot.
func (p *responder) respond(ctx context.Context) error {
	inner, _ := p.lent.OptValue(kgo.RecordPartitioner).(kgo.Partitioner)
	cl, err := client.Open(p.lent, []kgo.Opt{kgo.FetchMaxWait(respondFetch)},
		kgo.WithContext(ctx),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()),
		kgo.RecordPartitioner(client.Partitioner(inner)),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	opening, cancel := context.WithTimeout(ctx, openWait)
	_, ends, err := endsOf(opening, cl, wherry.TopicSpec{Name: p.service.Topic, Partitions: 1})
	cancel()
	if err != nil {
		return err
	}
	from := map[int32]kgo.Offset{}
	for n, end := range ends {
		from[n] = kgo.NewOffset().At(end)
	}
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{p.service.Topic: from})
	p.settled()
	where := newReach(cl)
	for {
		var lost error
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			for _, r := range f.Records {
				p.reply(ctx, cl, where, r)
			}
			if f.Err != nil && gone(f.Err) {
				lost = fmt.Errorf("reading it: %w", f.Err)
			}
		})
		if lost != nil {
			return lost
		}
	}
}

// reply answers a question, if it is one, and this Service is meant.
func (p *responder) reply(ctx context.Context, cl *kgo.Client, where *reach, r *kgo.Record) {
	a, err := p.names.address(r)
	if err != nil || !a.asks() || !a.awaited(time.Now()) || !allowed(a.topic) {
		return
	}
	var q ServiceQuery
	if len(r.Value) > 0 && json.Unmarshal(r.Value, &q) != nil {
		return
	}
	status := p.service.Status()
	if !q.means(&status) || where.check(ctx, &a) != nil {
		return
	}
	value, err := json.Marshal(status)
	if err != nil {
		return // numbers and strings always marshal
	}
	out := &kgo.Record{Topic: a.topic, Key: r.Key, Value: value, Headers: []kgo.RecordHeader{
		{Key: p.names.CorrelationID, Value: a.id}, {Key: p.names.End, Value: endMark},
	}}
	if a.stated {
		wherry.ToPartition(out, a.partition)
	}
	cl.TryProduce(ctx, out, func(_ *kgo.Record, err error) {
		if err != nil && ctx.Err() == nil {
			p.log.DebugContext(ctx, "reqreply: who asked for the service got no answer", "service", p.service.Name, "error", err)
		}
	})
}
