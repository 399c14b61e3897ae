package saga

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/client"
)

// Start starts a saga: id names it from now on, and s is its first state. It returns
// nil when the start is in the inbox, acknowledged by all in-sync replicas. Then the
// saga will begin, even if no Engine runs now. After an error it may begin or not,
// and starting it again is safe.
//
// A second start of the same id changes nothing while the saga is under way, and for
// Engine.Retention after its end. If its state is a different one, it also becomes a
// dead letter that says so. An id has up to 256 bytes.
//
// Start works without Run, and makes the topics if they do not exist. It opens a
// client, which is closed when it was not used for 10 s and the Engine does not run.
func (e *Engine[S]) Start(ctx context.Context, id string, s S) error {
	sh, err := e.shell()
	if err != nil {
		return fmt.Errorf("starting saga %q: %w", id, err)
	}
	err = checkID(id)
	var payload []byte
	if err == nil {
		if payload, err = sh.latest.encode(&s); payload == nil {
			payload = []byte{}
		}
	}
	if err == nil {
		err = sh.start(ctx, id, payload)
	}
	if err != nil {
		return fmt.Errorf("starting saga %s %q: %w", sh.name, id, err)
	}
	return nil
}

func (s *shell) start(ctx context.Context, id string, payload []byte) error {
	n, err := s.partitions(ctx)
	if err != nil {
		return err
	}
	return s.tell(ctx, startRecord(s.inbox, partitionOf(id, n), id, payload, s.latest.version, s.in.traceparent(ctx)))
}

// tell puts a record into the inbox, and waits until it is acknowledged.
func (s *shell) tell(ctx context.Context, r *kgo.Record) error {
	cl, back, err := s.lender.borrow()
	if err != nil {
		return err
	}
	defer back()
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	told := make(chan error, 1)
	// Not under ctx: kgo fails what is buffered behind a record whose context
	// has ended.
	r.Context = context.WithoutCancel(ctx)
	cl.TryProduce(r.Context, r, func(_ *kgo.Record, err error) { told <- err })
	select {
	case err = <-told:
	case <-ctx.Done():
		return fmt.Errorf("it may be in the inbox or not: %w", context.Cause(ctx))
	}
	switch {
	case errors.Is(err, kerr.MessageTooLarge):
		return &wherry.OutputError{Topic: r.Topic, Key: r.Key, Size: len(r.Key) + len(r.Value), Err: err}
	case err != nil:
		return fmt.Errorf("producing to %s: %w", r.Topic, err)
	}
	return nil
}

// places knows how many partitions count.
type places struct {
	known atomic.Int32
	mu    sync.Mutex
	busy  chan struct{} // not nil while somebody asks
}

// partitions returns how many partitions count; it asks once, and makes the
// topics if need be.
func (s *shell) partitions(ctx context.Context) (int32, error) {
	for {
		if n := s.places.known.Load(); n > 0 {
			return n, nil
		}
		s.places.mu.Lock()
		busy := s.places.busy
		if busy == nil {
			s.places.busy = make(chan struct{})
			s.places.mu.Unlock()
			return s.learnPartitions(ctx)
		}
		s.places.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

func (s *shell) learnPartitions(ctx context.Context) (n int32, err error) {
	defer func() {
		s.places.mu.Lock()
		defer s.places.mu.Unlock()
		if n > 0 { // or Run knows by now
			s.places.known.Store(n)
		}
		close(s.places.busy)
		s.places.busy = nil
	}()
	probe, err := client.Probe(ctx, s.client, s.log)
	if err != nil {
		return 0, err
	}
	defer probe.Close()
	err = patiently(ctx, s.log, func() (err error) {
		n, err = readPartitions(ctx, probe, s.name)
		if n == 0 && (err == nil || errors.Is(err, errNoTopics)) {
			n, err = ensureTopics(ctx, probe, s.name, s.spec, s.log)
		}
		return err
	})
	return n, err
}

// lender lends the client that produces to the inbox, and closes it when nobody
// needs it.
type lender struct {
	lent *kgo.Client

	mu    sync.Mutex
	cl    *kgo.Client
	users int
	idle  *time.Timer
}

// lendFor is how long a client that nobody uses is kept.
const lendFor = 10 * time.Second

// deliveryTimeout is how long a record of the inbox waits for a broker, unless
// the client that was lent says otherwise.
const deliveryTimeout = time.Minute

func (l *lender) borrow() (cl *kgo.Client, back func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cl == nil {
		var opts []kgo.Opt
		if set, _ := l.lent.OptValue(kgo.RecordDeliveryTimeout).(time.Duration); set == 0 {
			opts = append(opts, kgo.RecordDeliveryTimeout(deliveryTimeout))
		}
		cl, err := client.Open(l.lent, opts, kgo.WithContext(context.Background()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err != nil {
			return nil, nil, err
		}
		l.cl = cl
	}
	if l.idle != nil {
		l.idle.Stop()
		l.idle = nil
	}
	l.users++
	return l.cl, l.back, nil
}

func (l *lender) back() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users--; l.users == 0 {
		l.idle = time.AfterFunc(lendFor, l.close)
	}
}

// close closes the client at once if nobody uses it.
func (l *lender) close() {
	l.mu.Lock()
	cl := l.cl
	if l.users > 0 || cl == nil {
		l.mu.Unlock()
		return
	}
	l.cl = nil
	if l.idle != nil {
		l.idle.Stop()
		l.idle = nil
	}
	l.mu.Unlock()
	cl.Close()
}
