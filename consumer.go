package wherry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/client"
)

// Defaults of a [Consumer].
const (
	defaultDrain   = time.Second
	defaultMaxHeld = 10_000
	defaultMaxWait = 5 * time.Minute
	defaultMaxSpan = 1_000_000
	maxHeldBytes   = 4 << 20

	defaultConcurrency = 64 // of orders other than ByPartition
)

// A Consumer is a member of a consumer group that calls a [Handler] for each
// record of its topics.
//
// Delivery is at least once unless it says otherwise: an offset is committed
// only after its record's handler returned nil and its outputs were
// acknowledged. Order says which records are handled one after the other, and
// which side by side.
//
// Its fields must not be changed after Run was called. Ready and Status are
// safe for concurrent use.
type Consumer struct {
	// Client says how to reach the cluster. The Consumer opens a client of its
	// own with the same options and never closes this one, so one client
	// serves many. It is refused if it consumes itself or has an instance or
	// transactional id. Required.
	Client *kgo.Client
	// Group is the consumer group. Required.
	Group string
	// Handlers say which topics to read and what to call. At least one.
	Handlers []Route
	// Policies decide what happens around the handlers, outermost first.
	Policies []Policy
	// Order says which records wait for each other. The zero value is
	// [ByPartition].
	Order Order
	// Delivery is what is promised of effects in Kafka. The zero value is
	// [AtLeastOnce].
	Delivery Delivery
	// Tables are the tables that handlers keep, see [OwnedTable]. They need
	// ExactlyOnce, and all topics that are read must have the same number of
	// partitions, which the tables then have too. With several topics, those of
	// delay topics among them, partitions of one number must go to one member:
	// the group's balancer is then [kgo.RangeBalancer] (which moves all
	// partitions at each rebalance), and Opts must not set another one.
	Tables []Owned
	// Concurrency is how many records, or batches, are handled at once, over
	// all partitions; one that waits in [Wait] is not counted. Partitions take
	// turns. 0 means no limit ByPartition, which is one for each partition,
	// and 64 otherwise.
	Concurrency int
	// Timeout is how long one attempt of a handler may take, without the time
	// that it spends in [Wait]; then its context ends, with a cause that is a
	// [context.DeadlineExceeded]. 0 means no limit.
	Timeout time.Duration
	// MaxWait is the longest that a handler or policy may [Wait]: the record
	// is held all the while, and begins anew after a restart. 0 means 5
	// minutes.
	MaxWait time.Duration
	// From is where a group begins that has committed nothing yet. It is
	// committed at once, so that a second start does not move it. Partitions
	// that are added while the Consumer runs, and the topics that policies
	// subscribe to, are read from their start. The
	// zero value is [Earliest].
	From Position
	// OnReset decides where to go on when the log no longer holds, or does
	// not hold yet, the offset to read: it returns an offset between e.Start
	// and e.End, or an error, with which Run stops. nil stops with e.
	OnReset func(e *OffsetRangeError) (int64, error)
	// Drain is how long records in hand may take when the Consumer stops or
	// loses their partition (then at most half of the group's rebalance
	// timeout, which is 60s unless set). What takes longer is cut short and
	// comes again. 0 means 1s.
	Drain time.Duration
	// MaxHeld is how many records of a partition are in hand or next in line,
	// up to 4 MiB of keys and values. What is fetched beyond waits, and with as
	// many again waiting, or after 1 s, fetching of that partition alone pauses
	// until half are done. 0 means 10,000.
	MaxHeld int
	// MaxSpan is how far, in offsets, the records of a partition may run ahead
	// of the oldest one that has not finished; then fetching of it pauses. 0
	// means 1,000,000.
	//
	// What has finished beyond the oldest is kept in the metadata of commits,
	// up to 3,000 characters: enough for some 1,100 records that wait among a
	// million, or any pattern within 17,000. While it does not fit, only the
	// oldest record begins.
	MaxSpan int64
	// Opts override the options of Client for this Consumer alone: a session
	// timeout, an instance id, a balancer, hooks that register per client.
	// What the guarantees depend on (the group, topics, offsets and their
	// commits, rebalance callbacks) is the Consumer's own and not overridden.
	// A [kgo.RecordPartitioner] belongs to Client: it is asked for every
	// output without a [ToPartition]. The producer of transactions, a client
	// of its own, is like Client and takes of these the compression, the batch
	// size and the least age of metadata.
	Opts []kgo.Opt
	// Logger logs what an operator should know. nil means [slog.Default].
	Logger *slog.Logger

	once    sync.Once
	ready   chan struct{}
	started atomic.Bool
	current atomic.Pointer[run]
}

// Order says which records of a Consumer wait for each other.
type Order int

// Orders.
const (
	// ByPartition handles the records of a partition one after the other.
	ByPartition Order = iota
	// ByKey handles the records of one key one after the other, in the order
	// of their partition; records without a key wait for none.
	ByKey
	// Unordered handles records in any order.
	Unordered
)

// Position is where a new group begins to read; see [Consumer].
type Position int64

// Positions. [At] makes one of a time.
const (
	Earliest Position = 0  // the oldest record that is there
	Latest   Position = -1 // what is produced from now on
)

// At is the position of the first record with a timestamp at or after t, with
// the precision of Kafka's timestamps, 1 ms. t must be after 1 January 1970.
func At(t time.Time) Position { return Position(max(t.UnixMilli(), 1)) }

func (c *Consumer) init() { c.once.Do(func() { c.ready = make(chan struct{}) }) }

// Ready is closed when the Consumer has joined its group and knows from where
// to read the partitions that it was given first, if any. It is never closed
// if Run fails before.
func (c *Consumer) Ready() <-chan struct{} {
	c.init()
	return c.ready
}

// Run consumes until ctx is done or a record cannot be handled, and returns
// when what it started has ended. It can be called once.
//
// At first it checks the configuration, and returns all its faults at once. It
// waits, logging, for a broker to answer and for missing topics to appear; it
// does not wait where that mends nothing, as with refused credentials, or in a
// group whose members share out partitions in another way (another client
// library's, or those of a client with another balancer).
//
// When ctx is done, no further record begins and those in hand get the time
// of Drain; then the finished ones are committed and the group is left, and
// Run returns nil. The context of a handler outlives ctx by that time. If a
// handler still runs after twice Drain, Run returns an error that names its
// record.
//
// An error or panic that no policy handles ends Run in the same way with a
// [*RecordError].
func (c *Consumer) Run(ctx context.Context) error {
	c.init()
	if c.started.Swap(true) {
		return errors.New("this Consumer has run already: make another one")
	}
	r, err := c.prepare()
	if err != nil {
		return fmt.Errorf("consumer %q: %w", c.Group, err)
	}
	if err = r.consume(ctx); err != nil {
		return fmt.Errorf("consumer %q: %w", c.Group, err)
	}
	return nil
}

// prepare checks the configuration and builds the handlers from it.
func (c *Consumer) prepare() (*run, error) {
	faults := []error{client.Check(c.Client)}
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Group == "" {
		fault("no group: set Group")
	}
	if len(c.Handlers) == 0 {
		fault("no handlers: set Handlers")
	}
	if c.Drain < 0 || c.MaxHeld < 0 || c.MaxSpan < 0 || c.MaxWait < 0 || c.Timeout < 0 || c.Concurrency < 0 {
		fault("Drain, MaxHeld, MaxSpan, MaxWait, Timeout and Concurrency must not be negative")
	}
	if c.Order < ByPartition || c.Order > Unordered {
		fault("Order is %d: use ByPartition, ByKey or Unordered", c.Order)
	}
	if c.Delivery < AtLeastOnce || c.Delivery > ExactlyOnce {
		fault("Delivery is %d: use AtLeastOnce or ExactlyOnce", c.Delivery)
	}
	if len(c.Tables) > 0 && c.Delivery != ExactlyOnce {
		fault("Tables are written in transactions: set Delivery to ExactlyOnce")
	}
	if c.From < Latest {
		fault("From is %d: use Earliest, Latest or At", c.From)
	}
	setup := &Setup{Client: c.Client, Group: c.Group, Order: c.Order, MaxWait: c.maxWait(), Logger: c.logger(), Tables: len(c.Tables) > 0}
	routes := map[string][]Route{}
	for i, route := range c.Handlers {
		switch before := routes[route.Topic]; {
		case route.Topic == "":
			fault("handler %d has no topic", i)
		case route.Handler == nil:
			fault("the route of topic %s has no handler", route.Topic)
		case len(before) > 0 && before[len(before)-1].Match == nil:
			fault("topic %s has two routes and the first takes every record: put it last, or set Match", route.Topic)
		case len(before) > 0 && max(route.Size, before[0].Size) > 1:
			fault("topic %s has a route for batches, which must be its only one", route.Topic)
		case route.Size < 0 || route.Linger < 0:
			fault("Size and Linger of the route of topic %s must not be negative", route.Topic)
		}
		if !slices.Contains(setup.Topics, route.Topic) {
			setup.Topics = append(setup.Topics, route.Topic)
		}
		routes[route.Topic] = append(routes[route.Topic], route)
	}
	for i, p := range c.Policies {
		if m, ok := p.(Middleware); p == nil || ok && m == nil {
			fault("policy %d is nil", i)
		} else if prep, ok := p.(Preparer); ok {
			faults = append(faults, prep.Prepare(setup))
		}
	}
	for _, route := range c.Handlers {
		if route.Prepare != nil {
			faults = append(faults, route.Prepare(setup))
		}
	}
	for i, t := range c.Tables {
		if t == nil {
			fault("table %d is nil", i)
			continue
		}
		spec := t.owned()
		if _, read := routes[spec.Name]; read {
			fault("topic %s is a table of this Consumer and has a route", spec.Name)
		}
		if slices.ContainsFunc(c.Tables[:i], func(o Owned) bool { return o != nil && o.owned().Name == spec.Name }) {
			fault("table %s is listed twice", spec.Name)
		}
		if spec.Partitions == 0 && len(setup.Topics) > 0 {
			spec.Like = setup.Topics[0]
		}
		faults = append(faults, checkSpecs([]TopicSpec{spec}))
		setup.Need(spec)
	}
	faults = append(faults, setup.faults...)
	for topic, hop := range setup.hops {
		if _, routed := routes[topic]; routed {
			fault("a policy subscribes to %s as %s, and it has a route of its own", topic, hop.As)
		}
		if _, known := routes[hop.As]; !known {
			fault("a policy subscribes to %s as %s, which has no route", topic, hop.As)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	r := newRun(c, setup)
	for topic, of := range routes {
		r.handlers[topic] = chain(router(of), c.Policies)
		first := of[0]
		for _, route := range of[1:] {
			if first.Key == nil {
				first.Key = route.Key
			}
		}
		r.routes[topic] = first
	}
	for topic, hop := range setup.hops {
		r.handlers[topic] = r.handlers[hop.As]
		r.routes[topic] = r.routes[hop.As]
	}
	return r, nil
}

func (c *Consumer) drain() time.Duration { return cmp.Or(c.Drain, defaultDrain) }

func (c *Consumer) maxWait() time.Duration { return cmp.Or(c.MaxWait, defaultMaxWait) }

func (c *Consumer) maxSpan() int64 { return cmp.Or(c.MaxSpan, defaultMaxSpan) }

func (c *Consumer) concurrency() int {
	if c.Order == ByPartition {
		return c.Concurrency
	}
	return cmp.Or(c.Concurrency, defaultConcurrency)
}

func (c *Consumer) maxHeld() int { return cmp.Or(c.MaxHeld, defaultMaxHeld) }

func (c *Consumer) logger() *slog.Logger {
	log := cmp.Or(c.Logger, slog.Default())
	return log.With("group", c.Group)
}
