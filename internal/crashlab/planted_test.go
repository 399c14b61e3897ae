package crashlab

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/internal/planted"
	"github.com/wherry-go/wherry/kafkatest"
)

// Each fault that is planted must be found, and nothing without it: a laboratory
// that finds nothing where there is something proves nothing elsewhere. These
// tests are not parallel, for a planted fault is everybody's.

// plantedFault plants f and runs trouble with seeds until a finding of the kind
// is there that f brings about. The same seed must be without findings when f is
// not planted.
func plantedFault(t *testing.T, f planted.Fault, kind string, variants []Variant, trouble func(*sim)) {
	t.Helper()
	defer planted.Set(planted.None)
	const most = 20
	for i := range most {
		seed, variant := *seedFrom+uint64(i), variants[i%len(variants)]
		run := func(f planted.Fault) []Finding {
			planted.Set(f)
			return simulate(t, seed, Wherry, variant, 150, func(s *sim) {
				s.quiet = f != planted.None
				trouble(s)
			})
		}
		found := run(f)
		if at := slices.IndexFunc(found, func(f Finding) bool { return f.Kind == kind }); at >= 0 {
			report(t, seed, run(planted.None))
			t.Logf("%v is found by seed %d, %s: %d findings, such as %v", f, seed, variant, len(found), found[at])
			return
		}
	}
	t.Errorf("%v is not found by %d seeds", f, most)
}

// A member that lives, and whose heartbeats do not arrive, is thrown out of its
// group. Another one handles what it has in hand, and then it comes with its
// transaction.
func TestPlanted_NoFencing(t *testing.T) {
	plantedFault(t, planted.NoFencing, "doubled", Variants(), func(s *sim) {
		s.feed(100 * time.Millisecond)
		s.await(s.start())
		second := s.start()
		s.await(second)
		s.k.Sleep(s.t, s.between(100*time.Millisecond, time.Second))
		s.silence(second, 2*simSession)
	})
}

// A process dies while later records of a partition have finished before
// earlier ones.
func TestPlanted_NoMetadata(t *testing.T) {
	plantedFault(t, planted.NoMetadata, "doubled", []Variant{ByKey, Batches}, func(s *sim) {
		s.feed(5 * time.Millisecond)
		m := s.start()
		s.await(m)
		s.crashAfter(m, kmsg.EndTxn, 5+s.rand.IntN(40))
	})
}

// A process dies with records in hand that were fetched and not handled.
func TestPlanted_PollHead(t *testing.T) {
	plantedFault(t, planted.PollHead, "lost", Variants(), func(s *sim) {
		s.feed(5 * time.Millisecond)
		m := s.start()
		s.await(m)
		s.crashAfter(m, kmsg.EndTxn, 5+s.rand.IntN(40))
	})
}

// Brokers refuse an output of a record that wrote to the table, and of what
// rests on it.
func TestPlanted_KeepOverlay(t *testing.T) {
	plantedFault(t, planted.KeepOverlay, "count", Variants(), func(s *sim) {
		s.feed(5 * time.Millisecond)
		s.await(s.start())
		s.k.Sleep(s.t, time.Second)
		s.k.Refuse(s.t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: s.topics.Table, Count: 2}, kerr.TransactionAbortable)
	})
}

// What was committed last lies beyond the last stable offset when a successor
// reads the table back, because a transaction before it is open.
func TestPlanted_RestoreToLSO(t *testing.T) {
	plantedFault(t, planted.RestoreToLSO, "count", Variants(), func(s *sim) {
		s.feed(20 * time.Millisecond)
		m := s.start()
		s.await(m)
		s.k.Sleep(s.t, 500*time.Millisecond)
		over := s.foreign(8 * time.Second)
		s.k.Sleep(s.t, s.between(200*time.Millisecond, time.Second))
		s.drop(m, "is asked to stop")
		if err := m.stop(); err != nil {
			s.t.Error(err)
		}
		s.start()
		over()
	})
}

// crashAfter has a process die when the broker has done its n-th request of a
// kind from now on, if there are so many.
func (s *sim) crashAfter(m *simMember, key kmsg.Key, n int) {
	f := s.k.CrashAfter(s.t, kafkatest.Requests{Keys: []kmsg.Key{key}, Client: m.Name, Skip: n - 1})
	if !s.pass(10*time.Second, func() bool { return f.Hits() > 0 }) {
		f.Remove()
		return
	}
	s.drop(m, "crashed after "+key.Name())
	go func() { _ = m.stop() }()
	s.start()
}
