//go:build unix

package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/internal/apache"
)

func build(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts Apache Kafka: not with -short")
	}
	if _, err := apache.Find(); err != nil {
		if os.Getenv("KAFKATEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	with := filepath.Join(t.TempDir(), "with")
	out, err := exec.Command("go", "build", "-o", with, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	return with
}

func TestTheCommandHasTheBrokersAndItsCodeIsOurs(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(build(t), "--", "sh", "-c", "echo $KAFKATEST_BROKERS; exit 3")
	out, _ := cmd.Output()
	require.Equal(t, 3, cmd.ProcessState.ExitCode())
	require.Regexp(t, `^127\.0\.0\.1:\d+\n$`, string(out))
}

func TestSignalsGoToTheCommand(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(build(t), "--", "sh", "-c", `trap 'echo terminated; exit 4' TERM; echo ready; while :; do sleep 0.05; done`)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	text := ""
	for buf := make([]byte, 64); ; {
		n, err := out.Read(buf)
		text += string(buf[:n])
		if err != nil {
			break
		}
		if strings.HasSuffix(text, "ready\n") {
			require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		}
	}
	require.Error(t, cmd.Wait())
	require.Equal(t, "ready\nterminated\n", text)
	require.Equal(t, 4, cmd.ProcessState.ExitCode())
}

func TestACommandThatIsMissingIsAnErrorOfOurOwn(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(build(t), "--", "no-such-command")
	out, _ := cmd.CombinedOutput()
	require.Equal(t, 125, cmd.ProcessState.ExitCode())
	require.Contains(t, string(out), "no-such-command")
}
