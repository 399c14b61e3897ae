package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/examples/shop/web"
)

// operation adds GET path, which calls fn.
func operation(path string, fn func(ctx context.Context) (string, error)) func(huma.API) {
	type output struct{ Body string }
	return func(api huma.API) {
		huma.Register(api, huma.Operation{
			Method: http.MethodGet, Path: path,
			Responses: map[string]*huma.Response{"200": {Description: "It worked"}},
		}, func(ctx context.Context, _ *struct{}) (*output, error) {
			text, err := fn(ctx)
			return &output{text}, err
		})
	}
}

func handler(t *testing.T, s *web.Server) http.Handler {
	t.Helper()
	h, err := s.Handler()
	require.NoError(t, err)
	return h
}

type answer struct {
	Status  int
	Message any
	Data    any
}

func get(t *testing.T, h http.Handler, path string) answer {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	require.Equal(t, "application/json; charset=utf-8", w.Header().Get("Content-Type"))
	out := answer{Status: w.Code}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &out))
	return out
}

func TestAnswersComeInTheEnvelope(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	h := handler(t, &web.Server{
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Routes: []func(huma.API){
			operation("/ok", func(context.Context) (string, error) { return "<b>", nil }),
			operation("/gone", func(context.Context) (string, error) { return "", huma.Error410Gone("it is gone") }),
			operation("/bad", func(context.Context) (string, error) {
				return "", huma.Error400BadRequest("bad", errors.New("one"), errors.New("two"))
			}),
			operation("/fault", func(context.Context) (string, error) { return "", errors.New("the password is 1234") }),
			operation("/panic", func(context.Context) (string, error) { panic("the password is 5678") }),
		},
	})
	require.Equal(t, answer{200, "It worked", "<b>"}, get(t, h, "/ok"))
	require.Equal(t, answer{410, "it is gone", nil}, get(t, h, "/gone"))
	require.Equal(t, answer{400, []any{"one", "two"}, nil}, get(t, h, "/bad"))
	require.NotContains(t, log.String(), "level=ERROR")

	require.Equal(t, answer{500, "Internal server error", nil}, get(t, h, "/fault"))
	require.Contains(t, log.String(), "the password is 1234")
	require.Equal(t, answer{500, "Internal server error", nil}, get(t, h, "/panic"))
	require.Contains(t, log.String(), "the password is 5678")
}

func TestPanicAfterTheAnswerHasBegunCutsTheConnection(t *testing.T) {
	t.Parallel()
	type output struct{ Body func(huma.Context) }
	h := handler(t, &web.Server{Logger: slog.New(slog.DiscardHandler), Routes: []func(huma.API){func(api huma.API) {
		huma.Register(api, huma.Operation{Method: http.MethodGet, Path: "/half"}, func(context.Context, *struct{}) (*output, error) {
			return &output{func(ctx huma.Context) {
				_, _ = ctx.BodyWriter().Write([]byte("half of it"))
				panic("no more")
			}}, nil
		})
	}}})
	srv := httptest.NewServer(h)
	defer srv.Close()
	resp, err := http.Get(srv.URL + "/half")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	require.Error(t, err)
}

func TestHealth(t *testing.T) {
	t.Parallel()
	health := map[string]bool{"b": false, "a": false, "c": true}
	h := handler(t, &web.Server{Logger: slog.New(slog.DiscardHandler), Health: func() map[string]bool { return health }})
	require.Equal(t, answer{503, "not ready: a, b", nil}, get(t, h, "/healthz"))
	health = map[string]bool{"a": true}
	require.Equal(t, answer{200, "ready", map[string]any{"a": "ready"}}, get(t, h, "/healthz"))
}

func TestRequestsInHandAreAnsweredBeforeRunReturns(t *testing.T) {
	t.Parallel()
	begun, end := make(chan struct{}), make(chan struct{})
	s := &web.Server{Addr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler), Routes: []func(huma.API){
		operation("/slow", func(context.Context) (string, error) {
			close(begun)
			<-end
			return "done", nil
		}),
	}}
	require.NoError(t, s.Listen(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var runErr, getErr error
	var status int
	group.Go(func() { runErr = s.Run(ctx) })
	group.Go(func() {
		var resp *http.Response
		if resp, getErr = http.Get("http://" + s.Address() + "/slow"); getErr == nil {
			status = resp.StatusCode
			resp.Body.Close()
		}
	})
	<-begun
	cancel()
	close(end)
	group.Wait()
	require.NoError(t, runErr)
	require.NoError(t, getErr)
	require.Equal(t, http.StatusOK, status)
}
