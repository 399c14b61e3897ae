package crashlab

import (
	"testing"
	"time"

	"github.com/wherry-go/wherry/internal/raced"
)

// sagaRoles are the two kinds of members of a simulation of sagas.
var sagaRoles = []Subject{SagaEngine, SagaParticipants}

// Without a fault each saga ends as its script says.
func TestSagas_WithoutFaults(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			report(t, seed, simulateRoles(t, seed, sagaRoles, Sagas, 40, func(s *sim) {
				s.work.(*sagaWork).calm = true
				for range sagaRoles {
					s.await(s.start())
				}
				s.feed(50 * time.Millisecond)
			}))
		})
	}
}

// In each simulation engines and participants crash, lose requests, answers and
// the network, are thrown out of their groups, and come and go; transactions are
// refused, fenced and aborted; brokers are away; answers are lost, late, doubled
// and contradict each other. Afterwards each saga has ended as it may, with each
// effect once, and what had to be undone is undone, in reverse.
func TestSagas_Simulation(t *testing.T) {
	t.Parallel()
	n := 2 * *seeds
	if raced.On {
		n /= 12
	}
	for i := range n {
		seed := *seedFrom + uint64(i)
		t.Run("", func(t *testing.T) {
			t.Parallel()
			report(t, seed, simulateRoles(t, seed, sagaRoles, Sagas, 12, func(s *sim) {
				if seed%5 == 0 {
					s.maxActive = 1 // the others wait
				}
				s.trouble()
			}))
		})
	}
}
