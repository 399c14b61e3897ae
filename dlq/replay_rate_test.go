package dlq

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPacer_SpreadsCallsEvenly(t *testing.T) {
	t.Parallel()
	p := pacer{every: 20 * time.Millisecond}
	at := time.Unix(0, 0)
	var waits []time.Duration
	for _, pass := range []time.Duration{0, 0, 0, 5, 100, 0, 0} { // what the work takes, in ms
		at = at.Add(pass * time.Millisecond)
		wait := p.wait(at)
		waits = append(waits, wait/time.Millisecond)
		at = at.Add(max(0, wait))
	}
	// Late by 80 ms, it makes up for 10, not for all.
	require.Equal(t, []time.Duration{0, 20, 20, 15, -10, 10, 20}, waits)
	require.Zero(t, (&pacer{}).wait(at))
}

func TestPacer_KeepsTheRateThoughTimersAreLate(t *testing.T) {
	t.Parallel()
	p := pacer{every: 100 * time.Microsecond}
	at := time.Unix(0, 0)
	calls := 0
	for ; at.Before(time.Unix(1, 0)); calls++ {
		if wait := p.wait(at); wait > 0 {
			at = at.Add(wait + time.Millisecond)
		}
	}
	require.InDelta(t, 10_000, calls, 100)
}
