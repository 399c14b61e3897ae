package saga

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
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/client"
	"github.com/wherry-go/wherry/reqreply"
)

// Defaults of an [Engine].
const (
	defaultMaxActive = 1_000_000
	defaultRetention = time.Hour
	defaultMaxEarly  = 10_000
	mostEnded        = 1_000_000 // of a partition
)

// An Engine runs the sagas of one name. Any number of processes may run one: they
// share the sagas among them, and take over those of a process that ends.
//
// All that is known of the sagas is in two topics, see [TopicSpecs]. Whatever
// happens to a saga is a record in its inbox. The owner of the partition takes it
// in, and what the saga then does, what it becomes, and how far the inbox was read
// are one Kafka transaction. So a saga does nothing twice and forgets nothing, for
// those who read with isolation.level=read_committed, as the Consumers of this
// library do. What a [Local] step does outside Kafka is done at least once.
//
// Its fields must not be changed once a method was called; its methods are safe
// for concurrent use. All but Ready work without Run. Queries and verbs ask an Engine
// that runs somewhere, except List and Count, which read the state topic.
type Engine[S any] struct {
	// Client says how to reach the cluster; see [wherry.Consumer].Client.
	// Required.
	Client *kgo.Client
	// Definitions are the versions of the saga: of one Name, each with a Version
	// of its own. New sagas begin with the highest; those of a version that is
	// not there are parked until it is. At least one.
	Definitions []Definition[S]
	// Concurrency is how many inputs are handled at once, over all partitions. The
	// Local steps of a saga run as part of handling its input. 0 means 64.
	Concurrency int
	// MaxActive is how many sagas of a partition may be active, that is begun and
	// not ended. Further ones wait as [Queued] and begin as others end, in order
	// (except among those whose starts were handled at the same time). 0 means
	// 1,000,000.
	MaxActive int
	// Retention is how long an ended saga, and how it ended, is remembered. For that
	// long a second start of it changes nothing. At most 1,000,000 are remembered
	// per partition, and the oldest are forgotten first. 0 means 1 h.
	Retention time.Duration
	// MaxEarly is how many events per partition may wait for their saga, or for the
	// step that awaits them. Further ones become dead letters, with
	// [wherry.CauseExpired]. 0 means 10,000.
	MaxEarly int
	// EventTTL is how long such an event waits before it becomes a dead letter.
	// 0 means 1 h.
	EventTTL time.Duration
	// Gate holds back the attempts at a step while all of them fail.
	Gate Gate
	// Topics says more of the topics that are made because they do not exist:
	// partitions, replicas, settings; see [TopicSpecs]. Name is ignored.
	Topics wherry.TopicSpec
	// OnStuck is called when a saga is stuck: an undo, or a step after the pivot, has
	// failed for Definition.StuckAfter. It is usually called once, and again if the
	// transaction that records it has to be made again. It should be quick, since
	// the saga waits for it. nil means that a line is logged.
	OnStuck func(ctx context.Context, s Stuck)
	// Caller makes the requests of Get, Wait, Why and the verbs. nil means one that
	// runs as long as Run does, and without Run for the length of a call.
	Caller *reqreply.Caller
	// Opts override the options of Client for the Consumer of the inbox. The
	// Consumers of events have only Client's, so a session timeout, for example, is
	// better set there.
	Opts []kgo.Opt
	// TracerProvider and Propagator are for spans, MeterProvider for metrics: see
	// the package's text. nil means the global ones.
	TracerProvider trace.TracerProvider
	Propagator     propagation.TextMapPropagator
	MeterProvider  metric.MeterProvider
	// Logger logs what an operator should know. nil means [slog.Default].
	Logger *slog.Logger

	once   sync.Once
	shell_ *shell
	faults error
	run    running
}

// running is the one run of an Engine.
type running struct {
	started atomic.Bool
	ready   chan struct{}
}

// Stuck says which saga is.
type Stuck struct {
	ID    string
	Step  string
	Since time.Time // when it began to fail
	Err   string    // the last failure
}

// shell is an Engine without the type of its sagas' state: the I/O around the
// machine.
type shell struct {
	name        string
	client      *kgo.Client // lent
	plans       map[int]*plan
	latest      *plan
	warnings    []string           // of all definitions
	profiles    []reqreply.Profile // of what is called
	concurrency int
	maxActive   int
	retention   time.Duration
	maxEarly    int
	eventTTL    time.Duration
	spec        wherry.TopicSpec
	onStuck     func(context.Context, Stuck)
	opts        []kgo.Opt
	meters      metric.MeterProvider
	log         *slog.Logger
	in          *instruments

	inbox  string
	lender lender
	places places
	clock  *clock
	gates  *breakers
	table  *wherry.OwnedTable[[]byte]

	desk      *desk
	inspector *Inspector

	root     context.Context                 //nolint:containedctx // the values of Run's, for local steps
	consumer atomic.Pointer[wherry.Consumer] // while it runs
}

// shell returns what the Engine is made into, or all its faults.
func (e *Engine[S]) shell() (*shell, error) {
	e.once.Do(func() {
		e.run.ready = make(chan struct{})
		e.shell_, e.faults = e.make()
	})
	return e.shell_, e.faults
}

func (e *Engine[S]) make() (*shell, error) {
	faults := []error{client.Check(e.Client)}
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	s := &shell{
		client: e.Client, plans: map[int]*plan{},
		concurrency: cmp.Or(e.Concurrency, 64), maxActive: cmp.Or(e.MaxActive, defaultMaxActive),
		retention: cmp.Or(e.Retention, defaultRetention), maxEarly: cmp.Or(e.MaxEarly, defaultMaxEarly), eventTTL: e.EventTTL,
		spec: e.Topics, onStuck: e.OnStuck, opts: e.Opts, meters: e.MeterProvider,
	}
	if len(e.Definitions) == 0 {
		fault("no definitions: set Definitions")
	}
	if e.Concurrency < 0 || e.MaxActive < 0 || e.Retention < 0 || e.MaxEarly < 0 || e.EventTTL < 0 {
		fault("Concurrency, MaxActive, Retention, MaxEarly and EventTTL must not be negative")
	}
	faults = append(faults, e.Gate.check())
	for i, d := range e.Definitions {
		p, err := compile(d)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		if i == 0 || s.name == "" {
			s.name = p.name
		}
		switch {
		case p.name != s.name:
			fault("definitions of %q and of %q: an Engine runs the sagas of one name", s.name, p.name)
		case s.plans[p.version] != nil:
			fault("two definitions of %q have version %d: give each a Version of its own", p.name, p.version)
		}
		s.plans[p.version] = p
		s.warnings = append(s.warnings, d.Warnings()...)
		if s.latest == nil || p.version > s.latest.version {
			s.latest = p
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	s.profiles = profiles(s.plans)
	s.inbox = inboxTopic(s.name)
	s.log = cmp.Or(e.Logger, slog.Default()).With("saga", s.name)
	s.lender.lent = e.Client
	s.clock, s.gates = newClock(s.inbox, s.maxActive), newBreakers(e.Gate)
	s.in = newInstruments(s, e.TracerProvider, e.Propagator, e.MeterProvider)
	s.table = &wherry.OwnedTable[[]byte]{
		Topic: stateTopic(s.name), Codec: raw{},
		Spec: TopicSpecs(s.name, s.spec)[1],
		Index: func(partition int32) wherry.TableIndex {
			return newIndex(partition, s.clock, s.ended, func(version int) bool { return s.plans[version] != nil })
		},
	}
	s.table.Spec.Partitions = 0
	return s, s.clients(e.Caller)
}

// profiles are those of all that is called, the default one first.
func profiles(plans map[int]*plan) []reqreply.Profile {
	all := []reqreply.Profile{{}}
	for _, p := range plans {
		for i := range p.steps {
			for _, a := range []act{p.steps[i].do, p.steps[i].undo} {
				name := reqreply.Profile{CorrelationID: a.profile.CorrelationID}
				if a.kind == actCall && !slices.Contains(all, name) {
					all = append(all, name)
				}
			}
		}
	}
	return all
}

// raw is the Codec of bytes as they are.
type raw struct{}

func (raw) Encode(r *kgo.Record, v any) error { r.Value = v.([]byte); return nil }

func (raw) Decode(r *kgo.Record, v any) error { *v.(*[]byte) = r.Value; return nil } // which is a copy, or is not changed

// Ready is closed when the Engine has joined its groups, reads the events that its
// Definitions name, and has read back the sagas of the partitions that it was first
// given, if any. It is never closed if Run fails before that.
func (e *Engine[S]) Ready() <-chan struct{} {
	_, _ = e.shell()
	return e.run.ready
}

// EngineStatus is what an Engine is doing; see [Engine.Status].
type EngineStatus struct {
	// Ready is whether the channel of [Engine.Ready] is closed and Run has not
	// ended.
	Ready bool
	// Partitions is how many partitions the sagas are spread over, 0 until that is
	// known; see [TopicSpecs].
	Partitions int32
	// Inbox is the state of the Consumer of the inbox, with the partitions that
	// this process owns: how far each was read, and how much of its sagas is left
	// to be read back.
	Inbox wherry.Status
	// Active, Queued and Ended are how many sagas of those partitions are in that
	// state; Ended are those that are still known. Early is how many events wait,
	// and Timers how many sagas have something due at some time.
	Active, Queued, Ended, Early, Timers int
	// Held is about how many attempts the Gates hold.
	Held int
}

// Status returns what the Engine is doing. It asks no broker.
func (e *Engine[S]) Status() (st EngineStatus) {
	s, err := e.shell()
	if err != nil {
		return st
	}
	st.Partitions = s.places.known.Load()
	c := s.consumer.Load()
	if c == nil {
		return st
	}
	st.Inbox, st.Held = c.Status(), s.gates.held()
	select {
	case <-e.run.ready:
		st.Ready = st.Inbox.Ready
	default:
	}
	all := s.sums(false)
	st.Active, st.Queued, st.Ended, st.Early, st.Timers = all.active, all.queued, all.ended, all.early, all.timers
	return st
}

// sums are those of all partitions.
func (s *shell) sums(oldest bool) (all sums) {
	for _, x := range s.clock.all() {
		one := x.sums(oldest)
		all.active, all.queued, all.early = all.active+one.active, all.queued+one.queued, all.early+one.early
		all.ended, all.timers = all.ended+one.ended, all.timers+one.timers
		if one.oldest > 0 && (all.oldest == 0 || one.oldest < all.oldest) {
			all.oldest = one.oldest
		}
	}
	return all
}
