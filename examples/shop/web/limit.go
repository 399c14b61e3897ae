package web

import (
	"net/http"

	"github.com/wherry-go/wherry/ratelimit"
)

// clients tells clients apart.
func (s *Server) clients() *ratelimit.HTTP { return &ratelimit.HTTP{Proxies: s.Proxies} }

// limited counts the requests of each client to each route, and answers 429
// where they are too many.
func (s *Server) limited(next http.Handler) (http.Handler, error) {
	if s.Limits == nil {
		return next, nil
	}
	limit := s.clients()
	limit.Limiter = s.Limits
	limit.PerRoute = true
	limit.Cost = func(r *http.Request) int {
		switch r.Pattern {
		case healthPattern, metricsPattern, openAPIPattern:
			return 0
		}
		return 1
	}
	limit.Refused = func(w http.ResponseWriter, r *http.Request, d ratelimit.Decision) {
		w.Header().Set("Cache-Control", "no-store") // RFC 6585, section 4
		// The words of NestJS's throttler.
		fault{status: http.StatusTooManyRequests, message: "ThrottlerException: Too Many Requests", violated: d.Refused()}.write(w, r)
	}
	limit.Failed = func(w http.ResponseWriter, r *http.Request, _ error) {
		fault{status: http.StatusServiceUnavailable, message: "The rate limits cannot be checked"}.write(w, r)
	}
	return limit.Handler(next)
}
