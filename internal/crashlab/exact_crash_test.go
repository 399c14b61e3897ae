package crashlab

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/internal/raced"
	"github.com/wherry-go/wherry/kafkatest"
)

// crashInputs is how many inputs those runs have in which a process dies at one
// request: so few that every request can have its run.
const crashInputs = 50

// recorded runs the workload without a fault and returns how many requests of
// each kind one process makes.
func recorded(t *testing.T, variant Variant) map[kmsg.Key]int {
	t.Helper()
	counts := map[kmsg.Key]int{}
	report(t, 1, simulate(t, 1, Wherry, variant, crashInputs, func(s *sim) {
		counters := map[kmsg.Key]*kafkatest.Fault{}
		for _, key := range Deadly() {
			// A delay of nothing counts.
			counters[key] = s.k.Delay(s.t, kafkatest.Requests{Keys: []kmsg.Key{key}, Client: "p1", Count: -1}, 0)
		}
		s.feedBursts(2 * time.Second)
		s.start()
		require.True(s.t, s.pass(time.Minute, func() bool {
			behind, err := s.work.Behind(s.t.Context())
			return s.allFed() && err == nil && behind == ""
		}))
		for key, f := range counters {
			counts[key] = f.Hits()
		}
	}))
	return counts
}

// A process dies at each of its requests, before it is sent and when the broker
// has done it; its successor has each effect once. (With -short, at each tenth.)
func TestExact_CrashAtEveryRequest(t *testing.T) {
	t.Parallel()
	for _, variant := range Variants() {
		counts := recorded(t, variant)
		if t.Failed() {
			return
		}
		t.Log(variant, counts)
		stride := 1
		if variant != ByKey {
			stride = 4
		}
		if raced.On {
			stride *= 6
		}
		if testing.Short() {
			stride *= 10
		}
		for _, key := range Deadly() {
			require.NotZero(t, counts[key], key.Name())
			for n := 1; n <= counts[key]; n += stride {
				for _, after := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s, %v", variant, Death{Key: key, N: n, After: after}), func(t *testing.T) {
						t.Parallel()
						crashOnce(t, variant, key, n, after)
					})
				}
			}
		}
	}
}

func crashOnce(t *testing.T, variant Variant, key kmsg.Key, n int, after bool) {
	t.Helper()
	report(t, 1, simulate(t, 1, Wherry, variant, crashInputs, func(s *sim) {
		strike := s.k.Crash
		if after {
			strike = s.k.CrashAfter
		}
		f := strike(s.t, kafkatest.Requests{Keys: []kmsg.Key{key}, Client: "p1", Skip: n - 1})
		s.feedBursts(2 * time.Second)
		m := s.start()
		if !s.pass(20*time.Second, func() bool { return f.Hits() > 0 }) {
			f.Remove() // not so many requests this time
			return
		}
		s.drop(m, "crashed")
		go func() { _ = m.stop() }()
		s.start()
	}))
}
