package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/dlq"
)

// pty returns both ends of a terminal of 100 columns.
func pty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	control := func(request, arg uintptr) {
		raw, err := master.SyscallConn()
		require.NoError(t, err)
		var errno syscall.Errno
		require.NoError(t, raw.Control(func(fd uintptr) { _, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, request, arg) }))
		require.Zero(t, errno)
	}
	var number, locked int32
	size := [4]uint16{24, 100, 0, 0}
	control(syscall.TIOCGPTN, uintptr(unsafe.Pointer(&number)))
	control(syscall.TIOCSPTLCK, uintptr(unsafe.Pointer(&locked)))
	control(syscall.TIOCSWINSZ, uintptr(unsafe.Pointer(&size)))
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = slave.Close() })
	return master, slave
}

// onTerminal runs the command on a terminal, types what is given, and returns
// what the terminal showed.
func (l letters) onTerminal(t *testing.T, typed string, args ...string) (code int, shown string) {
	t.Helper()
	master, slave := pty(t)
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "WHERRY_BROKERS="+strings.Join(l.Brokers(), ","))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	require.NoError(t, cmd.Start())
	require.NoError(t, slave.Close())
	_, err := io.WriteString(master, typed)
	require.NoError(t, err)
	var out bytes.Buffer
	if _, err := io.Copy(&out, master); !errors.Is(err, syscall.EIO) { // which is the end of a terminal
		require.NoError(t, err)
	}
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), strings.ReplaceAll(out.String(), "\r\n", "\n")
}

func TestDLQReplay_AsksOnATerminal(t *testing.T) {
	l := newLetters(t, 3)
	code, shown := l.onTerminal(t, "n\n", "dlq", "replay", "dead", "-limit", "2")
	require.Equal(t, 1, code, shown)
	require.Contains(t, shown, "2 would be replayed to the topics that the records failed in\n")
	require.Contains(t, shown, "Replay 2 letters? [y/N] ")
	require.Contains(t, shown, "wherry: the answer was no, nothing was done\n")
	require.Zero(t, l.count(t, "orders"))

	code, shown = l.onTerminal(t, "\x04", "dlq", "discard", "dead") // the end of its input
	require.Equal(t, 1, code, shown)

	code, shown = l.onTerminal(t, "y\n", "dlq", "replay", "dead")
	require.Zero(t, code, shown)
	require.Contains(t, shown, "      3 replayed to the topics that the records failed in\n")
	require.EqualValues(t, 3, l.count(t, "orders"))

	code, shown = l.onTerminal(t, "", "dlq", "replay", "dead")
	require.Zero(t, code, shown)
	require.Contains(t, shown, "No letter is selected, of 3.")
}

func TestDLQList_IsCutToTheTerminal(t *testing.T) {
	l := newLetters(t, 2, func(_ int, x *dlq.Letter) {
		x.Error = strings.Repeat("long ", 40)
		x.Key = []byte(strings.Repeat("k", 90))
	})
	code, shown := l.onTerminal(t, "", "dlq", "ls", "dead", "-limit", "1")
	require.Zero(t, code)
	for _, line := range lines(shown) {
		require.LessOrEqual(t, utf8.RuneCountInString(line), 100)
	}
	require.Contains(t, shown, "kkk…")
	require.NotContains(t, shown, strings.Repeat("k", 60))
}
