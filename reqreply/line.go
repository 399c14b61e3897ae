package reqreply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/client"
)

// line is one run of a Caller: its client, and the calls that wait.
type line struct {
	c    *Caller
	cl   *kgo.Client
	adm  *kadm.Client
	log  *slog.Logger
	life context.Context //nolint:containedctx // of the client and of what is asked with it
	kill context.CancelFunc
	ids  ids
	over chan struct{} // closed when no call can be made any more

	mu    sync.Mutex // never held over a call that blocks
	calls map[uint64]*call
	last  uint64 // the id given last
	used  int    // places: calls that are not both taken by the broker and ended
	ended bool
	hears map[string]*hearing // by reply topic
	asked map[served]*liveness

	asking sync.WaitGroup // goroutines that ask brokers
	timers sync.Pool      // of *time.Timer, stopped
	remade client.Remade

	forgetting sync.Mutex

	sent, answered, late, unknown, others, noResponder atomic.Uint64
}

func openLine(ctx context.Context, c *Caller, log *slog.Logger) (*line, error) {
	l := &line{
		c: c, log: log, ids: newIDs(), over: make(chan struct{}),
		calls: map[uint64]*call{}, hears: map[string]*hearing{}, asked: map[served]*liveness{},
	}
	l.life, l.kill = context.WithCancel(context.WithoutCancel(ctx))
	var defaults []kgo.Opt
	if set, _ := c.Client.OptValue(kgo.RecordDeliveryTimeout).(time.Duration); set == 0 {
		// A request that no broker took in this time is not worth sending.
		defaults = append(defaults, kgo.RecordDeliveryTimeout(defaultTimeout))
	}
	cl, err := client.Open(c.Client, append(defaults, c.Opts...),
		kgo.WithContext(l.life),
		// Where retention has removed what was to be read next, that is late.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()),
	)
	if err != nil {
		l.kill()
		return nil, err
	}
	l.cl, l.adm = cl, kadm.NewClient(cl)
	return l, nil
}

// close ends the calls that wait, and the client.
func (l *line) close() {
	l.mu.Lock()
	l.ended = true
	close(l.over)
	waiting := l.calls
	l.calls = map[uint64]*call{}
	l.mu.Unlock()
	for _, c := range waiting {
		c.fail(ErrEnded)
	}
	l.kill()
	l.asking.Wait()
	l.cl.Close()
}

// poll hands replies to their calls until ctx is done.
func (l *line) poll(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := l.cl.PollFetches(ctx)
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			if h := l.hearing(f.Topic); h != nil && len(f.Records) > 0 {
				l.take(h, f.Records)
			}
			if f.Err != nil && ctx.Err() == nil {
				l.fetchFailed(ctx, f.Topic, f.Partition, f.Err)
			}
		})
	}
}

// take hands the replies of a fetch to their calls.
func (l *line) take(h *hearing, records []*kgo.Record) {
	for _, r := range records {
		is := h.names.reply(r)
		n, ours := l.ids.parse(is.id)
		l.mu.Lock()
		c, made := l.calls[n], n <= l.last && n > 0
		l.mu.Unlock()
		switch {
		case !ours && len(is.id) > 0:
			l.others.Add(1)
		case !ours || !made:
			l.unknown.Add(1)
			l.c.in.stray(l.life, h.topic, "unknown")
		case c == nil || c.topic != r.Topic:
			l.late.Add(1)
			l.c.in.stray(l.life, h.topic, "late")
		default:
			c.put(answer{r, is})
		}
	}
}

func (l *line) fetchFailed(ctx context.Context, topic string, partition int32, err error) {
	l.log.WarnContext(ctx, "reqreply: reading replies failed, trying again", "topic", topic, "partition", partition, "error", err)
	if !gone(err) {
		return
	}
	if h := l.hearing(topic); h != nil {
		l.forget(h, err)
	}
}

// forget ends the calls whose replies would come where h is, for err. The next call
// begins anew.
func (l *line) forget(h *hearing, err error) {
	l.forgetting.Lock()
	defer l.forgetting.Unlock()
	if l.hearing(h.topic) != h {
		return
	}
	l.cl.PurgeTopicsFromConsuming(h.topic) // while h is there nobody adds the topic anew
	l.mu.Lock()
	delete(l.hears, h.topic)
	var waiting []*call
	for _, c := range l.calls {
		if c.topic == h.topic {
			waiting = append(waiting, c)
		}
	}
	l.mu.Unlock()
	for _, c := range waiting {
		c.fail(fmt.Errorf("reading replies from %s: %w", h.topic, err))
	}
}

// gone reports whether a topic was deleted, or may not be read.
func gone(err error) bool {
	return errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) ||
		errors.Is(err, kerr.InconsistentTopicID) || client.Permanent(err)
}

// timer returns one that fires at a time. It is to be stopped and put back.
func (l *line) timer(at time.Time) *time.Timer {
	if t, ok := l.timers.Get().(*time.Timer); ok {
		t.Reset(time.Until(at))
		return t
	}
	return time.NewTimer(time.Until(at))
}

// begin sends the request of a call, which must be given to end.
func (l *line) begin(ctx context.Context, h *hearing, r *kgo.Record, c *call) error {
	c.topic, c.wake, c.queue = h.topic, make(chan struct{}, 1), c.first[:0]
	l.mu.Lock()
	switch {
	case l.ended:
		l.mu.Unlock()
		return ErrEnded
	case l.used >= l.c.maxPending():
		l.mu.Unlock()
		return fmt.Errorf("%w: %d, the Caller's MaxPending", ErrBusy, l.c.maxPending())
	}
	l.used++
	l.last++
	c.line, c.n = l, l.last
	l.calls[c.n] = c
	l.mu.Unlock()

	h.names.ask(r, l.ids.format(c.n, h.names.Binary), h.replyTo)
	// With the values of the call's context and not its end: kgo fails what is
	// buffered behind a record whose context has ended.
	r.Context = context.WithoutCancel(ctx)
	l.sent.Add(1)
	seen := l.remade.Seen(r.Topic)
	l.cl.TryProduce(l.life, r, func(_ *kgo.Record, err error) {
		switch {
		case err == nil:
		case errors.Is(err, kgo.ErrMaxBuffered):
			c.fail(fmt.Errorf("%w: requests of 64 MiB wait for a broker, or what kgo.MaxBufferedBytes says", ErrBusy))
		default:
			c.fail(fmt.Errorf("sending the request: %w", l.endedOr(err)))
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if client.IsRemade(err) && !l.ended {
			l.asking.Go(func() { l.remade.Forget(l.cl, r.Topic, seen) })
		}
		c.acked = true
		l.release(c)
	})
	return nil
}

// endedOr returns ErrEnded for what fails because the client was closed.
func (l *line) endedOr(err error) error {
	if errors.Is(err, kgo.ErrClientClosed) || l.life.Err() != nil {
		return ErrEnded
	}
	return err
}

// end takes a call out of those that wait.
func (l *line) end(c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.calls, c.n)
	c.ended = true
	l.release(c)
}

// release frees the place of a call that is both acked and ended.
func (l *line) release(c *call) {
	if c.acked && c.ended {
		l.used--
	}
}

func (l *line) status(s *CallerStatus) {
	s.Sent, s.Answered, s.Late = l.sent.Load(), l.answered.Load(), l.late.Load()
	s.Unknown, s.Others, s.NoResponder = l.unknown.Load(), l.others.Load(), l.noResponder.Load()
	s.Partitions = map[string]int32{}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Pending = l.used
	for topic, h := range l.hears {
		if h.opened() && h.err == nil {
			s.Partitions[topic] = h.partition
		}
	}
}

// defaultTimeout is how long a call waits whose context has no deadline.
const defaultTimeout = 30 * time.Second
