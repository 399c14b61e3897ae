package crashlab

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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

// Partitions of the inputs get other leaders while they are read. (Those of what
// is written do not: in virtual time that livelocks, see docs/traps.md. In the
// simulation brokers answer as if they were not the leader any more.)
func TestExact_MovedLeaders(t *testing.T) {
	t.Parallel()
	for i := range 6 {
		seed := *seedFrom + uint64(i)
		t.Run("", func(t *testing.T) {
			t.Parallel()
			report(t, seed, simulate(t, seed, Wherry, Variants()[i%3], 300, func(s *sim) {
				node := s.k.AddNode(s.t)
				s.feed(0)
				require.True(s.t, s.pass(time.Minute, s.allFed))
				s.await(s.start())
				second := s.start()
				for move := range 12 {
					s.k.Sleep(s.t, s.between(10*time.Millisecond, 300*time.Millisecond))
					s.k.MoveLeader(s.t, s.topics.In, int32(s.rand.IntN(Partitions)), node*(move%2))
					s.sample()
				}
				s.drop(second, "is asked to stop")
				if err := second.stop(); err != nil {
					s.t.Error(err)
				}
			}))
		})
	}
}
