package main

import (
	"context"
	"net"
	"net/http"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/internal/interop"
)

func TestLimits_AClientThatOrdersTooOftenIsRefusedAndItsOrderIsNotPlaced(t *testing.T) {
	t.Parallel()
	p := start(t, "-limits", "3/1h")
	p.ready()
	for range 3 {
		require.Equal(t, http.StatusCreated, p.post(seedOrder).Status)
	}
	out := p.post(seedOrder)
	require.Equal(t, http.StatusTooManyRequests, out.Status)
	require.Equal(t, "ThrottlerException: Too Many Requests", out.Message)
	require.Equal(t, `"1h";q=3;w=3600`, out.Header.Get("RateLimit-Policy"))
	require.NotEmpty(t, out.Header.Get("Retry-After"))
	require.Len(t, p.list(), 3, "another route")
}

func TestLimits_ProcessesWithOneRedisCountTogetherAndGoOnWithoutIt(t *testing.T) {
	t.Parallel()
	addr, stop := startRedis(t)
	p := start(t, "-services", "orders,auth", "-limits", "2/1h", "-redis", addr)
	q := start(t, "-services", "orders,auth", "-limits", "2/1h", "-redis", addr)
	p.ready()
	q.ready()
	eventually(t, "one of them to refuse", func() bool { return p.get("/orders").Status == http.StatusTooManyRequests })
	var out answer
	eventually(t, "the other one to reach Redis in time", func() bool {
		out = q.get("/orders")
		return out.Header.Get("RateLimit") != ""
	})
	require.Equal(t, http.StatusTooManyRequests, out.Status, "at its first request that counts")
	require.Equal(t, `"1h";q=2;w=3600`, out.Header.Get("RateLimit-Policy"))

	stop()
	for range 3 {
		require.Empty(t, p.list())
	}
	require.NotEmpty(t, p.logs.lines("ratelimit: the store does not answer"))
}

// startRedis runs a redis-server for the test and returns its address and what
// stops it.
func startRedis(t *testing.T) (addr string, stop func()) {
	t.Helper()
	interop.Need(t, "redis-server")
	addr = freeAddr(t)
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	eventually(t, "redis-server to answer", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return addr, stop
}
