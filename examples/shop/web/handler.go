package web

import (
	"encoding/json"
	"net/http"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

// The patterns of what is there for machines that watch. They are neither
// limited nor, the first two, logged and traced: who watches does so often.
const (
	healthPath     = "/healthz"
	healthPattern  = http.MethodGet + " " + healthPath
	metricsPattern = "GET /metrics"
	openAPIPattern = "GET /openapi.json"
)

// Handler returns the handler of all requests: the services' operations,
// GET /healthz, GET /metrics and GET /openapi.json. All it answers, but the last
// two, comes in the envelope; errors come as problem details (RFC 9457) where
// the client asks for them. The error is about Limits and Proxies.
//
// A request passes, in this order: its route is found; its trace begins, or goes
// on; it is logged, once it is answered; its header is measured; it is counted
// by the limits of its route; its body is read; its operation answers.
func (s *Server) Handler() (http.Handler, error) {
	mux := http.NewServeMux()
	s.operations(mux)
	if s.Metrics != nil {
		mux.Handle(metricsPattern, http.HandlerFunc(s.Metrics.ServeHTTP))
	}
	limited, err := s.limited(bounded(mux))
	if err != nil {
		return nil, err
	}
	h := s.observed(shortHeader(found(mux, limited)))
	h = otelhttp.NewHandler(h, "", otelhttp.WithFilter(func(r *http.Request) bool { return !watching(r) }))
	return routed(mux, h), nil
}

// operations adds the operations and their document.
func (s *Server) operations(mux *http.ServeMux) {
	config := huma.DefaultConfig("Shop", "1.0.0")
	config.DocsPath = ""    // huma's page loads its scripts from a CDN
	config.OpenAPIPath = "" // served below: huma's own is not safe for concurrent use
	config.SchemasPath = ""
	config.CreateHooks = nil // they add $schema to what is answered
	config.Transformers = []huma.Transformer{s.envelope}
	config.OnAddOperation = []huma.AddOpFunc{s.document}
	api := humago.New(mux, config)
	api.UseMiddleware(func(ctx huma.Context, next func(huma.Context)) { next(withoutAccept{ctx}) })

	for _, add := range s.Routes {
		add(api)
	}
	s.health(api)
	forgetHumasErrors(api.OpenAPI())
	spec := sync.OnceValues(func() ([]byte, error) { return json.Marshal(api.OpenAPI()) })
	mux.HandleFunc(openAPIPattern, func(w http.ResponseWriter, _ *http.Request) {
		b, err := spec()
		if err != nil {
			panic(err)
		}
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(b)
	})
}

// watching reports whether a request comes from a machine that watches.
func watching(r *http.Request) bool {
	return r.Pattern == healthPattern || r.Pattern == metricsPattern
}
