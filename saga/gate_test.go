package saga

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestS24_AGateShutsAfterFailuresRunningAndOpensAtOne(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	b := newBreakers(Gate{After: 3, Probe: time.Second})
	key, other := stepKey{1, 0}, stepKey{1, 1}
	open := func() bool { return b.until(key, now).IsZero() }
	fail := func() (shut, was bool) { return b.report(key, false, now) }

	for range 2 {
		shut, was := fail()
		require.False(t, shut || was)
		require.True(t, open())
	}
	b.report(key, true, now) // not running
	fail()
	fail()
	require.True(t, open())
	shut, was := fail()
	require.True(t, shut && !was, "it tells of the change")
	require.Equal(t, now.Add(time.Second), b.until(key, now))
	require.True(t, b.until(other, now).IsZero(), "each step has its own")
	require.Equal(t, 1, b.held())

	now = now.Add(time.Second)
	require.True(t, open(), "a probe")
	require.Equal(t, now.Add(time.Second), b.until(key, now), "one")
	shut, was = fail()
	require.True(t, shut && was)
	now = now.Add(time.Second)
	require.True(t, open())
	shut, was = b.report(key, true, now)
	require.True(t, !shut && was)
	for range 100 {
		require.True(t, open())
	}
	require.Zero(t, b.held())
}

// Those that are held ask again, a few of them in each probe's time.
func TestS24_ManyThatAreHeldAskAgainOverTime(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	b := newBreakers(Gate{After: 1})
	key := stepKey{2, 3}
	b.report(key, false, now)
	times := map[time.Time]int{}
	for range 10_000 {
		at := b.until(key, now)
		require.True(t, at.After(now))
		require.False(t, at.After(now.Add(defaultGateProbe+gateMost)))
		times[at]++
	}
	require.Greater(t, len(times), 25)
}

func TestS24_AGateThatNeverShuts(t *testing.T) {
	t.Parallel()
	b := newBreakers(Gate{After: -1})
	for range 1000 {
		shut, was := b.report(stepKey{}, false, time.Now())
		require.False(t, shut || was)
	}
	require.True(t, b.until(stepKey{}, time.Now()).IsZero())
	require.Error(t, Gate{After: -2}.check())
	require.Error(t, Gate{Probe: -1}.check())
	require.NoError(t, Gate{}.check())
}
