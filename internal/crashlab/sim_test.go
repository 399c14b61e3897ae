package crashlab

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/kafkatest"
)

var (
	seeds    = flag.Int("lab.seeds", 102, "how many seeds a simulation runs")
	seedFrom = flag.Uint64("lab.seed", 1, "the first of them")
	verbose  = flag.Bool("lab.v", false, "what happens in a simulation, and what its processes log")
)

// simSession is the session timeout of the group in a simulation.
const simSession = 6 * time.Second

// sim is one run of the workload in virtual time.
type sim struct {
	t       *testing.T
	k       *kafkatest.Cluster
	seed    uint64
	rand    *rand.Rand
	roles   []Subject // each has members of its own
	variant Variant
	inputs  int
	topics  Topics // of the variants but Sagas
	work    Workload
	began   time.Time
	log     *slog.Logger

	members []*simMember // that are alive, or think so
	started int
	crashes []crash
	quiet   bool // no report of what happens is wanted

	maxActive int // of sagas, in a partition

	mu    sync.Mutex
	story strings.Builder
	fed   int
}

// simMember is one process.
type simMember struct {
	Member
	role  int
	stop  func() error
	gate  *gate
	ready chan struct{}
	once  sync.Once
}

// gate is a process's way to the brokers, which can be shut.
type gate struct {
	dial func(context.Context, string, string) (net.Conn, error)

	mu    sync.Mutex
	shut  bool
	conns map[net.Conn]bool
}

func (g *gate) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut {
		return nil, &net.OpError{Op: "dial", Net: network, Err: os.ErrDeadlineExceeded}
	}
	c, err := g.dial(ctx, network, addr)
	if err == nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.conns[c] = true
	}
	return c, err
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	g.shut = shut
	conns := g.conns
	g.conns = map[net.Conn]bool{}
	g.mu.Unlock()
	if shut {
		for c := range conns {
			_ = c.Close()
		}
	}
}

// simulate runs f with a cluster and a workload of some inputs, in virtual time,
// and returns what is wrong in the end. f makes things go wrong.
func simulate(t *testing.T, seed uint64, subject Subject, variant Variant, inputs int, f func(*sim)) (findings []Finding) {
	t.Helper()
	return simulateRoles(t, seed, []Subject{subject}, variant, inputs, f)
}

// simulateRoles is simulate with members of several subjects.
func simulateRoles(t *testing.T, seed uint64, roles []Subject, variant Variant, inputs int, f func(*sim)) (findings []Finding) {
	t.Helper()
	kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(3 * time.Minute) // the race detector on a busy machine
		s := &sim{
			t: t, k: k, seed: seed, rand: rand.New(rand.NewPCG(seed, 7)), roles: roles, variant: variant, inputs: inputs, topics: Named("lab"),
			work: NewWorkload(variant, k.Client(t, kgo.ClientID("reader")), "lab", seed), began: time.Now(),
		}
		if c, ok := s.work.(*counters); ok {
			c.keys = 12
		}
		require.NoError(t, s.work.Open(t.Context()))
		t.Cleanup(s.work.Close)
		s.log = slog.New(slog.DiscardHandler)
		if *verbose {
			s.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
		}
		f(s)
		findings = s.end()
		if len(findings) > 0 && !s.quiet || *verbose {
			t.Logf("what happened:\n%s", s.story.String())
		}
	})
	return findings
}

// tell notes what happens, for the report of a run with findings.
func (s *sim) tell(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, arg := range args {
		if err, ok := arg.(error); ok { // it may have the stacks of all goroutines
			args[i], _, _ = strings.Cut(err.Error(), "\n")
		}
	}
	line := fmt.Sprintf("%10v  ", time.Since(s.began).Round(time.Millisecond)) + fmt.Sprintf(format, args...) + "\n"
	s.story.WriteString(line)
	if *verbose {
		fmt.Fprint(os.Stderr, line)
	}
}

// feed sends all inputs, one every so often. It returns at once.
func (s *sim) feed(every time.Duration) {
	s.feedBy(func() (int, time.Duration) { return 1, every })
}

// feedBursts sends all inputs, up to 12 at once, over about the given time. It
// returns at once.
func (s *sim) feedBursts(over time.Duration) {
	r := rand.New(rand.NewPCG(s.seed, 11)) // its own: it runs beside the test
	most := min(12, 1+s.inputs/4)
	gap := int64(over) / int64(s.inputs) * int64(most+1)
	s.feedBy(func() (int, time.Duration) { return 1 + r.IntN(most), time.Duration(r.Int64N(gap)) })
}

// feedBy sends all inputs, as many at once as next says, and then waits.
func (s *sim) feedBy(next func() (n int, wait time.Duration)) {
	kafkatest.Run(s.t, kafkatest.RunFunc(func(ctx context.Context) error {
		for n := 0; n < s.inputs; {
			count, wait := next()
			count = min(count, s.inputs-n)
			acks := make(chan error, count)
			for i := range count {
				s.work.Send(ctx, n+i, func(err error) { acks <- err })
			}
			for range count {
				if err := <-acks; err != nil {
					return fmt.Errorf("feeding: %w", err)
				}
			}
			n += count
			s.mu.Lock()
			s.fed = n
			s.mu.Unlock()
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return nil
			}
		}
		return nil
	}))
}

func (s *sim) allFed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fed == s.inputs
}

// fewest returns the role that has fewest members, and how many.
func (s *sim) fewest() (role, n int) {
	alive := make([]int, len(s.roles))
	for _, m := range s.members {
		alive[m.role]++
	}
	for i := range alive {
		if alive[i] < alive[role] {
			role = i
		}
	}
	return role, alive[role]
}

// start starts a process, of the role that has fewest. It does not wait for it.
func (s *sim) start() *simMember {
	s.t.Helper()
	s.started++
	role, _ := s.fewest()
	name := fmt.Sprintf("p%d", s.started)
	opts := s.k.Opts()
	first, err := kgo.NewClient(opts...)
	require.NoError(s.t, err)
	g := &gate{dial: first.OptValue(kgo.Dialer).(func(context.Context, string, string) (net.Conn, error)), conns: map[net.Conn]bool{}}
	first.Close()
	m := &simMember{gate: g, role: role, ready: make(chan struct{}), Member: Member{
		Name: name, Run: "lab", Seed: s.seed, MaxActive: s.maxActive, Topics: s.topics, Variant: s.variant, Session: simSession, Logger: s.log.With("process", name),
		// kfake begins the rebalance timeout anew at each JoinGroup, also at those
		// that members send because they got no answer: with kgo's 60 s and two
		// members it would never wait it out for one that is dead.
		Opts: append(opts, kgo.Dialer(g.Dial), kgo.ClientID(name), kgo.RebalanceTimeout(5*time.Second)),
	}}
	m.stop = kafkatest.Run(s.t, kafkatest.RunFunc(func(ctx context.Context) error {
		err := s.roles[role](ctx, m.Member, func() { m.once.Do(func() { close(m.ready) }) })
		if err != nil {
			s.tell("%s ended: %v", name, err)
		}
		return err
	}))
	s.members = append(s.members, m)
	s.tell("%s starts", name)
	return m
}

// await waits for a member to have joined.
func (s *sim) await(m *simMember) {
	s.t.Helper()
	select {
	case <-m.ready:
	case <-time.After(2 * time.Minute):
		require.Fail(s.t, "not ready", m.Name)
	}
}

// drop takes a member out of those that are alive. It is stopped, as far as its
// network lets it: what it does from here on is that of a zombie.
func (s *sim) drop(m *simMember, how string) {
	for i, other := range s.members {
		if other == m {
			s.members = append(s.members[:i:i], s.members[i+1:]...)
		}
	}
	s.tell("%s %s", m.Name, how)
}

// sample looks at the run now.
func (s *sim) sample() {
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	s.work.Sample(ctx)
}

// pass lets time pass until ok, or for so long.
func (s *sim) pass(limit time.Duration, ok func() bool) bool {
	for end, step := time.Now().Add(limit), 5*time.Millisecond; !ok(); step = min(2*step, time.Second) {
		if !time.Now().Before(end) {
			return false
		}
		s.k.Sleep(s.t, step)
	}
	return true
}

// end waits until all is handled, stops everything, and judges. Faults are over
// by now.
func (s *sim) end() []Finding {
	s.t.Helper()
	for _, c := range s.crashes {
		c.f.Remove()
	}
	require.True(s.t, s.pass(10*time.Minute, s.allFed), "the inputs could not be sent")
	// kfake keeps a member for ever whose answer to JoinGroup was lost, until
	// another one joins: see docs/traps.md. Sagas have so many groups that it shows.
	joins := time.Now()
	var why string
	done := s.pass(10*time.Minute, func() bool {
		s.bury()
		for _, n := s.fewest(); n == 0; _, n = s.fewest() {
			s.start()
		}
		if s.variant == Sagas && time.Now().After(joins) {
			joins = time.Now().Add(time.Minute)
			for range s.roles {
				s.start()
			}
		}
		var err error
		if why, err = s.work.Behind(s.t.Context()); err != nil {
			why = err.Error()
		}
		return why == ""
	})
	s.sample()
	for _, m := range s.members {
		if err := m.stop(); err != nil {
			s.tell("%s, stopped: %v", m.Name, err)
		}
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Minute)
	defer cancel()
	findings, err := s.work.Judge(ctx)
	require.NoError(s.t, err)
	require.Equal(s.t, s.inputs, s.work.Sent())
	if !done {
		return append(findings, Finding{"stuck", "after 10 minutes without a fault it is behind: " + why})
	}
	// What users get says the same.
	if c, ok := s.work.(*counters); ok {
		records := slices.Concat(c.log.In, c.log.A, c.log.B, c.log.Dead)
		if err := public(s.topics).Check(records); (err != nil) != (len(findings) > 0) && !slices.ContainsFunc(findings, unseen) {
			findings = append(findings, Finding{"lab", fmt.Sprintf("kafkatest.ExactlyOnce says otherwise: %v", err)})
		}
	}
	return findings
}

// unseen are findings that only this laboratory can have, which knows of counts,
// tables and failed attempts.
func unseen(f Finding) bool {
	return slices.Contains([]string{"count", "table", "half", "torn", "finished set", "offsets"}, f.Kind)
}

// public is the workload as kafkatest.ExactlyOnce is told of it.
func public(topics Topics) kafkatest.Effects {
	return kafkatest.Effects{
		Inputs: []string{topics.In}, Outputs: []string{topics.A, topics.B}, Instead: []string{topics.Dead},
		ID: func(r *kgo.Record) string {
			in, err := readInput(r.Value)
			if err != nil { // an output, which has a number too
				var out Output
				if json.Unmarshal(r.Value, &out) != nil {
					return string(r.Value)
				}
				return strconv.Itoa(out.N)
			}
			return strconv.Itoa(in.N)
		},
		Want: func(r *kgo.Record) []string {
			switch in, err := readInput(r.Value); {
			case err != nil || in.Dead():
				return []string{topics.Dead}
			case in.Emits():
				return []string{topics.A, topics.B}
			}
			return nil
		},
	}
}

// mustFind runs seeds until something is found, and fails the test if nothing
// is. A laboratory that finds nothing where there is something proves nothing
// elsewhere.
func mustFind(t *testing.T, most int, subject Subject, variants []Variant, f func(*sim)) {
	t.Helper()
	for i := range most {
		seed := *seedFrom + uint64(i)
		findings := simulate(t, seed, subject, variants[i%len(variants)], 150, func(s *sim) {
			s.quiet = true
			f(s)
		})
		if t.Failed() {
			return
		}
		if len(findings) > 0 && findings[0].Kind != "stuck" && findings[0].Kind != "offsets" {
			t.Logf("seed %d: %d findings, such as %v", seed, len(findings), findings[0])
			return
		}
	}
	t.Errorf("nothing was found with %d seeds", most)
}

// report fails the test with what was found.
func report(t *testing.T, seed uint64, findings []Finding) {
	t.Helper()
	if len(findings) == 0 {
		return
	}
	var b strings.Builder
	for i, f := range findings {
		if i == 30 && !*verbose {
			fmt.Fprintf(&b, "and %d more\n", len(findings)-i)
			break
		}
		fmt.Fprintln(&b, f)
	}
	name, _, _ := strings.Cut(t.Name(), "/")
	t.Errorf("%d findings; again by: go test -tags synctests ./internal/crashlab -run '^%s$' -lab.seed %d -lab.seeds 1 -lab.v\n%s", len(findings), name, seed, b.String())
}

// kinds are the requests at which processes die and that are lost.
var kinds = []kmsg.Key{
	kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn, kmsg.Heartbeat, kmsg.InitProducerID, kmsg.OffsetFetch, kmsg.JoinGroup,
	kmsg.SyncGroup, kmsg.Fetch, kmsg.FindCoordinator, kmsg.Metadata, kmsg.ListOffsets, kmsg.AddOffsetsToTxn, kmsg.AddPartitionsToTxn,
}
