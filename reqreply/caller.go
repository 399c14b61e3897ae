package reqreply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/client"
)

const (
	defaultMaxPending = 10_000
	scope             = "github.com/wherry-go/wherry/reqreply"
)

// A Caller makes calls: it sends requests and reads their replies. One serves any
// number of goroutines, and any [Method].
//
// Of each reply topic it reads one partition, drawn by chance, from where its
// end was before the first request was sent, without a consumer group: so
// starting one disturbs no other, and any number of Callers share a few
// partitions. Each reads, and passes over, what the others of its partition
// get; more partitions make that less.
//
// It reads committed replies only, unless Opts say otherwise
// (kgo.FetchIsolationLevel): then a reply of a server with wherry.ExactlyOnce
// may be one that is taken back. Committed ones come in order, so a transaction
// that is open on a partition holds up all replies behind it there.
//
// Its fields must not be changed once a method was called; its methods are safe
// for concurrent use.
type Caller struct {
	// Client says how to reach the cluster; see [wherry.Consumer].Client. The
	// Caller opens one of its own. Required.
	Client *kgo.Client
	// Methods are those whose reply topics are read before Ready is closed. For
	// others that begins with the first call, which takes some milliseconds
	// longer, and where another reply topic is read already up to FetchMaxWait
	// (500 ms by default).
	Methods []AnyMethod
	// MaxPending is how many calls may be in hand: waiting for a reply, or for
	// the broker to take the request. One more fails with [ErrBusy]. 0 means
	// 10,000.
	MaxPending int
	// Topics says more of the reply topics that are made because they do not
	// exist: partitions, replicas, settings. Name is ignored. Those that exist
	// are taken as they are.
	Topics wherry.TopicSpec
	// Opts override the options of Client for this Caller alone.
	Opts []kgo.Opt
	// TracerProvider and Propagator are for the span of each call, "call
	// <topic>", whose trace the request carries in its headers. nil means the
	// global ones.
	TracerProvider trace.TracerProvider
	Propagator     propagation.TextMapPropagator
	// MeterProvider is for the metrics wherry.reqreply.call.duration,
	// wherry.reqreply.active_calls and wherry.reqreply.stray_replies: see the
	// package's text. nil means the global one.
	MeterProvider metric.MeterProvider
	// Logger logs what an operator should know. nil means [slog.Default].
	Logger *slog.Logger

	once    sync.Once
	started atomic.Bool
	ready   chan struct{}
	ended   chan struct{} // closed when Run has returned
	line    *line         // set before ready is closed
	in      *instruments
}

// CallerStatus is what a Caller is doing and has done; see [Caller.Status].
type CallerStatus struct {
	Ready      bool             // whether calls can be made
	Pending    int              // calls in hand
	Partitions map[string]int32 // which partition of each reply topic is read
	Sent       uint64           // requests
	Answered   uint64           // replies that a call took
	// Late are replies to calls of this Caller that have ended: they came after
	// the deadline, or were not the first where one was asked for.
	Late uint64
	// Unknown are records that are no reply: without a correlation id, or with
	// one of this Caller that it never made.
	Unknown uint64
	// Others are replies to other Callers that share the partition.
	Others uint64
	// NoResponder is how many calls failed with [ErrNoResponder].
	NoResponder uint64
}

func (c *Caller) init() {
	c.once.Do(func() {
		c.ready, c.ended = make(chan struct{}), make(chan struct{})
		c.in = newInstruments(c.TracerProvider, c.MeterProvider)
	})
}

// Ready is closed when calls can be made. It is never closed if Run fails
// before.
func (c *Caller) Ready() <-chan struct{} {
	c.init()
	return c.ready
}

// Run reads replies until ctx is done, and then returns nil. It can be called
// once. Calls that wait at its end fail at once with [ErrEnded].
//
// It waits, logging, for a broker to answer, and goes on when leaders move or
// brokers restart: a call whose reply is delayed by that waits until its
// deadline. It makes reply topics that do not exist, for which it needs the
// right CREATE, and DESCRIBE_CONFIGS, on them; for the others it needs READ and
// DESCRIBE.
func (c *Caller) Run(ctx context.Context) (err error) {
	c.init()
	if c.started.Swap(true) {
		return errors.New("this Caller has run already: make another one")
	}
	defer close(c.ended)
	defer func() {
		if ctx.Err() != nil {
			err = nil
		}
		if err != nil {
			err = fmt.Errorf("caller: %w", err)
		}
	}()
	if err := c.check(); err != nil {
		return err
	}
	log := cmp.Or(c.Logger, slog.Default())
	probe, err := client.Probe(ctx, c.Client, log)
	if err != nil {
		return err
	}
	probe.Close()
	l, err := openLine(ctx, c, log)
	if err != nil {
		return err
	}
	defer l.close()
	for _, m := range c.Methods {
		topic, names := m.replies()
		if _, err := l.listen(ctx, topic, names); err != nil {
			return err
		}
	}
	c.line = l
	close(c.ready)
	l.poll(ctx)
	return nil
}

func (c *Caller) check() error {
	faults := []error{client.Check(c.Client)}
	if c.MaxPending < 0 {
		faults = append(faults, errors.New("MaxPending must not be negative"))
	}
	for i, m := range c.Methods {
		if m == nil {
			faults = append(faults, fmt.Errorf("method %d is nil", i))
		} else {
			faults = append(faults, m.check())
		}
	}
	return errors.Join(faults...)
}

func (c *Caller) maxPending() int { return cmp.Or(c.MaxPending, defaultMaxPending) }

func (c *Caller) propagator() propagation.TextMapPropagator {
	if c.Propagator != nil {
		return c.Propagator
	}
	return otel.GetTextMapPropagator()
}

// await waits until calls can be made.
func (c *Caller) await(ctx context.Context) (*line, error) {
	c.init()
	select {
	case <-c.ready:
		return c.line, nil
	default:
	}
	select {
	case <-c.ready:
		return c.line, nil
	case <-c.ended:
		return nil, ErrEnded
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the Caller's Run to be ready: %w", whyOver(ctx))
	}
}

// Status returns what the Caller is doing. It asks no broker.
func (c *Caller) Status() (s CallerStatus) {
	c.init()
	select {
	case <-c.ready:
	default:
		return s
	}
	select {
	case <-c.ended:
	default:
		s.Ready = true
	}
	c.line.status(&s)
	return s
}
