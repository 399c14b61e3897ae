package ratelimit_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/ratelimit"
)

// startRedis runs a redis-server of its own for the test, on a free port of
// 127.0.0.1, and returns its address and what stops it. A test without the
// program is skipped, or fails with KAFKATEST_REQUIRE=1.
func startRedis(t testing.TB, options ...string) (addr string, stop func()) {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		why := "needs redis-server (Debian: apt-get install redis-server): " + err.Error()
		if os.Getenv("KAFKATEST_REQUIRE") == "1" {
			t.Fatal("KAFKATEST_REQUIRE=1, and this " + why)
		}
		t.Skip(why)
	}
	for range 5 { // somebody may take the port before redis-server does
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		addr = listener.Addr().String()
		_, port, _ := net.SplitHostPort(addr)
		require.NoError(t, listener.Close())
		args := append([]string{"--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", t.TempDir()}, options...)
		if stop = serveRedis(t, program, args); stop != nil {
			return addr, stop
		}
	}
	require.FailNow(t, "redis-server does not start")
	return "", nil
}

func serveRedis(t testing.TB, program string, args []string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, args...)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	stop = sync.OnceFunc(func() {
		cancel()
		_ = cmd.Wait()
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(strings.ToLower(lines.Text()), "ready to accept connections") {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			t.Cleanup(stop)
			return stop
		}
	}
	stop()
	return nil
}

// client speaks RESP2 on one connection, one command after the other: all that
// these tests need of Redis.
type client struct {
	addr string
	mu   sync.Mutex
	conn net.Conn
	in   *bufio.Reader
}

func dial(t testing.TB, addr string) *client {
	c := &client{addr: addr}
	t.Cleanup(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.conn != nil {
			c.conn.Close()
		}
	})
	return c
}

func (c *client) do(ctx context.Context, args ...any) (reply any, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.addr)
		if err != nil {
			return nil, err
		}
		c.conn, c.in = conn, bufio.NewReader(conn)
	}
	end, _ := ctx.Deadline()
	_ = c.conn.SetDeadline(end)
	var text bytes.Buffer
	fmt.Fprintf(&text, "*%d\r\n", len(args))
	for _, a := range args {
		arg := fmt.Sprint(a)
		fmt.Fprintf(&text, "$%d\r\n%s\r\n", len(arg), arg)
	}
	if _, err = text.WriteTo(c.conn); err == nil {
		reply, err = c.read()
	}
	if _, refused := errors.AsType[redisError](err); err != nil && !refused {
		c.conn.Close() // nobody knows what its next answer belongs to
		c.conn = nil
	}
	return reply, err
}

type redisError string

func (e redisError) Error() string { return string(e) }

func (c *client) read() (any, error) {
	line, err := c.in.ReadString('\n')
	if err != nil {
		return nil, err
	}
	kind, rest := line[0], strings.TrimRight(line[1:], "\r\n")
	switch kind {
	case '+':
		return rest, nil
	case '-':
		return nil, redisError(rest)
	case ':':
		return strconv.ParseInt(rest, 10, 64)
	}
	n, err := strconv.Atoi(rest)
	if err != nil || n < 0 {
		return nil, err
	}
	if kind == '$' {
		text := make([]byte, n+2)
		_, err = io.ReadFull(c.in, text)
		return string(text[:n]), err
	}
	list := make([]any, n)
	for i := range list {
		if list[i], err = c.read(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (c *client) eval(ctx context.Context, script string, keys []string, args ...any) (any, error) {
	all := []any{"EVAL", script, len(keys)}
	for _, k := range keys {
		all = append(all, k)
	}
	return c.do(ctx, append(all, args...)...)
}

func (c *client) must(t *testing.T, args ...any) any {
	t.Helper()
	reply, err := c.do(t.Context(), args...)
	require.NoError(t, err)
	return reply
}

func redisStore(c *client) *ratelimit.Redis {
	return &ratelimit.Redis{Eval: c.eval, Timeout: 10 * time.Second}
}
