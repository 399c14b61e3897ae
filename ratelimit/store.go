package ratelimit

import "context"

// A Store keeps what the keys of Limiters have spent. [Memory] and [Redis] are
// there; others must do as these do, and be safe for concurrent use.
type Store interface {
	// Take decides on an event of key that costs cost, and counts it if it is
	// allowed, in one step that no other Take of the key can come between. The
	// cost is at least 0 and at most the smallest Limit; an event of cost 0 is
	// asked about and not counted. An error means that nothing is decided.
	Take(ctx context.Context, r *Rules, key string, cost int) (Decision, error)
}
