package crashlab

import (
	"testing"
	"time"
)

// Without a fault nothing is found, whatever members come and go.
func TestExact_WithoutFaults(t *testing.T) {
	t.Parallel()
	for _, variant := range Variants() {
		t.Run(string(variant), func(t *testing.T) {
			t.Parallel()
			report(t, 1, simulate(t, 1, Wherry, variant, 200, func(s *sim) {
				s.feed(20 * time.Millisecond)
				first := s.start()
				s.await(first)
				for i := range 16 {
					s.k.Sleep(s.t, 300*time.Millisecond)
					s.sample()
					switch i {
					case 5, 7:
						s.start()
					case 10:
						s.drop(first, "is asked to stop")
						if err := first.stop(); err != nil {
							s.t.Error(err)
						}
					}
				}
			}))
		})
	}
}

// In each simulation processes crash, lose requests, answers and the network,
// are thrown out of their group, and come and go; transactions are refused,
// fenced and aborted; brokers are away. Afterwards each input has had its effects
// once, in order, and the table is what the log implies.
func TestExact_Simulation(t *testing.T) {
	t.Parallel()
	runSeeds(t, *seeds, 150, Wherry, Variants(), (*sim).trouble)
}
