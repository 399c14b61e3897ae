// Package ratelimit limits how much may happen in a time, for each key by
// itself: a tenant's records, a client's requests, calls of a neighbour.
//
//	limit := &ratelimit.Limiter{Tiers: []ratelimit.Tier{
//		{Name: "short", Limit: 3, Per: 5 * time.Second},
//		{Name: "medium", Limit: 10, Per: 20 * time.Second},
//		{Name: "long", Limit: 25, Per: 90 * time.Second},
//	}}
//
//	ok, err := limit.Allow(ctx, "ada")                   // now, or not
//	err := limit.Wait(ctx, "ada")                        // now, or as soon as there is room
//	Policies: []wherry.Policy{dead, again, limit},       // each record of a Consumer, by its key
//	h, err := (&ratelimit.HTTP{Limiter: limit}).Handler(mux)
//
// # What is counted
//
// The tiers of a [Limiter] decide together: an event passes if each of them has
// room, and one that is refused is taken from none. Each is a sliding log, not a
// bucket or a window with fixed ends: within any stretch of time as long as Per
// there is never more than Limit, also across what others would call the end of a
// window, and however many goroutines ask. (With millions of events in a
// window, see MaxEvents of Limiter.) Events may cost more than 1.
//
// # In a Consumer
//
// A record whose key has no room waits as with wherry.Wait: what must come
// after it waits too, others flow on. With wherry.ByKey that is the lane of a
// noisy tenant alone; with ByPartition it is the partition. Several Consumers
// and processes limit together if their Limiters have a Name and a [Redis] in
// common.
//
// # In an HTTP server
//
// [HTTP] answers a request that is refused with 429, the header fields of
// draft-ietf-httpapi-ratelimit-headers-10, which are structured fields
// (RFC 9651), and a problem (RFC 9457) of the type that the draft registers:
//
//	HTTP/1.1 429 Too Many Requests
//	RateLimit-Policy: "short";q=3;w=5, "medium";q=10;w=20, "long";q=25;w=90
//	RateLimit: "short";r=0;t=5
//	Retry-After: 5
//	Content-Type: application/problem+json
//
//	{"status":429,"title":"…","type":"https://iana.org/assignments/http-problem-types#quota-exceeded","violated-policies":["short"]}
//
// Clients are told apart by address: that of whoever connected, unless it is one
// of Proxies. Whole seconds are rounded up, so that who waits as told is not
// early.
//
// To take the place of a NestJS service, Mode [NestJS] decides as
// @nestjs/throttler 6.5 does, [Throttler] has its header fields, and PerRoute its
// keys.
//
// # Where it is kept
//
// A [Memory], or a [Redis]; any [Store] will do. Both forget keys when they do
// not matter any more. A Memory has at most MaxKeys of them and says what happens
// to the next; a Redis may be away: then events are refused with [ErrStore],
// unless FailOpen.
package ratelimit
