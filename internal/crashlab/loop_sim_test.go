package crashlab

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/kafkatest"
)

// Without a fault nothing is found.
func TestLoop_WithoutFaults(t *testing.T) {
	t.Parallel()
	report(t, 1, simulate(t, 1, loop(careful), ByPartition, 200, func(s *sim) {
		s.feed(20 * time.Millisecond)
		s.await(s.start())
		for range 10 {
			s.k.Sleep(s.t, 300*time.Millisecond)
			s.sample()
		}
		s.start()
		for range 10 {
			s.k.Sleep(s.t, 300*time.Millisecond)
			s.sample()
		}
		require.Greater(s.t, len(s.work.(*counters).samples), 15)
	}))
}

// The loop that is written with care passes: what the laboratory finds is not
// the laboratory's.
func TestLoop_WithCareIsExactlyOnce(t *testing.T) {
	t.Parallel()
	runSeeds(t, (*seeds+2)/3, 150, loop(careful), []Variant{ByPartition}, (*sim).trouble)
}

// Each of these flaws is found, by few seeds.
func TestLoop_FlawsAreFound(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		flaw    flaw
		trouble func(*sim)
	}{
		{"tables keep what was aborted", keepsTables, (*sim).trouble},
		{"tables of lost partitions are kept", keepsLost, func(s *sim) {
			s.feed(50 * time.Millisecond)
			s.await(s.start())
			s.k.Sleep(s.t, time.Second)
			second := s.start()
			s.await(second)
			s.k.Sleep(s.t, 2*time.Second)
			s.drop(second, "is asked to stop")
			if err := second.stop(); err != nil {
				s.t.Error(err)
			}
		}},
		{"a transaction is committed without a record that was refused", ignoresErrors, func(s *sim) {
			s.feed(20 * time.Millisecond)
			s.await(s.start())
			s.k.Sleep(s.t, time.Second)
			s.k.Refuse(s.t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: s.topics.B}, kerr.UnknownServerError).Wait(s.t, 1)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			mustFind(t, 40, loop(test.flaw), []Variant{ByPartition}, test.trouble)
		})
	}
}
