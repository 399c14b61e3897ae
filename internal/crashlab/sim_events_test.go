package crashlab

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/internal/raced"
	"github.com/wherry-go/wherry/kafkatest"
)

// refusals are what brokers answer when things are not as they should be.
var refusals = map[kmsg.Key][]*kerr.Error{
	kmsg.Produce: {
		kerr.TransactionAbortable, kerr.UnknownServerError, kerr.ConcurrentTransactions, kerr.InvalidProducerEpoch, kerr.ProducerFenced,
		kerr.NotLeaderForPartition, kerr.NotEnoughReplicas, kerr.RequestTimedOut, kerr.InvalidTxnState, kerr.OutOfOrderSequenceNumber,
	},
	kmsg.TxnOffsetCommit: {
		kerr.TransactionAbortable, kerr.ConcurrentTransactions, kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.CoordinatorNotAvailable,
		kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.UnknownServerError, kerr.RebalanceInProgress,
	},
	kmsg.EndTxn: {
		kerr.ConcurrentTransactions, kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.CoordinatorNotAvailable,
		kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.TransactionAbortable, kerr.UnknownServerError, kerr.InvalidTxnState,
	},
	kmsg.InitProducerID: {kerr.ConcurrentTransactions, kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.CoordinatorNotAvailable},
	kmsg.OffsetFetch:    {kerr.UnstableOffsetCommit, kerr.CoordinatorLoadInProgress, kerr.NotCoordinator},
	kmsg.Heartbeat:      {kerr.RebalanceInProgress, kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.NotCoordinator, kerr.CoordinatorNotAvailable},
	kmsg.JoinGroup:      {kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.UnknownMemberID},
	kmsg.SyncGroup:      {kerr.RebalanceInProgress, kerr.NotCoordinator},
	kmsg.Fetch:          {kerr.NotLeaderForPartition, kerr.UnknownServerError},
	kmsg.ListOffsets:    {kerr.NotLeaderForPartition, kerr.LeaderNotAvailable},
}

// any draws one of xs.
func draw[T any](s *sim, xs []T) T { return xs[s.rand.IntN(len(xs))] }

// between draws a time.
func (s *sim) between(from, to time.Duration) time.Duration {
	return from + time.Duration(s.rand.Int64N(int64(to-from)))
}

// fault makes one thing go wrong, drawn from the seed, and returns what ends it,
// or nil.
func (s *sim) fault() (over func()) {
	s.bury()
	if _, n := s.fewest(); n == 0 || n == 1 && s.rand.IntN(3) == 0 {
		s.start()
		return nil
	}
	m := draw(s, s.members)
	kind := draw(s, kinds[:7+s.rand.IntN(len(kinds)-6)]) // the first ones more often
	which := kafkatest.Requests{Keys: []kmsg.Key{kind}, Client: m.Name, Skip: s.rand.IntN(3)}
	switch p := s.rand.IntN(100); {
	case p < 8 && len(s.members) < 3*len(s.roles):
		s.start()
	case p < 14:
		s.drop(m, "is asked to stop")
		if err := m.stop(); err != nil {
			s.tell("%s, stopped: %v", m.Name, err)
		}
	case p < 34:
		strike, how := s.k.Crash, "before"
		if s.rand.IntN(2) == 0 {
			strike, how = s.k.CrashAfter, "after"
		}
		s.crashes = append(s.crashes, crash{strike(s.t, which), m, "crashed " + how + " " + kind.Name()})
		s.pass(4*time.Second, s.bury)
	case p < 50:
		lose, how := s.k.Drop, "the request"
		if s.rand.IntN(2) == 0 {
			lose, how = s.k.DropAfter, "the answer"
		}
		which.Count = 1 + s.rand.IntN(2)
		s.tell("%s loses %s of %s (%d)", m.Name, how, kind.Name(), which.Count)
		return lose(s.t, which).Remove
	case p < 60:
		d := s.between(500*time.Millisecond, 14*time.Second)
		s.tell("%s waits %v for %s", m.Name, d, kind.Name())
		return s.k.Delay(s.t, which, d).Remove
	case p < 82:
		// A fetch that is refused is not in the session that the broker keeps, and
		// with many of them a client comes to ask for ever for what it has.
		for refusals[kind] == nil || kind == kmsg.Fetch && s.variant == Sagas {
			kind = draw(s, kinds)
		}
		err := draw(s, refusals[kind])
		which.Keys, which.Count = []kmsg.Key{kind}, 1+s.rand.IntN(3)
		if kind == kmsg.Produce && s.variant == Sagas {
			which.Topic = draw(s, s.work.(*sagaWork).topics.transactional()) // others are not refused so
		}
		if kind == kmsg.Produce && err == kerr.UnknownServerError {
			which.Count = 1 // a record that it is said of three times is taken for refused, as it should be
		}
		s.tell("%s is refused %s by %s (%d)", m.Name, kind.Name(), err.Message, which.Count)
		return s.k.Refuse(s.t, which, err).Remove
	case p < 88:
		d := s.between(time.Second, 20*time.Second)
		s.tell("%s loses the network for %v", m.Name, d)
		m.gate.set(true)
		s.k.Sleep(s.t, d)
		m.gate.set(false)
	case p < 94:
		d := s.between(simSession, 3*simSession)
		s.tell("%s is not heard of for %v", m.Name, d)
		s.silence(m, d)
	case p < 97:
		d := s.between(time.Second, 15*time.Second)
		s.tell("the brokers are away for %v", d)
		gone := s.k.Disconnect(s.t, 0)
		s.k.Sleep(s.t, d)
		gone.Remove()
	default:
		return s.foreign(s.between(time.Second, 8*time.Second))
	}
	return nil
}

// crash is one that may come at any time: the answer after which a process is
// to die may be a long one.
type crash struct {
	f   *kafkatest.Fault
	m   *simMember
	how string
}

// bury takes processes that have crashed out of those that are alive, and
// reports whether there were any.
func (s *sim) bury() (some bool) {
	for i := 0; i < len(s.crashes); i++ {
		c := s.crashes[i]
		if c.f.Hits() == 0 {
			continue
		}
		s.crashes = append(s.crashes[:i:i], s.crashes[i+1:]...)
		i--
		some = true
		s.drop(c.m, c.how)
		go func() { _ = c.m.stop() }()
	}
	return some
}

// silence keeps the heartbeats of a process from the brokers for a time, and what
// else its group's client asks for, but neither its fetches nor its transactions:
// it goes on after it was thrown out of its group.
func (s *sim) silence(m *simMember, d time.Duration) {
	f := s.k.Delay(s.t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Heartbeat}, Client: m.Name, Count: -1}, time.Minute)
	s.k.Sleep(s.t, d)
	f.Remove()
}

// deceive has the heartbeats of a process in a group answered for a time as if all
// were well, and the brokers hear none of them: it goes on with all that it does
// after it was thrown out. The same with offsets outside of transactions, which
// count as heartbeats.
func (s *sim) deceive(m *simMember, group string, d time.Duration) {
	s.tell("%s is told that all is well in %s for %v", m.Name, group, d)
	f := s.k.Refuse(s.t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Heartbeat, kmsg.OffsetCommit}, Client: m.Name, Group: group, Count: -1}, &kerr.Error{Message: "NONE"})
	s.k.Sleep(s.t, d)
	f.Remove()
}

// foreign opens a transaction of a stranger's on every partition of the table,
// and aborts it after a time: meanwhile what the workload commits lies beyond
// the last stable offset, as it does on a cluster whose brokers write the
// markers of a transaction one after the other.
func (s *sim) foreign(d time.Duration) (over func()) {
	s.tell("a stranger's transaction holds the table back for %v", d)
	cl := s.k.Client(s.t, kgo.ClientID("stranger"), kgo.TransactionalID("stranger"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(s.t, cl.BeginTransaction())
	for p := range int32(Partitions) {
		require.NoError(s.t, cl.ProduceSync(s.t.Context(), &kgo.Record{Topic: s.work.Table(), Partition: p, Key: []byte(ForeignKey), Value: []byte("{}")}).FirstErr())
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-time.After(d)
		_ = cl.EndTransaction(context.Background(), kgo.TryAbort) // or the broker does, when its time is over
		cl.Close()
	}()
	return func() { <-ended }
}

// trouble is a run in which many things go wrong.
func (s *sim) trouble() {
	s.feedBursts(s.between(10*time.Second, 70*time.Second))
	s.await(s.start())
	if s.rand.IntN(2) == 0 {
		s.start()
	}
	var over []func()
	for range 6 + s.rand.IntN(10) {
		s.k.Sleep(s.t, s.between(0, 2500*time.Millisecond))
		if f := s.fault(); f != nil {
			over = append(over, f)
		}
		if s.rand.IntN(2) == 0 {
			s.sample()
		}
	}
	s.k.Sleep(s.t, s.between(0, 2*time.Second))
	for _, f := range over {
		f()
	}
}

// runSeeds runs a simulation for each seed.
func runSeeds(t *testing.T, n int, inputs int, subject Subject, variants []Variant, f func(*sim)) {
	t.Helper()
	if raced.On {
		n /= 6
	}
	for i := range n {
		seed := *seedFrom + uint64(i)
		variant := variants[int(seed)%len(variants)]
		t.Run("", func(t *testing.T) {
			t.Parallel()
			report(t, seed, simulate(t, seed, subject, variant, inputs, f))
		})
	}
}
