package main_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// limit bounds whatever a test waits for.
const limit = 30 * time.Second

var binary string // the built command

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "wherry-cmd")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "wherry")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		panic(string(out))
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// call runs the command to its end.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = t.TempDir()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		_, exited := errors.AsType[*exec.ExitError](err)
		require.True(t, exited, "%v", err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// process is a running "wherry broker".
type process struct {
	*exec.Cmd
	addr   string
	stdout string // what it says when it is ready
	ended  chan struct{}
	mu     sync.Mutex
	errs   bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.errs.Write(b)
}

func (p *process) stderr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.errs.String()
}

// broker starts "wherry broker" in dir and waits until it says its address.
func broker(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(binary, append([]string{"broker", "-addr", "127.0.0.1:0"}, args...)...), ended: make(chan struct{})}
	p.Dir = dir
	p.Stderr = p
	out, err := p.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.Start())
	lines := bufio.NewScanner(out)
	for !strings.Contains(p.stdout, " -C ") && lines.Scan() { // its last example
		p.stdout += lines.Text() + "\n"
	}
	go func() {
		for lines.Scan() {
		}
		_ = p.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() { _ = p.Process.Kill(); <-p.ended })
	after, ok := strings.CutPrefix(p.stdout, "Kafka is at ")
	require.True(t, ok, "%s%s", p.stdout, p.stderr())
	p.addr, _, _ = strings.Cut(after, ",")
	return p
}

// wait waits for the end of the process and returns its exit code.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
		return p.ProcessState.ExitCode()
	case <-time.After(limit):
		t.Fatal("the process does not end")
		return 0
	}
}

func client(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(addr), kgo.ProducerLinger(0), kgo.MetadataMinAge(20 * time.Millisecond), kgo.AllowAutoTopicCreation(),
	}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(cl.CloseAllowingRebalance)
	return cl
}

func send(t *testing.T, addr, topic string, values ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cl := client(t, addr)
	for _, v := range values {
		require.NoError(t, cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(v)}).FirstErr())
	}
}

// read returns the first n values of a topic.
func read(t *testing.T, addr, topic string, n int) (values []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cl := client(t, addr, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for len(values) < n {
		fetches := cl.PollFetches(ctx)
		require.NoError(t, fetches.Err0())
		fetches.EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	return values
}

func TestBrokerKeepsDataOverSignals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var want []string
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		p := broker(t, dir)
		send(t, p.addr, "t", sig.String())
		want = append(want, sig.String())
		require.NoError(t, p.Process.Signal(sig))
		require.Zero(t, p.wait(t), p.stderr())
	}
	p := broker(t, dir)
	require.Equal(t, want, read(t, p.addr, "t", 2))
	require.DirExists(t, filepath.Join(dir, ".wherry-broker"))
	require.NotContains(t, p.stderr(), "level=WARN")
	require.Contains(t, p.stdout, "kcat -b "+p.addr+" -L")
}

func TestBrokerInMemory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := broker(t, dir, "-memory", "-partitions", "3", "-v")
	send(t, p.addr, "t", "v")
	require.Equal(t, []string{"v"}, read(t, p.addr, "t", 1))
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	require.Zero(t, p.wait(t))
	require.NoDirExists(t, filepath.Join(dir, ".wherry-broker"))
}

func TestErrorsAreOneLineAndExitOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := broker(t, dir)
	for name, row := range map[string]struct {
		args []string
		want string
	}{
		"port taken":     {[]string{"-memory", "-addr", first.addr}, "choose another address"},
		"folder in use":  {[]string{"-addr", "127.0.0.1:0", "-data", filepath.Join(dir, ".wherry-broker")}, "is in use by process"},
		"all interfaces": {[]string{"-memory", "-addr", "0.0.0.0:0"}, "no place to connect to"},
		"not an address": {[]string{"-memory", "-addr", "nonsense"}, "give host:port"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := call(t, append([]string{"broker"}, row.args...)...)
			require.Equal(t, 1, code)
			require.Empty(t, stdout)
			require.Contains(t, stderr, row.want)
			require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
		})
	}
}

func TestWrongCallsExitTwo(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		args []string
		want string
	}{
		"nothing":           {nil, "wherry <command>"},
		"no such command":   {[]string{"nonsense"}, `there is no command "nonsense"`},
		"no such flag":      {[]string{"broker", "-nonsense"}, "Usage: wherry broker"},
		"not a number":      {[]string{"broker", "-partitions", "many"}, "Usage: wherry broker"},
		"no partitions":     {[]string{"broker", "-partitions", "0"}, "at least 1"},
		"an argument":       {[]string{"broker", "now"}, `takes no argument "now"`},
		"memory and folder": {[]string{"broker", "-memory", "-data", "d"}, "not both"},
		"help on nothing":   {[]string{"help", "nonsense"}, `there is no command "nonsense"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := call(t, row.args...)
			require.Equal(t, 2, code)
			require.Empty(t, stdout)
			require.Contains(t, stderr, row.want)
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"run a local Kafka":            {"help"},
		"print the version":            {"--help"},
		"Usage: wherry broker [flags]": {"help", "broker"},
		"(default .wherry-broker":      {"broker", "-h"},
		"wherry ":                      {"version"},
	} {
		code, stdout, stderr := call(t, args...)
		require.Zero(t, code, args)
		require.Empty(t, stderr, args)
		require.Contains(t, stdout, want, args)
	}
}
