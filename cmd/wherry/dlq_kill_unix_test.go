//go:build unix

package main_test

import (
	"bytes"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// replaying is a replay as a process of its own.
type replaying struct {
	*exec.Cmd
	out, errs bytes.Buffer
}

func (l letters) replaying(t *testing.T, args ...string) *replaying {
	t.Helper()
	p := &replaying{Cmd: exec.Command(binary, append([]string{"dlq", "replay", "dead", "-yes", "-brokers", strings.Join(l.Brokers(), ",")}, args...)...)}
	p.Stdout, p.Stderr = &p.out, &p.errs
	require.NoError(t, p.Start())
	t.Cleanup(func() { _ = p.Process.Kill() })
	return p
}

// once requires that each of n letters is replayed, once.
func (l letters) once(t *testing.T, n int) {
	t.Helper()
	seen := map[string]bool{}
	for _, r := range l.content(t, "orders") {
		require.False(t, seen[string(r.Key)], "%s is there twice", r.Key)
		seen[string(r.Key)] = true
	}
	require.Len(t, seen, n)
}

// committed returns when more records are committed in a topic than the test has
// seen.
func (l letters) committed(t *testing.T, n int) {
	t.Helper()
	in := l.Client(t, kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	defer in.Close()
	for n > 0 {
		fetches := in.PollRecords(t.Context(), n)
		require.NoError(t, fetches.Err0())
		n -= fetches.NumRecords()
	}
}

func TestDLQReplay_KilledItIsEndedByAnotherAndNothingIsThereTwice(t *testing.T) {
	const n = 300
	l := newLetters(t, n)
	for kills, done := 0, 0; kills < 3; kills++ {
		p := l.replaying(t, "-rate", "300")
		done += 10 + 17*kills
		l.committed(t, done)
		require.NoError(t, p.Process.Signal(syscall.SIGKILL))
		_ = p.Wait()
		done = int(l.count(t, "orders"))
		require.Less(t, done, n)
	}
	l.ok(t, "dlq", "replay", "dead", "-yes")
	l.once(t, n)
	require.Empty(t, l.ok(t, "dlq", "ls", "dead", "-json"))
}

func TestDLQReplay_OfTwoProcessesAtOnceOneIsRefused(t *testing.T) {
	const n = 200
	l := newLetters(t, n)
	first := l.replaying(t, "-rate", "40", "-by", "the first") // 5 s: longer than a lease is renewed
	second := l.replaying(t, "-rate", "40", "-by", "the second")
	_, _ = first.Wait(), second.Wait()
	codes := []int{first.ProcessState.ExitCode(), second.ProcessState.ExitCode()}
	require.ElementsMatch(t, []int{0, 1}, codes, first.errs.String()+second.errs.String())
	require.Contains(t, first.errs.String()+second.errs.String(), "another run is at work, by the ")
	l.once(t, n)
}

func TestDLQReplay_FrozenItIsTakenOverAndLearnsIt(t *testing.T) {
	const n = 200
	l := newLetters(t, n)
	frozen := l.replaying(t, "-rate", "100")
	l.committed(t, 20)
	require.NoError(t, frozen.Process.Signal(syscall.SIGSTOP))
	l.ok(t, "dlq", "replay", "dead", "-yes") // once it was silent for 5 s
	l.once(t, n)
	require.NoError(t, frozen.Process.Signal(syscall.SIGCONT))
	exited := make(chan error, 1)
	go func() { exited <- frozen.Wait() }()
	select {
	case <-exited:
	case <-time.After(limit):
		t.Fatal("the frozen one goes on")
	}
	require.Equal(t, 1, frozen.ProcessState.ExitCode())
	require.Contains(t, frozen.errs.String(), "another run has taken over")
	l.once(t, n)
}
