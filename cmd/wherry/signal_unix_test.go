//go:build unix

package main_test

import (
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The clean end hangs, because a file that it writes is a pipe that nobody
// reads; a second signal does not wait for it.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := broker(t, dir)
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, ".wherry-broker", "groups.log.tmp"), 0o600))
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	require.Eventually(t, func() bool {
		conn, err := net.DialTimeout("tcp", p.addr, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, limit, 5*time.Millisecond)
	select {
	case <-p.ended:
		t.Fatal("the clean end did not hang")
	default:
	}
	require.Eventually(t, func() bool {
		_ = p.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.ended:
			return true
		default:
			return false
		}
	}, limit, 50*time.Millisecond)
	require.Equal(t, 130, p.wait(t))

	p = broker(t, dir)
	require.Contains(t, p.stderr(), "did not end cleanly")
}

// A signal that comes twice at once, as from timeout(1), is one.
func TestEchoOfASignalDoesNotBreakTheCleanEnd(t *testing.T) {
	t.Parallel()
	p := broker(t, t.TempDir())
	send(t, p.addr, "t", "v")
	for range 3 {
		_ = p.Process.Signal(syscall.SIGTERM)
	}
	require.Zero(t, p.wait(t))
	require.NotContains(t, broker(t, p.Dir).stderr(), "level=WARN")
}
