package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// Handler returns the handler of all requests: the services' operations,
// GET /healthz and GET /openapi.json. All it answers, but the last, comes in
// the envelope.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	config := huma.DefaultConfig("Shop", "1.0.0")
	config.DocsPath = ""    // huma's page loads its scripts from a CDN
	config.OpenAPIPath = "" // served below: huma's own is not safe for concurrent use
	config.SchemasPath = ""
	config.CreateHooks = nil // they add $schema to what is answered
	config.Transformers = []huma.Transformer{s.envelope}
	config.OnAddOperation = []huma.AddOpFunc{documentEnvelope}
	api := humago.New(mux, config)

	for _, add := range s.Routes {
		add(api)
	}
	s.health(api)
	forgetProblemDetails(api.OpenAPI())
	spec := sync.OnceValues(func() ([]byte, error) { return json.Marshal(api.OpenAPI()) })
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, r *http.Request) {
		b, err := spec()
		if err != nil {
			panic(err)
		}
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(b)
	})
	return s.recovered(notFound(mux))
}

// notFound answers what mux has no handler for: 404, or 405 with Allow where
// the path is known but not with that method.
func notFound(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		own := &refusal{ResponseWriter: w}
		mux.ServeHTTP(own, r)
		if own.status != 0 {
			writeError(w, r, own.status, fmt.Sprintf("Cannot %s %s", r.Method, r.URL.Path))
		}
	})
}

// refusal holds back the mux's own 404 and 405, which are plain text, and lets
// its redirects pass.
type refusal struct {
	http.ResponseWriter
	status int
}

func (r *refusal) WriteHeader(status int) {
	if status < http.StatusBadRequest {
		r.ResponseWriter.WriteHeader(status)
		return
	}
	r.status = status
}

func (r *refusal) Write(b []byte) (int, error) {
	if r.status != 0 {
		return len(b), nil
	}
	return r.ResponseWriter.Write(b)
}

// recovered answers 500 when a handler panics. If the answer has begun by
// then, the connection is cut, so that the client does not take it for whole.
func (s *Server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := &beginning{ResponseWriter: w}
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler:
				panic(p)
			default:
				s.Logger.ErrorContext(r.Context(), "http: a handler panicked", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				if begun.begun {
					panic(http.ErrAbortHandler)
				}
				writeError(w, r, http.StatusInternalServerError, internal)
			}
		}()
		next.ServeHTTP(begun, r)
	})
}

// beginning notes whether an answer has begun.
type beginning struct {
	http.ResponseWriter
	begun bool
}

func (b *beginning) WriteHeader(status int) {
	b.begun = true
	b.ResponseWriter.WriteHeader(status)
}

func (b *beginning) Write(p []byte) (int, error) {
	b.begun = true
	return b.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController and huma, which set deadlines.
func (b *beginning) Unwrap() http.ResponseWriter { return b.ResponseWriter }
