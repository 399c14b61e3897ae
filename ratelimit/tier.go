package ratelimit

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// MaxTiers is how many tiers a Limiter may have.
const MaxTiers = 8

const (
	defaultName      = "default"
	defaultMaxEvents = 1 << 16
	maxLimit         = 1 << 40
	minPer           = time.Millisecond
	maxPer           = 3660 * 24 * time.Hour
)

// Tier allows events that cost Limit together within any stretch of time as
// long as Per: an event at t counts until just before t+Per.
type Tier struct {
	// Name is what headers, errors and metrics call the tier: printable ASCII.
	// "" means "default", as with NestJS.
	Name string
	// Limit is how much all events within Per may cost together, 1 to 2^40. An
	// event costs 1 unless its caller says otherwise.
	Limit int
	// Per is the length of the window, 1 ms to ten years.
	Per time.Duration
	// Block is how long a refused hit blocks the tier in Mode NestJS, and must
	// be 0 otherwise. 0 means Per. (The throttler's blockDuration.)
	Block time.Duration
}

// Mode says how the tiers of a Limiter decide.
type Mode uint8

const (
	// Together asks all tiers at once, and an event that one of them refuses is
	// taken from none: who is refused may try as often as he likes, it costs
	// him nothing. This is the default.
	Together Mode = iota
	// NestJS is what @nestjs/throttler 6.5 does (throttler.guard.ts and
	// throttler.service.ts of it): tiers are asked one after the other, the
	// shortest first, each takes the event and the first that refuses ends
	// it, so that those before it have counted it; the hit that is one too
	// many blocks its tier for Block, whatever leaves the window meanwhile, and
	// the tier begins empty after that.
	NestJS
)

// Rules are a Limiter's, checked and with defaults filled in, as its [Store]
// sees them. They are not to be changed. A store may tell Limiters apart by the
// pointer.
type Rules struct {
	// Name is the Limiter's.
	Name string
	// Mode is the Limiter's.
	Mode Mode
	// Tiers are the Limiter's, the shortest Per first.
	Tiers []Tier
	// MaxEvents is the Limiter's.
	MaxEvents int
}

// life is how long an event can matter.
func (r *Rules) life() time.Duration {
	longest := r.Tiers[len(r.Tiers)-1].Per
	for _, t := range r.Tiers {
		longest = max(longest, t.Block)
	}
	return longest
}

// cell is how wide the cells of a thinned log are for events that are yet to
// leave the window of a tier.
func (r *Rules) cell(tier int) time.Duration {
	return max(1, r.Tiers[tier].Per*2/time.Duration(r.MaxEvents)*time.Duration(len(r.Tiers)))
}

// tooMuch returns why a cost can never pass, nil if it can.
func (r *Rules) tooMuch(cost int) error {
	if cost < 0 {
		return &CostError{Limiter: r.Name, Cost: cost}
	}
	for _, t := range r.Tiers {
		if cost > t.Limit {
			return &CostError{Limiter: r.Name, Tier: t.Name, Cost: cost, Limit: t.Limit}
		}
	}
	return nil
}

// rules checks the Limiter's fields and returns all that is wrong with them.
func (l *Limiter) rules() (*Rules, []error) {
	r := &Rules{Name: l.Name, Mode: l.Mode, Tiers: slices.Clone(l.Tiers), MaxEvents: l.MaxEvents}
	if r.Name == "" {
		r.Name = defaultName
	}
	if r.MaxEvents == 0 {
		r.MaxEvents = defaultMaxEvents
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if n := len(r.Tiers); n == 0 || n > MaxTiers {
		fault("has %d Tiers, and needs 1 to %d", n, MaxTiers)
	}
	if r.Mode > NestJS {
		fault("Mode %d is none: use Together or NestJS", r.Mode)
	}
	if r.MaxEvents < 64 {
		fault("MaxEvents is %d, and must be 64 or more", r.MaxEvents)
	}
	for i := range r.Tiers {
		t := &r.Tiers[i]
		if t.Name == "" {
			t.Name = defaultName
		}
		if !printable(t.Name) {
			fault("tier %q: a name is printable ASCII, for it stands in headers (RFC 9651, 3.3.3)", t.Name)
		}
		if slices.ContainsFunc(r.Tiers[:i], func(other Tier) bool { return strings.EqualFold(other.Name, t.Name) }) {
			fault("tier %q: another one has this name", t.Name)
		}
		if t.Limit < 1 || t.Limit > maxLimit {
			fault("tier %q: Limit is %d, and must be 1 to 2^40", t.Name, t.Limit)
		}
		if t.Per < minPer || t.Per > maxPer {
			fault("tier %q: Per is %v, and must be 1ms to ten years", t.Name, t.Per)
		}
		switch {
		case r.Mode != NestJS && t.Block != 0:
			fault("tier %q: Block is for Mode NestJS", t.Name)
		case t.Block < 0 || t.Block > maxPer:
			fault("tier %q: Block is %v, and must be 0 to ten years", t.Name, t.Block)
		case r.Mode == NestJS && t.Block == 0:
			t.Block = t.Per
		}
	}
	slices.SortStableFunc(r.Tiers, func(a, b Tier) int { return cmp.Compare(a.Per, b.Per) })
	if c, ok := l.Store.(interface{ check() []error }); ok {
		faults = append(faults, c.check()...)
	}
	return r, faults
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

func joined(of string, faults []error) error {
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("%s: %w", of, err)
	}
	return nil
}
