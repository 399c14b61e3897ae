package ratelimit

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
)

// Headers say which header fields an [HTTP] answers with.
type Headers uint8

const (
	// IETF are RateLimit-Policy, with all tiers, and RateLimit, with the tier
	// that has least left (draft-ietf-httpapi-ratelimit-headers-10, sections 3
	// and 4), and Retry-After (RFC 9110, 10.2.3) when refused.
	IETF Headers = 1 << iota
	// Throttler are those of @nestjs/throttler 6.5: X-RateLimit-Limit-short,
	// X-RateLimit-Remaining-short and X-RateLimit-Reset-short for each tier that
	// was asked and did not refuse, Retry-After-short for one that did; without
	// the suffix for a tier named "default".
	Throttler
	// NoHeaders are none.
	NoHeaders
)

// HTTP limits the requests to an http.Handler. Its fields must not be changed
// after Handler was called.
type HTTP struct {
	// Limiter decides. There is no default; without Mode NestJS a refused request
	// costs nothing.
	Limiter *Limiter
	// Key is of which key a request is. nil means by the client's network, see
	// Client. Where clients log in, their id is a better one.
	Key func(*http.Request) string
	// PerRoute counts each route by itself, as NestJS does: the pattern of the
	// http.ServeMux that is wrapped, or that has led to what is wrapped, is put
	// before the key. Requests that match no pattern are one route.
	PerRoute bool
	// Cost is what a request costs, 0 if it is not limited, such as a health
	// check. nil means 1. One that can never pass is refused without a Retry-After.
	Cost func(*http.Request) int
	// Headers are the fields to answer with. 0 means IETF; IETF|Throttler is
	// both.
	Headers Headers
	// Refused answers a request that is refused; headers are set before. nil
	// means 429 and a problem of type quota-exceeded (RFC 9457; section 5.1 of
	// the draft), with the names of the tiers that refused.
	Refused func(http.ResponseWriter, *http.Request, Decision)
	// Failed answers a request that cannot be decided on: the error wraps
	// ErrStore. nil means 503 and a problem.
	Failed func(http.ResponseWriter, *http.Request, error)

	// Proxies are the networks of the proxies before this server. What they say
	// about who is behind them is believed, and what others say never. Without
	// any, the client is whoever has connected.
	Proxies []netip.Prefix
	// Forwarded makes the header field Forwarded (RFC 7239) count, and not
	// X-Forwarded-For. The proxies must set the one that counts: it is never
	// both, or a client could send the other.
	Forwarded bool
	// IPv4 and IPv6 are how many bits of an address the network is that shares a
	// key. 0 means 32 and 64: who has one IPv6 address has its /64.
	IPv4, IPv6 int
}

// Handler returns next with the limit before it. All that is wrong with the
// fields, the Limiter's too, is one error.
func (h *HTTP) Handler(next http.Handler) (http.Handler, error) {
	if err := joined("ratelimit.HTTP", h.faults()); err != nil {
		return nil, err
	}
	l := h.Limiter
	c, _ := l.get()
	policy := policies(c.rules)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cost := 1
		if h.Cost != nil {
			cost = h.Cost(r)
		}
		if cost == 0 {
			next.ServeHTTP(w, r)
			return
		}
		d, err := l.Take(r.Context(), h.key(next, r), cost)
		if tooMuch, ok := errors.AsType[*CostError](err); ok && cost > 0 {
			d = c.never(tooMuch.Cost)
			err = nil
		}
		if err == nil {
			h.headers(w.Header(), policy, &d)
		}
		switch {
		case r.Context().Err() != nil && err != nil: // nobody listens
		case err != nil && h.Failed != nil:
			h.Failed(w, r, err)
		case err != nil:
			problem(w, http.StatusServiceUnavailable, map[string]any{"type": "about:blank", "title": "Service Unavailable"})
		case d.OK:
			next.ServeHTTP(w, r)
		case h.Refused != nil:
			h.Refused(w, r, d)
		default:
			problem(w, http.StatusTooManyRequests, map[string]any{"type": quotaExceeded, "title": "Too many requests: a quota is exceeded", "violated-policies": d.Refused()})
		}
	}), nil
}

// quotaExceeded is registered by section 5.1 of the draft.
const quotaExceeded = "https://iana.org/assignments/http-problem-types#quota-exceeded"

func problem(w http.ResponseWriter, status int, members map[string]any) {
	members["status"] = status
	body, _ := json.Marshal(members) //nolint:errchkjson // strings and numbers
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store") // RFC 6585, section 4
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// never is the decision on a request that costs more than tiers ever have.
func (c *ready) never(cost int) Decision {
	d := Decision{rules: c.rules}
	for i, t := range c.rules.Tiers {
		if cost > t.Limit {
			d.Tiers[i] = Left{Asked: true, Refused: true}
		}
	}
	return d
}

func (h *HTTP) faults() (faults []error) {
	if h.Limiter == nil {
		faults = append(faults, errors.New("Limiter is nil"))
	} else if err := h.Limiter.Check(); err != nil {
		faults = append(faults, err)
	} else if c, _ := h.Limiter.get(); h.Headers&Throttler != 0 {
		for _, t := range c.rules.Tiers {
			if !token(t.Name) {
				faults = append(faults, fmt.Errorf("tier %q: its name is no part of a header's (RFC 9110, 5.1), as the headers Throttler need", t.Name))
			}
		}
	}
	if h.Headers >= NoHeaders<<1 || h.Headers&NoHeaders != 0 && h.Headers != NoHeaders {
		faults = append(faults, fmt.Errorf("Headers %d is no set: use IETF, Throttler, IETF|Throttler or NoHeaders", h.Headers))
	}
	if h.IPv4 < 0 || h.IPv4 > 32 {
		faults = append(faults, fmt.Errorf("IPv4 is %d, and must be 0 to 32 bits", h.IPv4))
	}
	if h.IPv6 < 0 || h.IPv6 > 128 {
		faults = append(faults, fmt.Errorf("IPv6 is %d, and must be 0 to 128 bits", h.IPv6))
	}
	for _, p := range h.Proxies {
		if !p.IsValid() {
			faults = append(faults, fmt.Errorf("%v in Proxies is no network", p))
		} else if p.Addr().Is4In6() {
			faults = append(faults, fmt.Errorf("%v in Proxies: write it as an IPv4 network, as addresses are compared", p))
		}
	}
	return faults
}

func (h *HTTP) key(next http.Handler, r *http.Request) string {
	var key string
	if h.Key != nil {
		key = h.Key(r)
	} else {
		key = h.Network(r)
	}
	if !h.PerRoute {
		return key
	}
	pattern := r.Pattern
	if mux, ok := next.(interface {
		Handler(*http.Request) (http.Handler, string)
	}); ok {
		_, pattern = mux.Handler(r)
	}
	return pattern + "\n" + key // no pattern has a line feed
}
