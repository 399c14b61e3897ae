package wherry_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/raced"
	"github.com/wherry-go/wherry/kafkatest"
)

// strike is what goes wrong, at the n-th request of a kind that the first
// process makes.
type strike struct {
	what string
	key  kmsg.Key
	n    int
}

func (s strike) String() string { return fmt.Sprintf("%s %s %d", s.what, s.key.Name(), s.n) }

// What can go wrong.
const (
	crashes      = "crash at"       // the process dies, the request is lost
	crashesAfter = "crash after"    // it dies, the broker has done the request
	drops        = "drop"           // the request is lost, with its connection
	dropsAfter   = "drop after"     // the answer is lost
	delays       = "delay"          // it arrives 3 s late
	delaysLong   = "delay long"     // it arrives 20 s late: the session is over
	goneShort    = "gone 3s at"     // brokers are away
	goneLong     = "gone 60s at"    //
	joins        = "join at"        // a second member comes
	leaves       = "leave at"       // a second member, there from the start, goes
	dies         = "die at"         // a second member, there from the start, crashes
	stops        = "stop at"        // the process is asked to stop
	crashesTwice = "crash twice at" // and so does its successor
	cutsOff      = "cut off at"     // the process alone loses the network, for longer than its session
)

// strikeWorld runs the workload once, with one strike.
func strikeWorld(t *testing.T, row crashRow, s strike) {
	t.Helper()
	kafkatest.Test(t, crashTopicNames, func(t *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(2 * time.Minute) // the race detector on a busy machine
		w := newWorld(t, k, row)
		first := w.member("first")
		first.watch[s.key] = s.n
		requests := kafkatest.Requests{Keys: []kmsg.Key{s.key}, Client: "first", Skip: s.n - 1}
		var f *kafkatest.Fault
		switch s.what {
		case crashes:
			f = k.Crash(t, requests)
		case crashesAfter, crashesTwice:
			f = k.CrashAfter(t, requests)
		case drops:
			k.Drop(t, requests)
		case dropsAfter:
			k.DropAfter(t, requests)
		case delays:
			k.Delay(t, requests, 3*time.Second)
		case delaysLong:
			k.Delay(t, requests, 20*time.Second)
		}
		stop := startUnready(t, first)
		var second *member
		if s.what == leaves || s.what == dies {
			second = w.start("second")
		}
		w.learnWhenMade()
		if s.key == kmsg.LeaveGroup {
			w.k.Sleep(t, 300*time.Millisecond)
			go func() { _ = stop() }()
		}
		if !w.struck(first, f) {
			if f != nil {
				f.Remove()
			}
			s.what = "nothing" // there are not so many requests this time
		}
		switch s.what {
		case crashes, crashesAfter:
			first.die()
			go func() { _ = stop() }()
			w.succeed(w.patience())
		case goneShort, goneLong:
			gone := k.Disconnect(t, 0)
			k.Sleep(t, map[string]time.Duration{goneShort: 3 * time.Second, goneLong: time.Minute}[s.what])
			gone.Remove()
		case joins:
			second = w.start("second")
		case leaves:
			require.NoError(t, second.stop())
		case dies:
			// Its own next request is its last.
			k.Crash(t, kafkatest.Requests{Client: "second"}).Wait(t, 1)
			second.die()
			go func() { _ = second.stop() }()
		case stops:
			asked := time.Now()
			require.NoError(t, stop())
			require.Less(t, time.Since(asked), 2500*time.Millisecond, "Run takes long to return")
			w.succeed(2 * time.Second)
		case cutsOff:
			first.unplug()
			w.succeed(w.patience())
			k.Sleep(t, 10*time.Second)
			first.plug()
		case crashesTwice:
			first.die()
			go func() { _ = stop() }()
			again := k.CrashAfter(t, kafkatest.Requests{Keys: []kmsg.Key{s.key}, Client: "successor", Skip: s.n % 7})
			m := w.succeed(w.patience())
			w.pass(time.Hour, func() bool { return again.Hits() > 0 || w.idle() })
			if again.Hits() > 0 {
				m.die()
				go func() { _ = m.stop() }()
				w.start("third")
			}
		}
		if s.key == kmsg.LeaveGroup && len(w.procs) == 1 {
			require.NoError(t, stop())
			w.succeed(w.session() + 2*time.Second)
		}
		w.settle()
		for _, m := range w.procs {
			if m.stop != nil && m != first {
				require.NoError(t, m.stop(), m.name)
			}
		}
		require.NoError(t, stop())
		got := w.check()
		figures.add(s, got)
		if s.what == crashes || s.what == crashesAfter {
			require.Less(t, got.oldest, time.Second, "what had finished long before the crash was handled again")
		}
	})
}

// struck returns when the process has made the request that is meant, and f has
// hit it, or, with false, when all is done before.
func (w *world) struck(m *member, f *kafkatest.Fault) bool {
	for step := 10 * time.Millisecond; ; step = min(2*step, 20*time.Second) {
		select {
		case <-m.hit:
			// Not by polling at long steps: it tells when the process died.
			return f == nil || w.pass(10*time.Second, func() bool { return f.Hits() > 0 })
		case <-time.After(step):
			if w.idle() {
				return false
			}
		}
	}
}

// patience is how long a successor waits for a process that is gone.
func (w *world) patience() time.Duration {
	if w.row.server {
		return 46 * time.Second // the broker's own session timeout
	}
	return w.session() + 500*time.Millisecond
}

// succeed starts the successor, which must be at work within a time.
func (w *world) succeed(within time.Duration) *member {
	w.t.Helper()
	m := w.start("successor")
	took := m.ready.Sub(m.started)
	figures.took(took)
	require.LessOrEqual(w.t, took, within, "the successor is late")
	return m
}

// startUnready starts a process without waiting for it to be ready.
func startUnready(t *testing.T, m *member) (stop func() error) {
	t.Helper()
	return kafkatest.Run(t, kafkatest.RunFunc(m.consumer.Run))
}

// learnWhenMade learns the topics' ids when the Consumer has made those of its
// policies.
func (w *world) learnWhenMade() {
	w.pass(time.Minute, func() bool {
		w.learn()
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.row.how == inPlace || len(w.topicName) >= 7
	})
}

// idle reports whether all orders came to their end.
func (w *world) idle() bool {
	w.mu.Lock()
	all := len(w.resolved) == len(w.fates) || len(w.faults) > 0
	w.mu.Unlock()
	return all && w.uncommitted() == ""
}

// figures are what the runs came to together.
var figures ledger

type ledger struct {
	mu       sync.Mutex
	runs     int
	missed   int // runs whose strike came too late to hit
	repeated int
	oldest   time.Duration
	ready    time.Duration
	by       map[string]int
}

func (l *ledger) add(s strike, o outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runs++
	if s.what == "nothing" {
		l.missed++
	}
	if l.by == nil {
		l.by = map[string]int{}
	}
	l.by[s.what] = max(l.by[s.what], o.repeated)
	if s.what == crashes || s.what == crashesAfter {
		l.repeated, l.oldest = max(l.repeated, o.repeated), max(l.oldest, o.oldest)
	}
}

func (l *ledger) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%d runs, %d without their strike; after one crash at most %d orders were repeated, that had ended at most %v before; successors were ready after at most %v; repeats by strike: %v", l.runs, l.missed, l.repeated, l.oldest, l.ready, l.by)
}

func (l *ledger) took(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready = max(l.ready, d)
}

// seeds is how much more is tried than in a plain run.
func seeds() int {
	n, _ := strconv.Atoi(os.Getenv("WHERRY_SEEDS"))
	return max(n, 1)
}

var (
	everyKind = []kmsg.Key{kmsg.Produce, kmsg.OffsetCommit, kmsg.Fetch, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat, kmsg.OffsetFetch, kmsg.Metadata, kmsg.FindCoordinator, kmsg.InitProducerID}
	inTurns   = crashRow{order: wherry.ByPartition, how: inPlace, orders: 80}
	keyed     = crashRow{order: wherry.ByKey, how: inPlace, orders: 80}
	anyhow    = crashRow{order: wherry.Unordered, how: inPlace, orders: 80}
	keyedHops = crashRow{order: wherry.ByKey, how: byTopics, orders: 80}
	turnHops  = crashRow{order: wherry.ByPartition, how: byTopics, orders: 80}
	freeHops  = crashRow{order: wherry.Unordered, how: byTopics, orders: 80}
)

// baseline runs the workload without a fault and returns how many requests of
// each kind there were.
func baseline(t *testing.T, row crashRow) (counts map[kmsg.Key]int) {
	t.Helper()
	kafkatest.Test(t, crashTopicNames, func(t *testing.T, k *kafkatest.Cluster) {
		w := newWorld(t, k, row)
		m := w.start("first")
		w.learn()
		w.settle()
		counts = m.counted()
		require.NoError(t, m.stop())
		got := w.check()
		require.Zero(t, got.repeated)
		require.Zero(t, got.extra)
	})
	return counts
}

// strikes runs the workload with one strike at each stride-th request of each
// kind, with all that WHERRY_SEEDS allows. Of the kinds that have few effects it
// takes a few requests.
func strikes(t *testing.T, row crashRow, whats []string, keys []kmsg.Key, stride int) {
	t.Helper()
	counts := baseline(t, row)
	if t.Failed() {
		return
	}
	stride = max(1, stride/seeds())
	few := 2 * seeds()
	if raced.On {
		stride, few = 24*stride, 1
	}
	if testing.Short() {
		stride *= 10
	}
	for w, what := range whats {
		for _, key := range keys {
			each := stride
			if key != kmsg.Produce && key != kmsg.OffsetCommit {
				each = max(stride, counts[key]/few)
			}
			for n := 1 + w%max(1, min(each, counts[key])); n <= counts[key]; n += each {
				s := strike{what, key, n}
				t.Run(row.String()+", "+s.String(), func(t *testing.T) {
					t.Parallel()
					strikeWorld(t, row, s)
				})
			}
		}
	}
}

// Guarantees "at least once", "no half outputs", "order", "never early",
// "finished set": without a fault each order is handled once.
func TestGuarantee_NoFault(t *testing.T) {
	t.Parallel()
	for _, row := range []crashRow{inTurns, keyed, anyhow, keyedHops, turnHops, freeHops} {
		t.Run(row.String(), func(t *testing.T) {
			t.Parallel()
			if row.orders = 200; raced.On {
				row.orders = 50
			}
			t.Log(baseline(t, row))
		})
	}
}

// The process dies at a request, before or after the broker has done it. Its
// successor is at work when the session is over, loses nothing, and repeats
// what finished shortly before.
func TestGuarantee_CrashAtEveryRequest(t *testing.T) {
	t.Parallel()
	t.Cleanup(func() { t.Log(figures.String()) })
	both := []string{crashes, crashesAfter}
	strikes(t, keyed, both, everyKind, 1)
	strikes(t, inTurns, both, everyKind, 3)
	strikes(t, anyhow, both, everyKind, 3)
	strikes(t, keyedHops, both, everyKind, 10)
	strikes(t, turnHops, both, everyKind, 20)
	strikes(t, freeHops, both, everyKind, 20)
}

func TestGuarantee_CrashAtLeaveGroup(t *testing.T) {
	t.Parallel()
	for _, what := range []string{crashes, crashesAfter, drops, dropsAfter, delays} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			strikeWorld(t, keyed, strike{what, kmsg.LeaveGroup, 1})
		})
	}
}

func TestGuarantee_TwoCrashes(t *testing.T) {
	t.Parallel()
	strikes(t, keyed, []string{crashesTwice}, everyKind[:2], 9)
	strikes(t, keyedHops, []string{crashesTwice}, everyKind[:2], 40)
}

func TestGuarantee_LostRequestsAndAnswers(t *testing.T) {
	t.Parallel()
	all := []string{drops, dropsAfter, delays, delaysLong}
	strikes(t, keyed, all, everyKind, 9)
	strikes(t, inTurns, all, everyKind, 20)
	strikes(t, keyedHops, all, everyKind[:2], 50)
}

func TestGuarantee_BrokersAway(t *testing.T) {
	t.Parallel()
	all := []string{goneShort, goneLong}
	strikes(t, keyed, all, everyKind, 9)
	strikes(t, inTurns, all, everyKind, 20)
	strikes(t, anyhow, all, everyKind[:2], 20)
	strikes(t, keyedHops, all, everyKind[:2], 50)
}

func TestGuarantee_MembersComeAndGo(t *testing.T) {
	t.Parallel()
	all := []string{joins, leaves, dies}
	strikes(t, keyed, all, everyKind, 12)
	eager := keyed
	eager.balancer = kgo.Balancers(kgo.RangeBalancer())
	strikes(t, eager, all, everyKind[:2], 12)
	server := keyed
	server.balancer, server.server = kgo.ServerSideBalancer(), true
	strikes(t, server, []string{joins, leaves, crashes, stops}, everyKind[:2], 25)
}

// The process is asked to stop: Run returns nil within the bound, and its
// successor is at work within 2 s.
func TestGuarantee_StopAtEveryRequest(t *testing.T) {
	t.Parallel()
	strikes(t, keyed, []string{stops}, everyKind, 2)
	strikes(t, inTurns, []string{stops}, everyKind, 5)
	strikes(t, keyedHops, []string{stops}, everyKind[:2], 30)
}

// A process loses the network for longer than its session, while its handlers
// go on, and comes back to a group in which another has its partitions.
func TestGuarantee_Zombie(t *testing.T) {
	t.Parallel()
	strikes(t, keyed, []string{cutsOff}, everyKind[:2], 9)
	strikes(t, inTurns, []string{cutsOff}, everyKind[:2], 20)
	strikes(t, keyedHops, []string{cutsOff}, everyKind[:2], 40)
}

// Outputs wait for their broker, one partition is taken away meanwhile: those
// of the partitions that stay are sent all the same.
func TestGuarantee_OutputsBehindThoseOfALostPartition(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"order.placed:2", "payment.made:2"}, func(t *testing.T, k *kafkatest.Cluster) {
		member := func() *wherry.Consumer {
			return &wherry.Consumer{
				Client: k.Client(t), Group: "g",
				Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
					out, err := paymentMade.Record(o.ID, payment{OrderID: o.ID})
					if err != nil {
						return err
					}
					// Of the outputs to each partition the first is of another
					// partition of orders.
					wherry.ToPartition(out, int32((o.Total/2+o.Total)%2))
					return wherry.Publish(ctx, out)
				})},
			}
		}
		kafkatest.Run(t, member())
		refused := k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "payment.made", Count: -1}, kerr.NotEnoughReplicas)
		send := k.Client(t, kgo.ClientID("send"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		for i := range 6 {
			r, err := orderPlaced.Record(ids(i), order{ID: ids(i), Total: i})
			require.NoError(t, err)
			r.Partition = int32(i % 2)
			require.NoError(t, send.ProduceSync(t.Context(), r).FirstErr())
			k.Sleep(t, 100*time.Millisecond)
		}
		kafkatest.Run(t, member())
		k.Sleep(t, 10*time.Second)
		refused.Remove()
		k.Sleep(t, 10*time.Minute)
		require.EqualValues(t, 6, sum(committed(t, k, "g", "order.placed")), "done, and never committed")
	})
}
