package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/internal/embedded"
)

// command is the shop as a process of its own.
type command struct {
	api
	cmd    *exec.Cmd
	stderr *logs
	done   chan struct{}
}

// launch starts the binary with these flags and environment.
func launch(t *testing.T, env []string, args ...string) *command {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	c := &command{cmd: exec.Command(path, append([]string{"-limits", "off"}, args...)...), stderr: &logs{}, done: make(chan struct{})}
	c.cmd.Dir, c.cmd.Stderr = t.TempDir(), c.stderr
	c.cmd.Env = append(os.Environ(), env...)
	require.NoError(t, c.cmd.Start())
	go func() {
		defer close(c.done)
		_ = c.cmd.Wait() // its exit code is asked for
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.done
		if t.Failed() {
			t.Logf("stderr:\n%s", c.stderr)
		}
	})
	return c
}

var startLine = regexp.MustCompile(`shop: starting.* http=(\S+)`)

// started waits until the shop has told where it can be reached.
func (c *command) started(t *testing.T) {
	t.Helper()
	eventually(t, "the line that tells the address", func() bool {
		if m := startLine.FindStringSubmatch(c.stderr.String()); m != nil {
			c.api = api{t, m[1]}
		}
		return c.url != ""
	})
}

// code waits for the end and returns the exit code.
func (c *command) code(t *testing.T) int {
	t.Helper()
	eventually(t, "the shop to end", func() bool {
		select {
		case <-c.done:
			return true
		default:
			return false
		}
	})
	return c.cmd.ProcessState.ExitCode()
}

func TestSignalEndsTheBinaryInGoodOrderAndARestartKeepsOrders(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be sent a signal there")
	}
	dir := filepath.Join(t.TempDir(), "data")
	var id string
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		c := launch(t, nil, "-http", "127.0.0.1:0", "-data", dir)
		c.started(t)
		c.ready()
		if id == "" {
			id = c.place().ID
		}
		c.paid(id)
		require.NotEmpty(t, c.stderr.lines("curl -X POST "+c.url+"/orders"))
		require.NoError(t, c.cmd.Process.Signal(sig))
		require.Zero(t, c.code(t))
		require.Empty(t, c.stderr.lines("level=ERROR"))
	}
}

func TestBrokerThatComesLateIsWaitedFor(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	c := launch(t, nil, "-http", "127.0.0.1:0", "-brokers", addr)
	c.started(t)
	eventually(t, "a line about the broker", func() bool {
		return len(c.stderr.lines("no broker answers, trying again", addr)) > 1
	})

	ctx, cancel := context.WithCancel(context.Background())
	broker := &embedded.Broker{Addr: addr}
	ended := make(chan error, 1)
	go func() { ended <- broker.Run(ctx) }()
	defer func() {
		cancel()
		require.NoError(t, <-ended)
	}()
	c.ready()
	c.paid(c.place().ID)
	if runtime.GOOS != "windows" {
		require.NoError(t, c.cmd.Process.Signal(syscall.SIGTERM))
		require.Zero(t, c.code(t))
	}
}

func TestSignalWhileWaitingForABrokerEndsTheBinary(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be sent a signal there")
	}
	c := launch(t, nil, "-http", "127.0.0.1:0", "-brokers", freeAddr(t))
	c.started(t)
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGTERM))
	require.Zero(t, c.code(t))
}

func TestErrorsEndTheBinaryWithTheirText(t *testing.T) {
	t.Parallel()
	p := start(t, "-services", "auth")
	for name, test := range map[string]struct {
		args []string
		code int
		want string
	}{
		"usage":     {[]string{"-services", "nope"}, 2, `shop: -services: there is no service "nope": choose from orders, billing, auth, notifications`},
		"HTTP port": {[]string{"-data", "", "-http", p.url[len("http://"):]}, 1, "shop: the HTTP port of " + p.url[len("http://"):] + " is taken by another program"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := launch(t, nil, test.args...)
			require.Equal(t, test.code, c.code(t))
			require.Len(t, c.stderr.lines(test.want), 1)
		})
	}
}

func TestRecordThatCannotBeDeadLetteredEndsTheBinaryWithCodeOne(t *testing.T) {
	t.Parallel()
	brokers := start(t, "-services", "auth").brokers
	c := launch(t, nil, "-http", "127.0.0.1:0", "-brokers", brokers[0])
	c.started(t)
	c.ready()
	tooLarge(t, brokers)
	require.Equal(t, 1, c.code(t))
	require.NotEmpty(t, c.stderr.lines("shop: ", "payment.created/", "cannot be written"))
}
