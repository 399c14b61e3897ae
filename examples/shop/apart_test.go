package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Services that were started meanwhile would have joined the groups of whatever is
// there, and handled its records.
func TestRunApartStartsNothingWhereItsBrokersPortIsTaken(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("there is no bash")
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	dir := t.TempDir()
	started := filepath.Join(dir, "started")
	for _, name := range []string{"shop", "wherry"} {
		script := "#!/bin/sh\necho $0 >>" + started + "\nexec sleep 1\n"
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700)) //nolint:gosec // it is run
	}
	cmd := exec.Command("./run-apart", "-kafka", taken.Addr().String())
	cmd.Env = append(os.Environ(), "SHOP_BIN="+dir)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 1, exit.ExitCode(), string(out))
	require.Contains(t, string(out), taken.Addr().String()+" is taken by another program")
	require.NoFileExists(t, started)
}
