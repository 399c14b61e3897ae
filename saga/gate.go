package saga

import (
	"cmp"
	"errors"
	"sync"
	"time"
)

// A Gate holds back the attempts at a step while all of them fail: when a
// participant is down, ten thousand sagas should wait for it and not be undone. Each
// process keeps one for each step.
//
// After a number of failures and timeouts of a step in a row, in whatever sagas, the
// gate shuts: no further attempt begins, except for one in each Probe. The first
// attempt that is answered, even with a rejection, opens it. An attempt that is held
// back is not counted. Deadlines of sagas go on.
type Gate struct {
	// After is how many failures in a row shut the gate. 0 means 20; -1 means that
	// it never shuts.
	After int
	// Probe is the time from one attempt to the next while the gate is shut. 0
	// means 1s.
	Probe time.Duration
}

const (
	defaultGateAfter = 20
	defaultGateProbe = time.Second
	// Those that are held ask again, and each asking is a transaction's record:
	// not more than so many of them in one Probe, and not later than that.
	gateShare = 100
	gateMost  = 30 * time.Second
)

func (g Gate) check() error {
	if g.After < -1 || g.Probe < 0 {
		return errors.New("Gate: After must be -1 or more, and Probe not negative")
	}
	return nil
}

// breakers are the gates of all steps.
type breakers struct {
	gate Gate

	mu  sync.Mutex
	all map[stepKey]*breaker
}

type stepKey struct{ version, step int }

func newBreakers(g Gate) *breakers {
	g.After, g.Probe = cmp.Or(g.After, defaultGateAfter), cmp.Or(g.Probe, defaultGateProbe)
	return &breakers{gate: g, all: map[stepKey]*breaker{}}
}

// until is [env.gate] of a version's step.
func (b *breakers) until(key stepKey, now time.Time) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.all[key]
	if one == nil {
		return time.Time{}
	}
	return one.until(now, b.gate)
}

// report tells how an attempt at a step ended. It reports whether the gate is
// shut now, and whether it was.
func (b *breakers) report(key stepKey, answered bool, now time.Time) (shut, was bool) {
	if b.gate.After < 0 {
		return false, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.all[key]
	switch {
	case one == nil && answered:
		return false, false
	case answered:
		delete(b.all, key)
		return false, one.shut(b.gate)
	case one == nil:
		one = &breaker{}
		b.all[key] = one
	}
	was = one.shut(b.gate)
	one.failures++
	if shut = one.shut(b.gate); shut && !was {
		one.next = now.Add(b.gate.Probe)
	}
	return shut, was
}

// held is how many attempts wait at shut gates, about.
func (b *breakers) held() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, one := range b.all {
		n += one.held
	}
	return n
}

// breaker is the gate of one step. It is a function of the times it is given.
type breaker struct {
	failures int       // running
	next     time.Time // of the probes
	held     int       // that were told to ask again since the probe before
}

func (b *breaker) shut(g Gate) bool { return g.After > 0 && b.failures >= g.After }

// until returns the zero time to one who may begin, and to others when to ask
// again.
func (b *breaker) until(now time.Time, g Gate) time.Time {
	if !b.shut(g) {
		return time.Time{}
	}
	if !now.Before(b.next) {
		b.next, b.held = now.Add(g.Probe), 0
		return time.Time{}
	}
	b.held++
	wait := g.Probe * time.Duration(b.held/gateShare)
	return b.next.Add(min(wait, max(gateMost, g.Probe)))
}
