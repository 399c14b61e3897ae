package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/internal/interop"
)

// standIn makes stand-ins for the programs, which write their process's id and wait.
func standIn(t *testing.T, dir, started string) {
	t.Helper()
	for _, name := range []string{"shop", "wherry"} {
		script := "#!/bin/sh\necho $$ >>" + started + "\nexec sleep 100\n"
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700)) //nolint:gosec // it is run
	}
}

// Services that were started meanwhile would have joined the groups of whatever is
// there, and handled its records.
func TestRunApartStartsNothingWhereItsBrokersPortIsTaken(t *testing.T) {
	t.Parallel()
	interop.Need(t, "bash")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	dir := t.TempDir()
	started := filepath.Join(dir, "started")
	standIn(t, dir, started)
	cmd := exec.Command("./run-apart", "-kafka", taken.Addr().String())
	cmd.Env = append(os.Environ(), "SHOP_BIN="+dir)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 1, exit.ExitCode(), string(out))
	require.Contains(t, string(out), taken.Addr().String()+" is taken by another program")
	require.NoFileExists(t, started)
}

// At a terminal, while it waits for its broker: what waits must not get the Ctrl-C
// in the script's place. Exec, because a shell around it would hear it too, and dash
// dies of it.
func TestRunApartLeavesNothingBehindWhenItIsInterruptedAtItsStart(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("makes a terminal with the script of util-linux")
	}
	interop.Need(t, "script")
	dir := t.TempDir()
	started := filepath.Join(dir, "started")
	standIn(t, dir, started)
	cmd := exec.Command("script", "-qec", "exec ./run-apart -kafka 127.0.0.1:1", os.DevNull) // where nobody listens
	cmd.Env = append(os.Environ(), "SHOP_BIN="+dir)
	keys, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var broker int
	require.Eventually(t, func() bool {
		b, _ := os.ReadFile(started)
		broker, err = strconv.Atoi(strings.TrimSpace(string(b)))
		return err == nil
	}, 30*time.Second, 10*time.Millisecond)
	defer func() { _ = syscall.Kill(-broker, syscall.SIGKILL) }()
	_, err = keys.Write([]byte{3}) // Ctrl-C
	require.NoError(t, err)
	require.NoError(t, cmd.Wait())
	require.ErrorIs(t, syscall.Kill(broker, 0), syscall.ESRCH)
}
