package wherry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/client"
	"github.com/wherry-go/wherry/internal/lane"
)

// pauseAfter is how long a lane may be full before its partition is paused.
const pauseAfter = time.Second

// Causes of the contexts of work that is cut short.
var (
	errRevoked  = errors.New("the partition was taken away")
	errShutdown = errors.New("the Consumer stops")
	errReturned = errors.New("the handler has returned")
)

// run is one run of a Consumer: its client, its partitions, its end.
type run struct {
	c        *Consumer
	log      *slog.Logger
	setup    *Setup             // what the policies declared
	handlers map[string]Handler // by the topic read
	routes   map[string]Route   // by the topic read, the first
	pool     *lane.Pool
	known    map[string]int32 // how many partitions each topic had at the start
	ids      map[string]kadm.TopicID
	kill     context.CancelFunc // ends the client, whatever it waits for
	working  context.Context    // done when no further record may begin

	opened      chan struct{} // closed when the four below are set; callbacks of cl may come before
	cl          *kgo.Client
	adm         *kadm.Client
	limit       int             // largest record that the client produces
	partitioner kgo.Partitioner // the lent client's, nil for kgo's
	base        context.Context // of all work: it has the values of Run's context and outlives it
	stop        context.CancelCauseFunc

	mu         sync.Mutex // never held over a call that blocks
	partitions map[topicPartition]*partition
	cut        []*partition            // taken away while a handler ran
	ending     bool                    // no lane is opened any more
	topics     map[string]kadm.TopicID // ids, as far as they were asked for
	fetched    map[fetchedFrom]string  // metadata of the group's offsets

	setLimit   atomic.Int32  // how long a finished set may be
	progress   chan struct{} // a record finished
	told       atomic.Bool   // something is in progress, or soon is
	room       chan struct{} // a lane is no longer full
	resend     resend        // outputs that failed for another's sake, and those that come last
	remade     client.Remade
	committing chan struct{} // holds one token: whoever has it may commit
	joined     sync.Once
	failed     atomic.Pointer[error]

	exact *exact // nil unless Delivery is ExactlyOnce

	followers    sync.WaitGroup
	endFollowers context.CancelFunc
}

type topicPartition struct {
	topic     string
	partition int32
}

func (tp topicPartition) String() string { return fmt.Sprintf("%s/%d", tp.topic, tp.partition) }

// partition is an assigned partition. lane, member and topicPartition never change;
// the rest is guarded by run.mu.
type partition struct {
	topicPartition
	lane      *lane.Lane
	member    string       // the member id that it was assigned to
	placed    bool         // where to read from is decided
	id        kadm.TopicID // of the topic, as of then
	committed int64        // the group's offset, -1 if unknown
	changes   uint64       // of the lane, as of that commit
	next      int64        // the offset after the last record that was fetched, -1 if unknown
	end       int64        // the high watermark as last heard of, -1 if unknown
	paused    bool
	fullSince time.Time // while it is full and not paused
}

func newRun(c *Consumer, setup *Setup) *run {
	r := &run{
		c: c, log: setup.Logger, setup: setup,
		handlers:   map[string]Handler{},
		routes:     map[string]Route{},
		pool:       lane.NewPool(c.concurrency()),
		topics:     map[string]kadm.TopicID{},
		fetched:    map[fetchedFrom]string{},
		known:      map[string]int32{},
		ids:        map[string]kadm.TopicID{},
		partitions: map[topicPartition]*partition{},
		opened:     make(chan struct{}),
		progress:   make(chan struct{}, 1),
		room:       make(chan struct{}, 1),
		committing: make(chan struct{}, 1),
	}
	r.setLimit.Store(lane.MaxText)
	if c.Delivery == ExactlyOnce {
		r.exact = &exact{run: r, tables: newTables(c.Tables)}
	}
	return r
}

// consume joins the group and works until ctx is done or something fails.
func (r *run) consume(ctx context.Context) error {
	pollCtx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	r.stop, r.working = stop, pollCtx
	defer r.unfollow()
	if err := r.open(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop before anything was begun
		}
		return err
	}
	r.c.current.Store(r)
	defer r.c.current.Store(nil)
	r.log.InfoContext(ctx, "consumer: joining", "topics", slices.Sorted(maps.Keys(r.handlers)))

	var loops sync.WaitGroup
	loopCtx, endLoops := context.WithCancel(r.base)
	loops.Go(func() { r.commitLoop(loopCtx) })

	r.poll(pollCtx)

	stuck := r.shutdown(func() { endLoops(); loops.Wait() })
	if e := r.failed.Load(); e != nil {
		return errors.Join(*e, stuck)
	}
	r.log.InfoContext(ctx, "consumer: stopped")
	return stuck
}

// open waits for a broker and opens the client that consumes.
func (r *run) open(ctx context.Context) error {
	probe, err := client.Probe(ctx, r.c.Client, r.log)
	if err != nil {
		return err
	}
	defer probe.Close()
	topics := slices.Sorted(maps.Keys(r.handlers))
	if err := r.awaitOrigins(ctx, probe); err != nil {
		return err
	}
	found, err := r.ask(ctx, probe, topics)
	if err != nil {
		return err
	}
	if len(r.setup.needs) > 0 {
		if err := EnsureTopics(ctx, probe, r.setup.needs...); err != nil {
			return err
		}
	}
	for _, topic := range topics {
		d := found[topic]
		if d.Err != nil && client.Permanent(d.Err) {
			return fmt.Errorf("topic %s: %w", topic, d.Err)
		}
		r.known[topic], r.ids[topic] = int32(len(d.Partitions)), d.ID
		if len(d.Partitions) == 0 {
			r.log.WarnContext(ctx, "consumer: the topic does not exist yet, waiting for it", "topic", topic)
		}
	}
	if err := r.tablesFit(ctx, probe, topics); err != nil {
		return err
	}
	r.base = r.setup.withValues(context.WithoutCancel(ctx))
	if err := r.follow(ctx); err != nil {
		return err
	}
	r.partitioner, _ = r.c.Client.OptValue(kgo.RecordPartitioner).(kgo.Partitioner)
	life, kill := context.WithCancel(r.base)
	r.kill = kill
	musts := []kgo.Opt{
		kgo.WithContext(life), // and not the lent client's, nor Run's: work in hand outlives it
		kgo.ConsumerGroup(r.c.Group),
		kgo.ConsumeTopics(topics...),
		kgo.DisableAutoCommit(),
		// Records that were polled reach their lanes before their partition
		// can be taken away: see poll.
		kgo.BlockRebalanceOnPoll(),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtCommitted()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		// The group's offset passes the marks of transactions too: what stands
		// before the end of a log would look like lag for ever.
		kgo.KeepControlRecords(),
		kgo.OnOffsetsFetched(r.offsetsFetched),
		kgo.AdjustFetchOffsetsFn(r.positions),
		kgo.OnPartitionsAssigned(r.assigned),
		kgo.OnPartitionsRevoked(r.revoked),
		kgo.OnPartitionsLost(r.lost),
		kgo.RecordPartitioner(client.Partitioner(r.partitioner)),
	}
	if r.exact != nil {
		musts = append(musts, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	if len(r.c.Tables) > 0 && len(topics) > 1 {
		musts = append(musts, kgo.Balancers(kgo.RangeBalancer()))
	}
	cl, err := client.Open(r.c.Client, r.c.Opts, musts...)
	if err != nil {
		kill()
		return err
	}
	r.cl, r.adm = cl, kadm.NewClient(cl)
	if n, ok := cl.OptValue(kgo.ProducerBatchMaxBytes).(int32); ok {
		r.limit = int(n)
	}
	close(r.opened)
	return nil
}

// ask asks for the topics until a broker tells.
func (r *run) ask(ctx context.Context, probe *kgo.Client, topics []string) (kadm.TopicDetails, error) {
	for {
		found, err := listTopics(ctx, kadm.NewClient(probe), topics)
		if err == nil || ctx.Err() != nil || client.Permanent(err) {
			return found, err
		}
		r.log.WarnContext(ctx, "consumer: asking for the topics failed, trying again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// poll feeds records to the lanes of their partitions until ctx is done. A
// rebalance waits between PollFetches and AllowRebalance, so no record reaches
// a lane of a later assignment than its own.
func (r *run) poll(ctx context.Context) {
	for ctx.Err() == nil {
		room, again := r.pause()
		if !room && again > 0 {
			r.awaitRoom(ctx, again)
			continue
		}
		fetches := r.fetch(ctx, again)
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			tp := topicPartition{f.Topic, f.Partition}
			if len(f.Records) > 0 {
				r.feed(tp, f.Records, f.HighWatermark)
			}
			if f.Err != nil && ctx.Err() == nil && !errors.Is(f.Err, context.DeadlineExceeded) {
				r.fetchFailed(ctx, tp, f.Err)
			}
		})
		r.cl.AllowRebalance()
	}
}

// fetch polls, until there is something or, unless it is 0, a time is over.
func (r *run) fetch(ctx context.Context, limit time.Duration) kgo.Fetches {
	if limit > 0 {
		limited, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		ctx = limited
	}
	return r.cl.PollFetches(ctx)
}

func (r *run) feed(tp topicPartition, records []*kgo.Record, end int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.partitions[tp]
	if p == nil || len(records) == 0 {
		return
	}
	p.end, p.next = end, records[len(records)-1].Offset+1
	p.lane.Feed(records)
}

// pause pauses fetching for lanes that are full and have as much again in their
// backlog, or have been full for long. Not at once, because kgo drops what it
// has fetched of a partition that is paused, to be fetched again: that is for
// partitions whose handler is slow, not for each time that fetching is faster.
// It reports whether any lane has room, and when to look again, 0 if not for a
// full lane.
func (r *run) pause() (room bool, again time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	room = len(r.partitions) == 0
	for tp, p := range r.partitions {
		switch {
		case p.paused:
		case !p.lane.Full():
			p.fullSince, room = time.Time{}, true
		case p.fullSince.IsZero():
			p.fullSince, again = time.Now(), pauseAfter
		case p.lane.Backlog() < r.c.maxHeld() && time.Since(p.fullSince) < pauseAfter:
			again = max(again, pauseAfter-time.Since(p.fullSince))
		default:
			p.paused, p.fullSince = true, time.Time{}
			r.cl.PauseFetchPartitions(map[string][]int32{tp.topic: {tp.partition}})
		}
	}
	return room, again
}

// awaitRoom waits until a lane has room, for so long.
func (r *run) awaitRoom(ctx context.Context, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-r.room:
	case <-timer.C:
	}
}

// madeRoom is called when a lane is no longer full. It fetches again what was
// paused.
func (r *run) madeRoom() {
	r.mu.Lock()
	for tp, p := range r.partitions {
		if p.paused && !p.lane.Full() {
			p.paused = false
			r.cl.ResumeFetchPartitions(map[string][]int32{tp.topic: {tp.partition}})
		}
	}
	r.mu.Unlock()
	select {
	case r.room <- struct{}{}:
	default:
	}
}

// fail ends the run with err; the first error counts.
func (r *run) fail(err error) {
	r.failed.CompareAndSwap(nil, &err)
	r.stop(err)
}
