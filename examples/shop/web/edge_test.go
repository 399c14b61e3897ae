package web_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/examples/shop/web"
	"github.com/wherry-go/wherry/ratelimit"
)

// echo adds POST /echo, which answers with how long the body is.
func echo(api huma.API) {
	type input struct {
		RawBody []byte `contentType:"application/json"`
	}
	type output struct{ Body int }
	huma.Register(api, huma.Operation{Method: http.MethodPost, Path: "/echo", SkipValidateBody: true, Responses: map[string]*huma.Response{"200": {Description: "It worked"}}},
		func(_ context.Context, in *input) (*output, error) { return &output{len(in.RawBody)}, nil })
}

// edge is a server with an operation for each way out.
func edge() *web.Server {
	return &web.Server{
		Logger: slog.New(slog.DiscardHandler),
		Health: func() map[string]bool { return map[string]bool{"orders": false} },
		Limits: &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Name: "short", Limit: 2, Per: time.Hour}, {Name: "long", Limit: 5, Per: 24 * time.Hour}}},
		Routes: []func(huma.API){
			echo,
			operation("/ok", func(context.Context) (string, error) { return "done", nil }),
			operation("/bad", func(context.Context) (string, error) {
				return "", huma.Error400BadRequest("Bad Request", errors.New("one"), errors.New("two"))
			}),
			operation("/gone", func(context.Context) (string, error) { return "", huma.Error410Gone("it is gone") }),
			operation("/fault", func(context.Context) (string, error) { return "", errors.New("the password is 1234") }),
			operation("/panic", func(context.Context) (string, error) { panic("the password is 1234") }),
		},
	}
}

// late is a body that does not come in time.
type late struct{}

func (late) Read([]byte) (int, error) { return 0, fmt.Errorf("read tcp: %w", os.ErrDeadlineExceeded) }

func none() io.Reader { return nil }

func text(s string) func() io.Reader { return func() io.Reader { return strings.NewReader(s) } }

func TestEveryWayOutIsAnEnvelopeOrAProblemIfTheClientAsksForOne(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		method, path string
		body         func() io.Reader
		header       http.Header
		status       int
		message      any
	}{
		{"GET", "/nope?a=b", none, nil, 404, "Cannot GET /nope"},
		{"GET", "//ok", none, nil, 404, "Cannot GET //ok"},
		{"GET", "/a/../ok", none, nil, 404, "Cannot GET /a/../ok"},
		{"DELETE", "/ok", none, nil, 405, "Cannot DELETE /ok"},
		{"GET", "/bad", none, nil, 400, []any{"one", "two"}},
		{"GET", "/gone", none, nil, 410, "it is gone"},
		{"GET", "/fault", none, nil, 500, "Internal server error"},
		{"GET", "/panic", none, nil, 500, "Internal server error"},
		{"GET", "/healthz", none, nil, 503, "not ready: orders"},
		{"POST", "/echo", text(""), nil, 400, "request body is required"},
		{"POST", "/echo", func() io.Reader { return late{} }, nil, 408, "the body did not come in time"},
		{"POST", "/echo", func() io.Reader { return io.MultiReader(strings.NewReader("{"), bad{}) }, nil, 400, "the body cannot be read"},
		{"POST", "/echo", text(strings.Repeat("x", 100<<10+1)), nil, 413, "request entity too large"},
		{"GET", "/ok", func() io.Reader { return io.MultiReader(text(strings.Repeat("x", 100<<10+1))()) }, nil, 413, "request entity too large"},
		{"GET", "/ok", none, http.Header{"X-Long": {strings.Repeat("x", 33<<10)}}, 431, "request header fields too large"},
		{"GET", "/limited", none, nil, 429, "ThrottlerException: Too Many Requests"},
	} {
		for _, accept := range []string{"", "application/problem+json"} {
			server := edge()
			if test.status == http.StatusTooManyRequests {
				server.Routes = append(server.Routes, operation("/limited", func(context.Context) (string, error) { return "", nil }))
				server.Limits = &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Limit: 1, Per: time.Hour}}}
			}
			h := handler(t, server)
			var w *httptest.ResponseRecorder
			for range 2 { // the first may spend the limit
				r := httptest.NewRequest(test.method, test.path, test.body())
				for k, v := range test.header {
					r.Header[k] = v
				}
				if accept != "" {
					r.Header.Set("Accept", accept)
				}
				w = httptest.NewRecorder()
				h.ServeHTTP(w, r)
			}
			name := test.method + " " + test.path
			require.Equal(t, test.status, w.Code, name)
			require.NotContains(t, w.Body.String(), "password")
			require.Contains(t, w.Header().Values("Vary"), "Accept", name)
			var body map[string]any
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body), name)
			if accept == "" {
				require.Equal(t, "application/json; charset=utf-8", w.Header().Get("Content-Type"), name)
				require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`, body["timestamp"])
				delete(body, "timestamp")
				require.Equal(t, map[string]any{
					"success": false, "statusCode": float64(test.status), "message": test.message, "path": test.path, "data": nil,
				}, body, name)
				continue
			}
			require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"), name)
			want := map[string]any{
				"type": "about:blank", "title": http.StatusText(test.status), "status": float64(test.status),
				"detail": test.message, "instance": test.path,
			}
			switch test.status {
			case http.StatusTooManyRequests:
				want["type"], want["title"] = "https://iana.org/assignments/http-problem-types#quota-exceeded", "Quota exceeded"
				want["violated-policies"] = []any{"default"}
			case http.StatusBadRequest:
				if all, ok := test.message.([]any); ok {
					want["detail"] = "one, two"
					want["errors"] = []any{map[string]any{"detail": all[0]}, map[string]any{"detail": all[1]}}
				}
			}
			require.Equal(t, want, body, name)
			if test.status == http.StatusRequestTimeout {
				require.Equal(t, "close", w.Header().Get("Connection"))
			}
		}
	}
}

// The operation has done its work by then: an order is placed.
func TestAcceptThatIsMalformedIsAnsweredAsIfThereWereNone(t *testing.T) {
	t.Parallel()
	for _, accept := range []string{";", ";;;,,,\"", ",;", "; ", "application/json;", "a;q=", "a;=,;", "\xff;"} {
		for path, status := range map[string]int{"/ok": 200, "/gone": 410} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Header.Set("Accept", accept)
			w := httptest.NewRecorder()
			handler(t, edge()).ServeHTTP(w, r)
			require.Equal(t, status, w.Code, "%q", accept)
			require.Equal(t, "application/json; charset=utf-8", w.Header().Get("Content-Type"), "%q", accept)
		}
	}
}

// bad is the rest of a body that breaks off.
type bad struct{}

func (bad) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// dial runs a server and returns a connection to it.
func dial(t *testing.T, s *web.Server) (net.Conn, *bufio.Reader) {
	t.Helper()
	s.Addr = "127.0.0.1:0"
	require.NoError(t, s.Listen(t.Context()))
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	var result error
	group.Go(func() { result = s.Run(ctx) })
	conn, err := net.Dial("tcp", s.Address())
	require.NoError(t, err)
	t.Cleanup(func() {
		conn.Close()
		cancel()
		group.Wait()
		require.NoError(t, result)
	})
	return conn, bufio.NewReader(conn)
}

// raw is an answer, read as it came.
type raw struct {
	status int
	closed bool // the connection is, after it
	body   string
}

// response reads an answer and its whole body.
func response(t *testing.T, r *bufio.Reader) raw {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return raw{resp.StatusCode, resp.Close, string(b)}
}

func TestBodyOfUnknownLengthIsBoundedAndItsConnectionGoesOn(t *testing.T) {
	t.Parallel()
	s := edge()
	s.Limits = nil
	conn, r := dial(t, s)
	for _, test := range []struct{ size, status int }{{100 << 10, 200}, {100<<10 + 1, 413}, {150 << 10, 413}, {1, 200}} {
		_, err := fmt.Fprintf(conn, "POST /echo HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n",
			test.size, strings.Repeat("7", test.size))
		require.NoError(t, err)
		resp := response(t, r)
		require.Equal(t, test.status, resp.status, resp.body)
		if test.status == http.StatusOK {
			require.Contains(t, resp.body, fmt.Sprintf(`"data":%d}`, test.size))
		}
	}
}

func TestBodyThatIsFarTooLongIsAnsweredBeforeItIsThereAndItsConnectionIsClosed(t *testing.T) {
	t.Parallel()
	for _, head := range []string{"Content-Length: 100000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n5f5e100\r\n"} {
		conn, r := dial(t, edge())
		var group sync.WaitGroup
		group.Go(func() { // net/http reads some of it, and then no more
			_, _ = io.WriteString(conn, "POST /echo HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n"+head+strings.Repeat("7", 2<<20))
		})
		resp := response(t, r) // most of the body is still to come
		require.Equal(t, http.StatusRequestEntityTooLarge, resp.status)
		require.True(t, resp.closed)
		require.Contains(t, resp.body, `"message":"request entity too large"`)
		_, err := r.ReadByte()
		require.Error(t, err)
		group.Wait()
	}
}

func TestBodyThatWaitsToBeAskedForIsNotAskedForWhenItIsTooLong(t *testing.T) {
	t.Parallel()
	conn, r := dial(t, edge())
	_, err := io.WriteString(conn, "POST /echo HTTP/1.1\r\nHost: shop\r\nContent-Length: 200000\r\nExpect: 100-continue\r\n\r\n")
	require.NoError(t, err)
	resp := response(t, r)
	require.Equal(t, http.StatusRequestEntityTooLarge, resp.status)
}

func TestHeaderThatIsFarTooLongIsRefusedByNetHTTPItself(t *testing.T) {
	t.Parallel()
	conn, r := dial(t, edge())
	_, err := io.WriteString(conn, "GET /ok HTTP/1.1\r\nHost: shop\r\nX-Long: "+strings.Repeat("x", 80<<10)+"\r\n\r\n")
	require.NoError(t, err)
	resp := response(t, r)
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, resp.status)
	require.Equal(t, "431 Request Header Fields Too Large", resp.body)
}

func TestLimits_EachClientAndRouteIsCountedByItself(t *testing.T) {
	t.Parallel()
	s := edge()
	s.Proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")} // httptest's client
	h := handler(t, s)
	ask := func(method, path, client string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("X-Forwarded-For", client)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	const policy = `"short";q=2;w=3600, "long";q=5;w=86400`
	w := ask("GET", "/ok", "10.0.0.1")
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, policy, w.Header().Get("RateLimit-Policy"))
	require.Equal(t, `"short";r=1;t=3600`, w.Header().Get("RateLimit"))
	require.Empty(t, w.Header().Get("Retry-After"))
	require.Equal(t, http.StatusOK, ask("HEAD", "/ok", "10.0.0.1").Code, "the same route")
	w = ask("GET", "/ok", "10.0.0.1")
	require.Equal(t, http.StatusTooManyRequests, w.Code)
	require.Equal(t, policy, w.Header().Get("RateLimit-Policy"))
	require.Regexp(t, `^"short";r=0;t=3\d{3}$`, w.Header().Get("RateLimit"))
	require.Regexp(t, `^3\d{3}$`, w.Header().Get("Retry-After"))
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))

	require.Equal(t, http.StatusOK, ask("GET", "/ok", "10.0.0.2").Code, "another client")
	require.Equal(t, http.StatusGone, ask("GET", "/gone", "10.0.0.1").Code, "another route")
	for range 10 {
		require.Equal(t, http.StatusServiceUnavailable, ask("GET", "/healthz", "10.0.0.1").Code, "not limited")
		w = ask("GET", "/openapi.json", "10.0.0.1")
		require.Equal(t, http.StatusOK, w.Code, "not limited")
		require.Empty(t, w.Header().Get("RateLimit"))
		require.Equal(t, http.StatusNotFound, ask("GET", "/nope", "10.0.0.1").Code, "no route")
	}
}

func TestLimits_NobodyIsBelievedAboutWhoIsBehindHimUnlessHeIsAProxyOfOurs(t *testing.T) {
	t.Parallel()
	h := handler(t, edge())
	status := 0
	for i := range 3 {
		r := httptest.NewRequest(http.MethodGet, "/ok", nil)
		r.Header.Set("X-Forwarded-For", fmt.Sprintf("10.0.0.%d", i))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		status = w.Code
	}
	require.Equal(t, http.StatusTooManyRequests, status)
}

func TestLimits_FaultsAreToldBeforeAnythingIsServed(t *testing.T) {
	t.Parallel()
	_, err := (&web.Server{Limits: &ratelimit.Limiter{}}).Handler()
	require.ErrorContains(t, err, "has 0 Tiers")
}

func TestRequestsAreLoggedOnceEach(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	s := edge()
	s.Logger = slog.New(slog.NewJSONHandler(&buf, nil))
	h := handler(t, s)
	one := func(method, path string, body io.Reader) (line map[string]any) {
		t.Helper()
		buf.Reset()
		r := httptest.NewRequest(method, path, body)
		r.Header.Set("User-Agent", strings.Repeat("u", 500))
		h.ServeHTTP(httptest.NewRecorder(), r)
		for d := json.NewDecoder(&buf); d.More(); {
			var each map[string]any
			require.NoError(t, d.Decode(&each))
			if each["msg"] == "http: request" {
				require.Nil(t, line, "one line")
				line = each
			}
		}
		return line
	}
	line := one("GET", "/ok?password=1", nil)
	require.Positive(t, line["duration"])
	require.Positive(t, line["bytes"])
	for _, key := range []string{"time", "duration", "bytes"} {
		delete(line, key)
	}
	require.Equal(t, map[string]any{
		"level": "INFO", "msg": "http: request", "method": "GET", "route": "GET /ok", "path": "/ok", "status": 200.0,
		"client": "192.0.2.1", "user_agent": strings.Repeat("u", 128) + "…",
	}, line)
	for _, test := range []struct {
		path   string
		body   io.Reader
		route  string
		status float64
	}{
		{"/nope", nil, "none", 404},
		{"/" + strings.Repeat("x", 300), nil, "none", 404},
		{"/panic", nil, "GET /panic", 500},
		{"/ok", strings.NewReader(strings.Repeat("x", 200_000)), "GET /ok", 413},
		{"/ok", nil, "GET /ok", 429},
	} {
		line := one("GET", test.path, test.body)
		require.Equal(t, test.route, line["route"])
		require.InDelta(t, test.status, line["status"], 0)
		require.LessOrEqual(t, len(line["path"].(string)), 128+len("…"))
	}
	require.Nil(t, one("GET", "/healthz", nil), "not at this level")
}

func TestTraceOfTheClientGoesOnOrANewOneBegins(t *testing.T) {
	t.Parallel()
	h := handler(t, edge())
	ask := func(traceparent string) string {
		r := httptest.NewRequest(http.MethodGet, "/gone", nil)
		if traceparent != "" {
			r.Header.Set("Traceparent", traceparent)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Header().Get("traceresponse")
	}
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	require.Regexp(t, `^00-`+trace+`-[0-9a-f]{16}-01$`, ask("00-"+trace+"-00f067aa0ba902b7-01"))
	require.NotContains(t, ask("00-"+trace+"-00f067aa0ba902b7-01"), "00f067aa0ba902b7", "the span is ours")
	require.Regexp(t, `^00-[0-9a-f]{32}-[0-9a-f]{16}-01$`, ask(""))
	require.NotContains(t, ask("garbage"), trace)
	before := ask("")
	require.NotEqual(t, before, ask(""))
}
