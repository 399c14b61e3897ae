package retry

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/wherry-go/wherry"
)

// The defaults of a [Policy].
const (
	defaultAttempts   = 3
	defaultInitial    = time.Second
	defaultMultiplier = 2
)

// longest is what a wait without a Max ends at, some 146 years: low enough that
// no arithmetic on it overflows.
const longest = time.Duration(1 << 62)

// schedule is a policy, or a policy and one of its rules, with the defaults
// filled in.
type schedule struct {
	attempts   int
	initial    time.Duration
	multiplier float64
	max        time.Duration
	jitter     float64
}

func (p Policy) schedule() schedule {
	return schedule{
		attempts:   cmp.Or(p.Attempts, defaultAttempts),
		initial:    cmp.Or(p.Initial, defaultInitial),
		multiplier: cmp.Or(p.Multiplier, defaultMultiplier),
		max:        cmp.Or(p.Max, longest),
		jitter:     p.Jitter,
	}
}

// schedules yields what the policy may follow: its own schedule and those of
// its rules, each with a name for errors.
func (p Policy) schedules() iter.Seq2[string, schedule] {
	return func(yield func(string, schedule) bool) {
		if !yield("the policy", p.schedule()) {
			return
		}
		for i, rule := range p.Rules {
			if !rule.GiveUp && !yield(fmt.Sprintf("rule %d", i), rule.schedule(p)) {
				return
			}
		}
	}
}

// Delays yields the waits between the attempts, one fewer than there are, with
// their jitter. Those that would end after Within, if the attempts themselves
// took no time, are left out. Rules have no part in it.
func (p Policy) Delays() iter.Seq[time.Duration] {
	return func(yield func(time.Duration) bool) {
		s, sum := p.schedule(), time.Duration(0)
		for n, wait := range s.waits() {
			if n >= s.attempts {
				return
			}
			wait = s.spread(wait)
			if sum = add(sum, wait); p.Within > 0 && sum > p.Within || !yield(wait) {
				return
			}
		}
	}
}

// Next says what follows the nth call, n from 1, that ended with err when
// elapsed had passed since the begin of the first: another one after wait, or,
// if cause is not empty, none for that cause. It is the decision of Wrap and
// Do, for those who keep the time themselves. But for the jitter it is a
// function of its arguments.
func (p Policy) Next(n int, elapsed time.Duration, err error) (wait time.Duration, cause wherry.Cause) {
	return p.next(n, p.left(elapsed), failureOf(nil, err))
}

func (p Policy) next(n int, left time.Duration, f failure) (wait time.Duration, cause wherry.Cause) {
	if f.final != "" {
		return 0, f.final
	}
	s := p.schedule()
	for _, rule := range p.Rules {
		if rule.If != nil && rule.If(f.whole) {
			if rule.GiveUp {
				return 0, wherry.CausePermanent
			}
			s = rule.schedule(p)
			break
		}
	}
	if n >= s.attempts {
		return 0, wherry.CauseExhausted
	}
	if wait, asked := askedFor(f.whole); asked {
		return within(s.spreadLater(wait), left)
	}
	return within(s.spread(s.wait(n)), left)
}

func within(wait, left time.Duration) (time.Duration, wherry.Cause) {
	if wait > left {
		return 0, wherry.CauseExhausted
	}
	return wait, ""
}

// waits yields the wait after each call from the first on, without jitter and
// without an end.
func (s schedule) waits() iter.Seq2[int, time.Duration] {
	return func(yield func(int, time.Duration) bool) {
		b := &backoff.ExponentialBackOff{
			// backoff applies its cap from the second interval on only, and
			// before the randomization: both are done here.
			InitialInterval: min(s.initial, s.max),
			Multiplier:      s.multiplier,
			MaxInterval:     s.max,
			MaxElapsedTime:  0, // not 15 minutes
			Stop:            backoff.Stop,
			Clock:           backoff.SystemClock,
		}
		b.Reset()
		for n := 1; yield(n, b.NextBackOff()); n++ {
		}
	}
}

// wait is the wait after the nth call.
func (s schedule) wait(n int) (wait time.Duration) {
	for i, w := range s.waits() {
		if i == n || w == wait { // it grows no more
			return w
		}
		wait = w
	}
	return wait
}

// beyond returns the first wait that may be longer than limit, and after which
// call it is; 0 if there is none within the time.
func (s schedule) beyond(limit, within time.Duration) (after int, wait time.Duration) {
	var sum, before time.Duration
	for n, w := range s.waits() {
		low, high := s.bounds(w)
		if sum = add(sum, low); n >= s.attempts || within > 0 && sum > within {
			return 0, 0
		}
		if high > limit {
			return n, high
		}
		if w == before {
			return 0, 0
		}
		before = w
	}
	return 0, 0
}

// bounds are the shortest and the longest that jitter makes of a wait.
func (s schedule) bounds(wait time.Duration) (low, high time.Duration) {
	part := time.Duration(s.jitter * float64(wait))
	return max(wait-part, 0), min(add(wait, part), s.max)
}

func (s schedule) spread(wait time.Duration) time.Duration {
	low, high := s.bounds(wait)
	return between(low, high)
}

// spreadLater never makes a wait shorter: it is as long as was asked for.
func (s schedule) spreadLater(wait time.Duration) time.Duration {
	wait = min(wait, longest)
	return between(wait, add(wait, time.Duration(s.jitter*float64(wait))))
}

// between draws one of [low, high].
func between(low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + rand.N(high-low+1)
}

// add is a sum that ends at longest.
func add(a, b time.Duration) time.Duration {
	if a > longest-b {
		return longest
	}
	return a + b
}

// check returns what is wrong with the policy's fields.
func (p Policy) check() (faults []error) {
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(p.Attempts < 0, "Attempts is %d: it counts all calls, use retry.Forever for no end", p.Attempts)
	fault(p.Initial < 0 || p.Max < 0 || p.Within < 0, "Initial, Max and Within must not be negative")
	fault(p.Max > 0 && p.Initial > p.Max, "Initial is %v and Max is %v", p.Initial, p.Max)
	fault(badMultiplier(p.Multiplier), "Multiplier is %v: it must be at least 1", p.Multiplier)
	fault(!(p.Jitter >= 0 && p.Jitter <= 1), "Jitter is %v: it is a part of the wait, 0 to 1", p.Jitter)
	for i, rule := range p.Rules {
		if err := rule.check(p); err != nil {
			faults = append(faults, fmt.Errorf("rule %d: %w", i, err))
		}
	}
	return faults
}

func badMultiplier(m float64) bool { return m != 0 && !(m >= 1 && m <= math.MaxInt32) }

func (r Rule) check(p Policy) error {
	switch {
	case r.If == nil:
		return errors.New("no If: use Is, As, Panicked or a function of yours")
	case r.Attempts < 0 || r.Initial < 0 || r.Max < 0:
		return errors.New("numbers must not be negative")
	case r.Initial > 0 && cmp.Or(r.Max, p.Max) > 0 && r.Initial > cmp.Or(r.Max, p.Max):
		return fmt.Errorf("a wait of %v would be cut to the Max of %v: set the rule's Max", r.Initial, cmp.Or(r.Max, p.Max))
	case badMultiplier(r.Multiplier):
		return fmt.Errorf("the Multiplier is %v, it must be at least 1", r.Multiplier)
	case r.GiveUp && (r.Attempts != 0 || r.Initial != 0 || r.Multiplier != 0 || r.Max != 0):
		return errors.New("it gives up, and says how to go on")
	}
	return nil
}
