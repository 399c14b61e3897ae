// Package ratelimit limits how many events may happen in a given time, separately
// for each key: a tenant's records, a client's requests, calls to another service.
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
// The tiers of a [Limiter] decide together: an event passes if all of them have
// room, and one that is refused counts in none. Each tier is a sliding log, not a
// bucket or a window with fixed ends: in any stretch of time as long as Per there
// are never more than Limit events, however many goroutines ask. (For millions of
// events in a window, see MaxEvents of Limiter.) An event may cost more than 1.
//
// # In a Consumer
//
// A record whose key has no room waits as with wherry.Wait: records that must come
// after it wait too, others go on. With wherry.ByKey only a noisy tenant's own
// records wait; with ByPartition the whole partition does. Several Consumers and
// processes share one limit if their Limiters have the same Name and [Redis].
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
// of Proxies. Whole seconds are rounded up, so that a client which waits as told is
// not early.
//
// To take the place of a NestJS service, Mode [NestJS] decides as
// @nestjs/throttler 6.5 does, [Throttler] has its header fields, and PerRoute its
// keys.
//
// # Where it is kept
//
// In a [Memory], a [Redis], or any other [Store]. These two forget keys that do not
// matter any more. A Memory holds at most MaxKeys, and documents what happens to the
// next one. If a Redis cannot be reached, events are refused with [ErrStore], unless
// FailOpen is set.
package ratelimit
