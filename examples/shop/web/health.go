package web

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// healthOutput has each service by name, and "ready". In the envelope's data it
// leaves room for more than one word.
type healthOutput struct {
	Body map[string]string
}

// health adds GET /healthz: 200 when every service of this process is ready,
// else 503 with the names of those that are not, for whoever sends traffic or
// waits for the start. It asks no broker: a process that loses its brokers for
// a while stays ready, because another start would not bring them back.
func (s *Server) health(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "health",
		Method:      http.MethodGet,
		Path:        healthPath,
		Summary:     "Whether all services of this process are ready",
		Responses:   map[string]*huma.Response{"200": {Description: "ready"}},
		Errors:      []int{http.StatusServiceUnavailable},
	}, func(context.Context, *struct{}) (*healthOutput, error) {
		var missing []string
		out := &healthOutput{Body: map[string]string{}}
		health := s.Health()
		for _, name := range slices.Sorted(maps.Keys(health)) {
			out.Body[name] = "ready"
			if !health[name] {
				missing = append(missing, name)
			}
		}
		if missing != nil {
			return nil, huma.Error503ServiceUnavailable("not ready: " + strings.Join(missing, ", "))
		}
		return out, nil
	})
}
