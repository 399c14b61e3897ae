package web

import (
	"fmt"
	"net/http"
)

// routed finds the route before anything else, so that r.Pattern is there for
// the trace, the log and the limits: "" where nobody answers.
func routed(mux *http.ServeMux, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var h http.Handler
		h, r.Pattern = mux.Handler(r)
		if _, ok := h.(http.HandlerFunc); !ok {
			// The mux would redirect //orders to /orders. Nobody else here does.
			r.Pattern = ""
		}
		next.ServeHTTP(w, r)
	})
}

// found answers what mux has no handler for: 404, or 405 with Allow where the
// path is known but not with that method.
func found(mux *http.ServeMux, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Pattern != "" {
			next.ServeHTTP(w, r)
			return
		}
		status := http.StatusNotFound
		refused := refusal{header: http.Header{}}
		mux.ServeHTTP(&refused, r)
		r.Pattern = "" // of a redirect
		if refused.status == http.StatusMethodNotAllowed {
			status = refused.status
			w.Header().Set("Allow", refused.header.Get("Allow"))
		}
		fault{status: status, message: fmt.Sprintf("Cannot %s %s", r.Method, r.URL.Path)}.write(w, r)
	})
}

// refusal keeps the mux's own 404, 405 and redirects to itself.
type refusal struct {
	header http.Header
	status int
}

func (r *refusal) Header() http.Header         { return r.header }
func (r *refusal) WriteHeader(status int)      { r.status = status }
func (r *refusal) Write(b []byte) (int, error) { return len(b), nil }
