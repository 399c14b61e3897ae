package crashlab

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/internal/planted"
	"github.com/wherry-go/wherry/internal/raced"
	"github.com/wherry-go/wherry/kafkatest"
)

// plantedSaga is plantedFault with sagas: f must bring about a finding of one of
// the kinds, with few seeds, and without it the same seed has none.
func plantedSaga(t *testing.T, f planted.Fault, kinds []string, trouble func(*sim)) {
	t.Helper()
	if raced.On {
		t.Skip("what it shows does not depend on the race detector")
	}
	defer planted.Set(planted.None)
	const most = 60
	for i := range most {
		seed := *seedFrom + uint64(i)
		run := func(f planted.Fault) []Finding {
			planted.Set(f)
			return simulateRoles(t, seed, sagaRoles, Sagas, 60, func(s *sim) {
				s.quiet = f != planted.None
				trouble(s)
			})
		}
		found := run(f)
		if at := slices.IndexFunc(found, func(f Finding) bool { return slices.Contains(kinds, f.Kind) }); at >= 0 {
			report(t, seed, run(planted.None))
			t.Logf("%v is found by seed %d: %d findings, such as %v", f, seed, len(found), found[at])
			return
		}
	}
	t.Errorf("%v is not found by %d seeds", f, most)
}

// twice are the findings that tell that two engines had one saga.
var twice = []string{"doubled", "sent twice", "back", "ended twice"}

// startAll starts so many of each role, and waits for them.
func (s *sim) startAll(each int) (engines []*simMember) {
	var all []*simMember
	for range each * len(s.roles) {
		all = append(all, s.start())
	}
	for _, m := range all {
		s.await(m)
		if m.role == 0 {
			engines = append(engines, m)
		}
	}
	return engines
}

// calmly has the sagas in hand go on without a fault.
func calmly(s *sim) {
	s.startAll(1)
	s.feed(20 * time.Millisecond)
}

// The first half of fencing: an engine lives, and its heartbeats do not arrive.
func TestPlantedSagas_NoFencing(t *testing.T) {
	plantedSaga(t, planted.NoFencing, twice, func(s *sim) {
		engines := s.startAll(2)
		s.feed(200 * time.Millisecond) // for longer than it takes to be thrown out
		s.k.Sleep(s.t, s.between(100*time.Millisecond, time.Second))
		// And a participant's do not.
		deaf := s.k.Delay(s.t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Heartbeat}, Client: s.members[3].Name, Count: -1}, time.Minute)
		s.silence(engines[1], 2*simSession)
		deaf.Remove()
	})
}

// An engine alone is enough, if nothing that it does tells it: it commits offsets
// without a transaction each 100 ms, for there are marks of its participants'
// transactions in its inbox. Those would keep it in its group; held back behind a
// heartbeat they would stop it, and where it is thrown out their answer says so.
func TestPlantedSagas_NoFencingOfAnEngineAlone(t *testing.T) {
	plantedSaga(t, planted.NoFencing, []string{"sent twice", "back"}, func(s *sim) {
		engines := s.startAll(2)
		s.feed(200 * time.Millisecond)
		s.k.Sleep(s.t, s.between(100*time.Millisecond, time.Second))
		s.deceive(engines[1], "lab.saga", 2*simSession)
	})
}

// The second half: what an engine has in hand when partitions are taken away
// from it is another one's. Its transactions take their time meanwhile.
func TestPlantedSagas_KeepRevoked(t *testing.T) {
	plantedSaga(t, planted.KeepRevoked, twice, func(s *sim) {
		first := s.startAll(1)[0]
		s.feed(10 * time.Millisecond)
		s.k.Sleep(s.t, s.between(100*time.Millisecond, 300*time.Millisecond))
		slow := s.k.Delay(s.t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.EndTxn}, Client: first.Name, Count: -1}, 700*time.Millisecond)
		s.start()
		s.start()
		s.k.Sleep(s.t, 6*time.Second)
		slow.Remove()
	})
}

func TestPlantedSagas_SkipUndo(t *testing.T) {
	plantedSaga(t, planted.SkipUndo, []string{"kept"}, calmly)
}

func TestPlantedSagas_DoubledReply(t *testing.T) {
	plantedSaga(t, planted.DoubledReply, []string{"state"}, calmly)
}

func TestPlantedSagas_AttemptInKey(t *testing.T) {
	plantedSaga(t, planted.AttemptInKey, []string{"doubled"}, calmly)
}

// What was committed last lies beyond the last stable offset when another engine
// reads the sagas back, because a transaction before it is open.
func TestPlantedSagas_RestoreToLSO(t *testing.T) {
	plantedSaga(t, planted.RestoreToLSO, append([]string{"lost", "open"}, twice...), func(s *sim) {
		m := s.startAll(1)[0]
		s.feed(20 * time.Millisecond)
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
