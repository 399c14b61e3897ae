package ratelimit_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/ratelimit"
)

// served says that a request came through.
var served = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })

func handler(t *testing.T, h *ratelimit.HTTP, next http.Handler) http.Handler {
	t.Helper()
	limited, err := h.Handler(next)
	require.NoError(t, err)
	return limited
}

// answer is what there is of an http.Response in a test.
type answer struct {
	StatusCode int
	Header     http.Header
	Body       io.Reader
}

// get sends a request and returns the answer; headers are "Name: value".
func get(h http.Handler, from, path string, headers ...string) answer {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.RemoteAddr = from
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body}
}

// limits are the fields of an answer that this package sets.
func limits(r answer) map[string]string {
	got := map[string]string{}
	for name := range r.Header {
		if strings.Contains(strings.ToLower(name), "ratelimit") || strings.HasPrefix(name, "Retry") {
			got[name] = r.Header.Get(name)
		}
	}
	return got
}

const policy = `"short";q=3;w=5, "medium";q=10;w=20, "long";q=25;w=90`

func TestHTTP_HeadersAndProblem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := handler(t, &ratelimit.HTTP{Limiter: &ratelimit.Limiter{Tiers: tiers()}}, served)
		for _, want := range []string{`"short";r=2;t=5`, `"short";r=1;t=5`, `"short";r=0;t=4`} {
			r := get(h, "192.0.2.1:1234", "/")
			require.Equal(t, http.StatusNoContent, r.StatusCode)
			require.Equal(t, map[string]string{"Ratelimit-Policy": policy, "Ratelimit": want}, limits(r))
			time.Sleep(900 * ms)
		}
		r := get(h, "192.0.2.1:9999", "/")
		require.Equal(t, http.StatusTooManyRequests, r.StatusCode)
		require.Equal(t, map[string]string{"Ratelimit-Policy": policy, "Ratelimit": `"short";r=0;t=3`, "Retry-After": "3"}, limits(r))
		require.Equal(t, "application/problem+json", r.Header.Get("Content-Type"))
		require.Equal(t, "no-store", r.Header.Get("Cache-Control"))
		body, _ := io.ReadAll(r.Body)
		require.JSONEq(t, `{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"Too many requests: a quota is exceeded","status":429,"violated-policies":["short"]}`, string(body))
		require.Equal(t, http.StatusNoContent, get(h, "192.0.2.2:1", "/").StatusCode, "another client")
		time.Sleep(3 * s)
		require.Equal(t, http.StatusNoContent, get(h, "192.0.2.1:1", "/").StatusCode, "who waited as told is not early")
	})
}

// Whoever does what Retry-After says is served; it is never before the t of the
// tier reported.
func TestHTTP_RetryAfterIsAPromise(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := handler(t, &ratelimit.HTTP{Limiter: &ratelimit.Limiter{Tiers: tiers()}, Cost: func(r *http.Request) int { return len(r.URL.Path) - 1 }}, served)
		refused := 0
		for i := range 2000 {
			path := "/" + strings.Repeat("x", 1+i%3)
			r := get(h, "192.0.2.1:1", path)
			if r.StatusCode == http.StatusNoContent {
				time.Sleep(time.Duration(i%5) * 333 * ms)
				continue
			}
			refused++
			var wait, left, reset int
			_, err := fmt.Sscan(r.Header.Get("Retry-After"), &wait)
			require.NoError(t, err)
			_, fields, _ := strings.Cut(r.Header.Get("RateLimit"), ";")
			_, err = fmt.Sscanf(fields, "r=%d;t=%d", &left, &reset)
			require.NoError(t, err)
			require.GreaterOrEqual(t, wait, reset)
			time.Sleep(time.Duration(wait) * s)
			require.Equal(t, http.StatusNoContent, get(h, "192.0.2.1:1", path).StatusCode)
		}
		require.Greater(t, refused, 100)
	})
}

func TestHTTP_AsTheNestJSThrottler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := handler(t, &ratelimit.HTTP{Limiter: &ratelimit.Limiter{Tiers: tiers(), Mode: ratelimit.NestJS}, Headers: ratelimit.Throttler}, served)
		short := func(left, reset string) map[string]string {
			return map[string]string{"X-Ratelimit-Limit-Short": "3", "X-Ratelimit-Remaining-Short": left, "X-Ratelimit-Reset-Short": reset}
		}
		others := func(all map[string]string, medium, reset, long, resetLong string) map[string]string {
			maps.Copy(all, map[string]string{"X-Ratelimit-Limit-Medium": "10", "X-Ratelimit-Remaining-Medium": medium, "X-Ratelimit-Reset-Medium": reset})
			maps.Copy(all, map[string]string{"X-Ratelimit-Limit-Long": "25", "X-Ratelimit-Remaining-Long": long, "X-Ratelimit-Reset-Long": resetLong})
			return all
		}
		require.Equal(t, others(short("2", "5"), "9", "20", "24", "90"), limits(get(h, "192.0.2.1:1", "/")))
		time.Sleep(1500 * ms)
		require.Equal(t, others(short("1", "4"), "8", "19", "23", "89"), limits(get(h, "192.0.2.1:1", "/")))
		require.Equal(t, others(short("0", "4"), "7", "19", "22", "89"), limits(get(h, "192.0.2.1:1", "/")))
		r := get(h, "192.0.2.1:1", "/")
		require.Equal(t, http.StatusTooManyRequests, r.StatusCode)
		require.Equal(t, map[string]string{"Retry-After-Short": "5"}, limits(r))
		time.Sleep(4 * s) // the first hit has left the window; the block goes on
		require.Equal(t, map[string]string{"Retry-After-Short": "1"}, limits(get(h, "192.0.2.1:1", "/")))
		time.Sleep(s)
		require.Equal(t, others(short("2", "4"), "6", "14", "21", "84"), limits(get(h, "192.0.2.1:1", "/")), "the Reset of short began again while it was blocked, as there")
	})
}

func TestHTTP_TheDefaultTierHasNoSuffixAndBothSetsGoTogether(t *testing.T) {
	t.Parallel()
	h := handler(t, &ratelimit.HTTP{Limiter: &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Limit: 1, Per: time.Minute}}}, Headers: ratelimit.IETF | ratelimit.Throttler}, served)
	require.Equal(t, map[string]string{
		"Ratelimit-Policy": `"default";q=1;w=60`, "Ratelimit": `"default";r=0;t=60`,
		"X-Ratelimit-Limit": "1", "X-Ratelimit-Remaining": "0", "X-Ratelimit-Reset": "60",
	}, limits(get(h, "192.0.2.1:1", "/")))
	require.Equal(t, map[string]string{"Ratelimit-Policy": `"default";q=1;w=60`, "Ratelimit": `"default";r=0;t=60`, "Retry-After": "60"}, limits(get(h, "192.0.2.1:1", "/")))
	h = handler(t, &ratelimit.HTTP{Limiter: &ratelimit.Limiter{Tiers: tiers()}, Headers: ratelimit.NoHeaders}, served)
	require.Empty(t, limits(get(h, "192.0.2.1:1", "/")))
	_, err := (&ratelimit.HTTP{Limiter: &ratelimit.Limiter{Tiers: []ratelimit.Tier{{Name: "per day", Limit: 1, Per: s}}}, Headers: ratelimit.Throttler}).Handler(served)
	require.ErrorContains(t, err, `tier "per day": its name is no part of a header's`)
}

// Routes are counted by themselves, wherever the middleware stands; a client
// cannot make up routes.
func TestHTTP_PerRoute(t *testing.T) {
	t.Parallel()
	for name, wrap := range map[string]func(h *ratelimit.HTTP, mux *http.ServeMux) http.Handler{
		"around the mux": func(h *ratelimit.HTTP, mux *http.ServeMux) http.Handler {
			mux.Handle("GET /orders/{id}", served)
			mux.Handle("GET /users", served)
			return handler(t, h, mux)
		},
		"around each handler": func(h *ratelimit.HTTP, mux *http.ServeMux) http.Handler {
			mux.Handle("GET /orders/{id}", handler(t, h, served))
			mux.Handle("GET /users", handler(t, h, served))
			return mux
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &ratelimit.Memory{}
			h := wrap(&ratelimit.HTTP{PerRoute: true, Limiter: &ratelimit.Limiter{Store: m, Tiers: []ratelimit.Tier{{Limit: 2, Per: time.Hour}}}}, http.NewServeMux())
			for i, path := range []string{"/orders/1", "/users", "/orders/2", "/users", "/orders/3", "/users"} {
				require.Equal(t, i >= 4, get(h, "192.0.2.1:1", path).StatusCode == http.StatusTooManyRequests, path)
			}
			for i := range 100 {
				get(h, "192.0.2.1:1", fmt.Sprint("/nothing/", i))
			}
			require.LessOrEqual(t, m.Keys(), 3)
		})
	}
}

func TestHTTP_KeyCostRefusedAndFailedAreTheUsers(t *testing.T) {
	t.Parallel()
	h := &ratelimit.HTTP{
		Limiter: &ratelimit.Limiter{Tiers: tiers()},
		Key:     func(r *http.Request) string { return r.Header.Get("User") },
		Cost: func(r *http.Request) int {
			return map[string]int{"/health": 0, "/import": 3, "/never": 4, "/bug": -1}[r.URL.Path]
		},
		Refused: func(w http.ResponseWriter, _ *http.Request, d ratelimit.Decision) {
			w.WriteHeader(http.StatusTeapot)
			_ = json.NewEncoder(w).Encode(d.Refused())
		},
		Failed: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
	limited := handler(t, h, served)
	require.Equal(t, http.StatusNoContent, get(limited, "192.0.2.1:1", "/import", "User: ada").StatusCode)
	r := get(limited, "192.0.2.2:1", "/import", "User: ada")
	require.Equal(t, http.StatusTeapot, r.StatusCode)
	require.NotEmpty(t, r.Header.Get("Retry-After"))
	body, _ := io.ReadAll(r.Body)
	require.JSONEq(t, `["short"]`, string(body))
	require.Equal(t, http.StatusNoContent, get(limited, "192.0.2.1:1", "/import", "User: grace").StatusCode)
	r = get(limited, "192.0.2.2:1", "/health", "User: ada")
	require.Equal(t, http.StatusNoContent, r.StatusCode)
	require.Empty(t, limits(r))
	r = get(limited, "192.0.2.2:1", "/never", "User: eve")
	require.Equal(t, http.StatusTeapot, r.StatusCode)
	require.Equal(t, map[string]string{"Ratelimit-Policy": policy, "Ratelimit": `"short";r=0`}, limits(r), "waiting would not help")
	require.Equal(t, http.StatusBadGateway, get(limited, "192.0.2.2:1", "/bug", "User: eve").StatusCode)
}

func TestHTTP_WithoutItsStore(t *testing.T) {
	t.Parallel()
	down := &ratelimit.Memory{MaxKeys: 1, Full: ratelimit.RefuseNew}
	l := &ratelimit.Limiter{Tiers: tiers(), Store: down}
	h := handler(t, &ratelimit.HTTP{Limiter: l}, served)
	require.Equal(t, http.StatusNoContent, get(h, "192.0.2.1:1", "/").StatusCode)
	r := get(h, "192.0.2.2:1", "/")
	require.Equal(t, http.StatusServiceUnavailable, r.StatusCode)
	require.Empty(t, limits(r))
	body, _ := io.ReadAll(r.Body)
	require.JSONEq(t, `{"type":"about:blank","title":"Service Unavailable","status":503}`, string(body))
	open := handler(t, &ratelimit.HTTP{Limiter: &ratelimit.Limiter{Tiers: tiers(), Store: down, FailOpen: true}}, served)
	require.Equal(t, http.StatusNoContent, get(open, "192.0.2.3:1", "/").StatusCode)
	r = get(open, "192.0.2.4:1", "/")
	require.Equal(t, http.StatusNoContent, r.StatusCode)
	require.Equal(t, map[string]string{"Ratelimit-Policy": policy}, limits(r), "what is left nobody knows")
}
