package wherry_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	wire "github.com/wherry-go/wherry/internal/header"
	"github.com/wherry-go/wherry/internal/lane"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
)

// The workload of the attack on "at least once": orders of every fate, in four
// partitions. A fate is a function of the order and its attempt alone, so that
// each process that handles an order does the same.

// purchase is an order of the workload.
type purchase struct {
	ID   string `json:"id"`
	Kind string `json:"kind"`
	Work int    `json:"work"` // of the handler, in milliseconds
}

// receipt is an output of a purchase.
type receipt struct {
	ID      string `json:"id"`
	Part    int    `json:"part"`
	Attempt int    `json:"attempt"`
	Process string `json:"process"`
	Fails   bool   `json:"fails"` // staged by an attempt that failed: must never be seen
}

var (
	purchases = wherry.Event[purchase]{Topic: "orders"}
	receipts  = wherry.Event[receipt]{Topic: "payments"}
)

// fate is what must become of an order.
type fate struct {
	purchase
	key    string
	at     coord
	fails  int          // attempts that fail before one succeeds; -1: all
	parts  int          // outputs of the one that succeeds
	letter wherry.Cause // of its dead letter, empty if it succeeds
	tries  int          // that its letter names
}

type coord struct {
	topic     string
	partition int32
	offset    int64
}

const crashGroup = "billing"

// The policies under which the workload is run.
const (
	inPlace   = "in place"
	byTopics  = "by topics"
	keepOrder = "by topics in order"
)

var (
	crashInPlace = retry.Policy{Attempts: 3, Initial: 200 * time.Millisecond}            // 200 ms, 400 ms
	crashTopics  = retry.Policy{Attempts: 4, Initial: time.Second, Multiplier: 60}       // 1 s, 1 m, 1 h
	crashDelays  = []time.Duration{0, 0, time.Second, time.Minute, time.Hour}            // before the n-th attempt
	placeDelays  = []time.Duration{0, 0, 200 * time.Millisecond, 400 * time.Millisecond} // the same, in place
)

func crashPolicies(how string) []wherry.Policy {
	dead := &dlq.Queue{Topic: "orders.dead", Gate: dlq.Gate{After: 1000}}
	switch how {
	case byTopics:
		return []wherry.Policy{wherry.Telemetry{}, dead, retry.Topics{Policy: crashTopics}}
	case keepOrder:
		return []wherry.Policy{wherry.Telemetry{}, dead, retry.Topics{Policy: crashTopics, KeepOrder: true}}
	}
	return []wherry.Policy{wherry.Telemetry{}, dead, crashInPlace}
}

// crashFates returns n orders of some 40 keys.
func crashFates(n int, how string) []*fate {
	allowed := 3
	if how != inPlace {
		allowed = 4
	}
	var all []*fate
	for i := range n {
		f := &fate{purchase: purchase{ID: "o-" + strconv.Itoa(i), Kind: "plain", Work: 1 + i*7%13}, key: "k-" + strconv.Itoa(i*11%37), parts: 1}
		switch i % 20 {
		case 0:
			f.Kind, f.fails = "fails once", 1
		case 2:
			f.Kind, f.fails = "fails twice", 2
		case 4:
			f.Kind, f.fails, f.letter, f.tries = "always fails", -1, wherry.CauseExhausted, allowed
		case 6:
			f.Kind, f.fails, f.letter = "undecodable", -1, wherry.CauseUndecodable
		case 8:
			f.Kind, f.fails = "panics once", 1
		case 10:
			f.Kind, f.fails, f.letter, f.tries = "always panics", -1, wherry.CauseExhausted, allowed
		case 12:
			f.Kind, f.fails, f.letter, f.tries = "permanent", -1, wherry.CausePermanent, 1
		case 14, 15:
			f.Kind, f.parts = "quiet", 0
		case 16:
			f.Kind, f.parts = "many", 3
		case 17:
			f.Kind, f.Work = "slow", 300
		case 18:
			if i%40 == 18 {
				f.Kind, f.fails, f.letter, f.tries = "rejected", -1, wherry.CauseRejected, 1
			}
		}
		if f.letter != "" {
			f.parts = 0
		}
		all = append(all, f)
	}
	return all
}

func (f *fate) record() *kgo.Record {
	if f.Kind == "undecodable" {
		return &kgo.Record{Topic: "orders", Key: []byte(f.key), Value: []byte("{" + f.ID)}
	}
	value, _ := json.Marshal(f.purchase)
	return &kgo.Record{Topic: "orders", Key: []byte(f.key), Value: value}
}

// tooLarge is more than topic small takes, however it is compressed.
func tooLarge() []byte {
	b, r := make([]byte, 3000), rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

var errUnlucky = errors.New("out of luck")

// world is one run of the workload, with all that was seen of it.
type world struct {
	t     *testing.T
	k     *kafkatest.Cluster
	row   crashRow
	fates []*fate
	own   *kgo.Client
	begun time.Time

	byID      map[string]*fate
	at        map[coord]*fate
	topicName map[[16]byte]string
	topicID   map[string][16]byte
	later     []func() // checks of commits that name topics not known yet

	mu       sync.Mutex
	calls    []call
	hops     map[coord]hopped // records of delay topics
	covered  map[coord]bool   // offsets that a commit said are done
	faults   []string         // what must not be
	resolved map[string]bool  // orders whose end was acknowledged
	procs    []*member
}

// hopped is a record of a delay topic.
type hopped struct {
	f    *fate
	made int // attempts
}

// call is one call of the handler.
type call struct {
	f          *fate
	process    *member
	attempt    int
	begin, end time.Time
	done       bool // it returned
	dead       bool // its process had crashed
	ok         bool
	cut        bool // its context had ended
}

// crashRow is how the workload is run.
type crashRow struct {
	order    wherry.Order
	how      string
	balancer kgo.GroupOpt // nil: kgo's own
	orders   int          // 0: 200
	server   bool         // balancer is the brokers'
}

func (r crashRow) String() string {
	return []string{"by partition", "by key", "unordered"}[r.order] + ", " + r.how
}

// session is the session timeout of the group's members.
func (w *world) session() time.Duration {
	if w.k.Virtual() {
		return 6 * time.Second
	}
	return 1500 * time.Millisecond
}

func newWorld(t *testing.T, k *kafkatest.Cluster, row crashRow) *world {
	t.Helper()
	w := &world{
		t: t, k: k, row: row, fates: crashFates(cmp.Or(row.orders, 200), row.how), begun: time.Now(),
		byID: map[string]*fate{}, at: map[coord]*fate{}, hops: map[coord]hopped{}, covered: map[coord]bool{}, resolved: map[string]bool{},
	}
	k.Create(t, kafkatest.Topic{Name: "small", Partitions: 1, Config: map[string]string{"max.message.bytes": "1000"}})
	cl := k.Client(t)
	var batch []*kgo.Record
	for _, f := range w.fates {
		batch = append(batch, f.record())
	}
	require.NoError(t, cl.ProduceSync(t.Context(), batch...).FirstErr())
	for i, f := range w.fates {
		f.at = coord{"orders", batch[i].Partition, batch[i].Offset}
		w.byID[f.ID], w.at[f.at] = f, f
	}
	w.learn()
	return w
}

func (w *world) name(topic string, id [16]byte) string {
	if topic != "" {
		return topic
	}
	return w.topicName[id]
}

// learn asks for the ids of all topics: commits may name them so.
func (w *world) learn() {
	all, err := kadm.NewClient(w.k.Client(w.t)).ListTopics(kadm.WithAuthorizedOps(w.t.Context()))
	require.NoError(w.t, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.topicName, w.topicID = map[[16]byte]string{}, map[string][16]byte{}
	for name, d := range all {
		w.topicName[d.ID], w.topicID[name] = name, d.ID
	}
	for _, check := range w.later {
		check()
	}
	w.later = nil
}

func (w *world) fault(format string, args ...any) {
	if len(w.faults) < 20 {
		w.faults = append(w.faults, fmt.Sprintf("%v: ", time.Since(w.begun).Round(time.Millisecond))+fmt.Sprintf(format, args...))
	}
}

// member is one process: a Consumer, its clients and its way to the brokers.
type member struct {
	w        *world
	name     string
	consumer *wherry.Consumer
	stop     func() error
	started  time.Time
	ready    time.Time

	// Guarded by world.mu.
	dead    bool
	crashed time.Time
	cut     bool // off the network
	conns   map[net.Conn]bool
	counts  map[kmsg.Key]int
	watch   map[kmsg.Key]int // at which request of a kind to close hit
	hit     chan struct{}
	handled map[string]int             // attempt that succeeded, by order
	parts   map[string]map[[2]int]bool // acknowledged outputs, by order: attempt and part
	letters map[string]bool
	retried map[string]int // attempts that the acknowledged record of a delay topic tells of
}

// start starts a process and returns when it is ready.
func (w *world) start(name string, edit ...func(*wherry.Consumer)) *member {
	w.t.Helper()
	m := w.member(name, edit...)
	m.stop = kafkatest.Run(w.t, m.consumer)
	m.ready = time.Now()
	w.learn()
	return m
}

func (w *world) member(name string, edit ...func(*wherry.Consumer)) *member {
	w.t.Helper()
	m := &member{
		w: w, name: name, started: time.Now(), conns: map[net.Conn]bool{}, counts: map[kmsg.Key]int{}, watch: map[kmsg.Key]int{}, hit: make(chan struct{}),
		handled: map[string]int{}, parts: map[string]map[[2]int]bool{}, letters: map[string]bool{}, retried: map[string]int{},
	}
	opts := w.k.Opts()
	first, err := kgo.NewClient(opts...)
	require.NoError(w.t, err)
	dial := first.OptValue(kgo.Dialer).(func(context.Context, string, string) (net.Conn, error))
	first.Close()
	cl, err := kgo.NewClient(append(opts, kgo.ClientID(name), kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
		return m.dial(ctx, network, addr, dial)
	}))...)
	require.NoError(w.t, err)
	w.t.Cleanup(cl.Close)
	m.consumer = &wherry.Consumer{
		Client: cl, Group: crashGroup, Order: w.row.order, Policies: crashPolicies(w.row.how),
		Handlers: []wherry.Route{purchases.Handler(m.handle)},
		Opts:     []kgo.Opt{kgo.SessionTimeout(w.session()), kgo.HeartbeatInterval(w.session() / 2), kgo.WithHooks(m)},
	}
	if w.row.order != wherry.ByPartition {
		m.consumer.Concurrency = 6
	}
	if w.row.balancer != nil {
		m.consumer.Opts = append(m.consumer.Opts, w.row.balancer)
	}
	for _, f := range edit {
		f(m.consumer)
	}
	w.mu.Lock()
	w.procs = append(w.procs, m)
	w.mu.Unlock()
	return m
}

// die notes that the process has crashed: what its code does from now on does
// not happen.
func (m *member) die() {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if !m.dead {
		m.dead, m.crashed = true, time.Now()
	}
}

// handle is the handler.
func (m *member) handle(ctx context.Context, p purchase) error {
	w := m.w
	attempt := wherry.Attempt(ctx)
	w.mu.Lock()
	f := w.byID[p.ID]
	n := len(w.calls)
	w.calls = append(w.calls, call{f: f, process: m, attempt: attempt, begin: time.Now(), dead: m.dead})
	w.mu.Unlock()

	err := m.serve(ctx, f, attempt)

	w.mu.Lock()
	c := &w.calls[n]
	c.end, c.done, c.ok, c.cut, c.dead = time.Now(), true, err == nil, ctx.Err() != nil, m.dead
	if err == nil && ctx.Err() == nil {
		m.handled[f.ID] = attempt
		if f.parts == 0 {
			w.resolved[f.ID] = true
		}
	}
	w.mu.Unlock()
	if err != nil && strings.Contains(f.Kind, "panics") && ctx.Err() == nil {
		panic(err)
	}
	return err
}

func (m *member) serve(ctx context.Context, f *fate, attempt int) error {
	fails := f.fails < 0 && f.Kind != "rejected" || attempt <= f.fails
	parts := max(f.parts, 1)
	if f.Kind == "quiet" {
		parts = 0
	}
	for part := range parts {
		r := receipt{ID: f.ID, Part: part, Attempt: attempt, Process: m.name, Fails: fails}
		key := f.key
		if part > 0 {
			key += "-" + strconv.Itoa(part)
		}
		if err := receipts.Publish(ctx, key, r); err != nil {
			return err
		}
	}
	if f.Kind == "rejected" {
		if err := wherry.Publish(ctx, &kgo.Record{Topic: "small", Value: tooLarge()}); err != nil {
			return err
		}
	}
	timer := time.NewTimer(time.Duration(f.Work) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	switch {
	case f.Kind == "permanent":
		return wherry.Permanent(errUnlucky)
	case fails:
		return errUnlucky
	}
	return nil
}

// OnProduceRecordUnbuffered notes what was acknowledged. kgo calls it before
// the Consumer hears of it.
func (m *member) OnProduceRecordUnbuffered(r *kgo.Record, err error) {
	w := m.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		return
	}
	switch {
	case r.Topic == "payments":
		var p receipt
		if json.Unmarshal(r.Value, &p) != nil {
			w.fault("a payment that does not decode: %q", r.Value)
			return
		}
		if m.parts[p.ID] == nil {
			m.parts[p.ID] = map[[2]int]bool{}
		}
		m.parts[p.ID][[2]int{p.Attempt, p.Part}] = true
		if f := w.byID[p.ID]; m.complete(f, 0) {
			w.resolved[p.ID] = true
		}
	case r.Topic == "orders.dead":
		if l, err := dlq.Read(r); err == nil {
			if f := w.at[coord{l.Topic, l.Partition, l.Offset}]; f != nil {
				m.letters[f.ID] = true
				w.resolved[f.ID] = true
			}
		}
	case strings.Contains(r.Topic, ".retry.") && !strings.HasSuffix(r.Topic, ".keys"):
		if h, ok := w.hop(r); ok {
			m.retried[h.f.ID] = max(m.retried[h.f.ID], h.made+1) // 0 is none
		}
	}
}

// complete reports whether all outputs of one attempt after made are
// acknowledged.
func (m *member) complete(f *fate, made int) bool {
	count := map[int]int{}
	for k := range m.parts[f.ID] {
		if k[0] > made {
			count[k[0]]++
		}
	}
	for _, n := range count {
		if n == f.parts {
			return true
		}
	}
	return false
}

func (w *world) hop(r *kgo.Record) (h hopped, ok bool) {
	topic, _ := wire.Get(r, wire.RetryTopic)
	partition, _ := wire.Int(r, wire.RetryPartition)
	offset, _ := wire.Int(r, wire.RetryOffset)
	attempts, ok := wire.Int(r, wire.RetryAttempts)
	f := w.at[coord{topic, int32(partition), offset}]
	return hopped{f, int(attempts)}, ok && f != nil
}

// OnFetchRecordBuffered notes what is in the delay topics.
func (m *member) OnFetchRecordBuffered(r *kgo.Record) {
	if !strings.Contains(r.Topic, ".retry.") || strings.HasSuffix(r.Topic, ".keys") {
		return
	}
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if h, ok := m.w.hop(r); ok {
		m.w.hops[coord{r.Topic, r.Partition, r.Offset}] = h
	}
}

// dial connects through the way of this process, on which its requests are
// seen, and which may be cut.
func (m *member) dial(ctx context.Context, network, addr string, dial func(context.Context, string, string) (net.Conn, error)) (net.Conn, error) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	off := func() bool { m.w.mu.Lock(); defer m.w.mu.Unlock(); return m.cut }
	if off() {
		return nil, refused
	}
	c, err := dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	m.w.mu.Lock()
	m.conns[c] = true
	m.w.mu.Unlock()
	if off() {
		_ = c.Close()
		return nil, refused
	}
	return &tapped{c, m}, nil
}

// unplug takes the process off the network, alone, and plug back onto it.
func (m *member) unplug() {
	m.w.mu.Lock()
	m.cut = true
	var all []net.Conn
	for c := range m.conns {
		all = append(all, c)
	}
	clear(m.conns)
	m.w.mu.Unlock()
	for _, c := range all {
		_ = c.Close()
	}
}

func (m *member) plug() {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.cut = false
}

// tapped is a connection whose requests are seen. kgo writes each at once.
type tapped struct {
	net.Conn
	m *member
}

func (c *tapped) Close() error {
	c.m.w.mu.Lock()
	delete(c.m.conns, c.Conn)
	c.m.w.mu.Unlock()
	return c.Conn.Close()
}

func (c *tapped) Write(b []byte) (int, error) {
	if len(b) > 12 {
		c.m.seen(kmsg.Key(binary.BigEndian.Uint16(b[4:])), int16(binary.BigEndian.Uint16(b[6:])), b[8:])
	}
	return c.Conn.Write(b)
}

// seen is called before each request leaves.
func (m *member) seen(key kmsg.Key, version int16, rest []byte) {
	w := m.w
	w.mu.Lock()
	defer w.mu.Unlock()
	m.counts[key]++
	if n, ok := m.watch[key]; ok && m.counts[key] == n {
		delete(m.watch, key)
		close(m.hit)
	}
	if key != kmsg.OffsetCommit {
		return
	}
	req := kmsg.NewPtrOffsetCommitRequest()
	req.SetVersion(version)
	b := kbin.Reader{Src: rest[4:]}
	b.NullableString()
	if req.IsFlexible() {
		kmsg.SkipTags(&b)
	}
	if err := req.ReadFrom(b.Src); err != nil {
		w.fault("a commit that does not parse: %v", err)
		return
	}
	for _, t := range req.Topics {
		check := func() {
			for _, p := range t.Partitions {
				m.committed(w.name(t.Topic, t.TopicID), p)
			}
		}
		if w.name(t.Topic, t.TopicID) == "" {
			w.later = append(w.later, check) // the topic was made a moment ago
			continue
		}
		check()
	}
}

// committed checks one partition of a commit, before it leaves: all that it
// says is done must be, and acknowledged.
func (m *member) committed(topic string, p kmsg.OffsetCommitRequestTopicPartition) {
	check := func(offset int64) {
		at := coord{topic, p.Partition, offset}
		if m.w.covered[at] {
			return
		}
		m.w.covered[at] = true
		if why := m.undone(at); why != "" {
			m.w.fault("%s commits %s/%d at %d, and %d is not done: %s", m.name, topic, p.Partition, p.Offset, offset, why)
		}
	}
	for o := p.Offset - 1; o >= 0 && !m.w.covered[coord{topic, p.Partition, o}]; o-- {
		check(o)
	}
	if p.Metadata == nil || *p.Metadata == "" {
		return
	}
	runs, err := lane.Decode(*p.Metadata, m.w.topicID[topic], p.Offset)
	if err != nil {
		m.w.fault("%s commits %s/%d with a finished set that does not decode: %v", m.name, topic, p.Partition, err)
	}
	for _, r := range runs {
		for o := r.Begin; o < r.End; o++ {
			check(o)
		}
	}
}

// undone says why a record does not count as done, for this process.
func (m *member) undone(at coord) string {
	h := hopped{f: m.w.at[at]}
	if at.topic != "orders" {
		h = m.w.hops[at]
	}
	switch f := h.f; {
	case f == nil:
		return "it is not known"
	case m.letters[f.ID], m.retried[f.ID] > h.made+1:
		return ""
	case m.w.row.how == keepOrder && m.retried[f.ID] > h.made: // sent behind another, without an attempt
		return ""
	case f.letter != "":
		return f.ID + " (" + f.Kind + ") has no letter and no retry"
	case m.handled[f.ID] <= h.made:
		return f.ID + " (" + f.Kind + ") was not handled"
	case f.parts > 0 && !m.complete(f, h.made):
		return fmt.Sprintf("of the outputs of %s (%s) only %v are acknowledged", f.ID, f.Kind, m.parts[f.ID])
	}
	return ""
}
