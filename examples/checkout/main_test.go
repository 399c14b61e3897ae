package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/kafkatest"
)

// patience is how long a test waits for what has to happen.
const patience = 60 * time.Second

var binaryDir string

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	var err error
	if binaryDir, err = os.MkdirTemp("", "checkout-test-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(binaryDir)
	os.Exit(code)
}

// binary is the program, built once.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binaryDir, "checkout.exe")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// process is one that runs in the test's own.
type process struct {
	api
	logs *logs
	stop func() // in good order
}

// hasty is how tests check out.
var hasty = []string{"-http", "127.0.0.1:0", "-retry-initial", "20ms"}

// start runs services until the test ends, and returns when they are ready.
func start(t *testing.T, k *kafkatest.Cluster, dir string, args ...string) *process {
	t.Helper()
	cfg, err := parse(append(append([]string{"-brokers", strings.Join(k.Brokers(), ","), "-data", dir}, hasty...), args...))
	require.NoError(t, err)
	p := &process{logs: &logs{}}
	cfg.out, cfg.log = p.logs, newLogger(p.logs)
	ready := make(chan struct{})
	cfg.started = func(http string, _ []string) {
		p.api = api{t, "http://" + http}
		close(ready)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, cfg) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("logs:\n%s", p.logs)
		}
	})
	select {
	case <-ready:
	case <-time.After(patience):
		require.FailNow(t, "not ready", "%s", p.logs)
	}
	return p
}

// api is a client of the HTTP interface.
type api struct {
	t   *testing.T
	url string
}

// shown is a checkout as GET shows it.
type shown struct {
	ID, Phase, Why                  string
	Stuck                           bool
	Shelf, Payment, Tracking, Entry string
	Steps                           []struct{ Step, Status string }
}

// step is how far one of its steps has come.
func (c shown) step(name string) string {
	for _, s := range c.Steps {
		if s.Step == name {
			return s.Status
		}
	}
	return "not there"
}

// steps is step of all, in their order.
func (c shown) steps() (all []string) {
	for _, s := range c.Steps {
		all = append(all, s.Step+" "+s.Status)
	}
	return all
}

func order(address string) string {
	return `{"customer": "ada@example.com", "address": "` + address + `", "item": "engine", "quantity": 2, "amount": 9999}`
}

func (a api) do(method, path, body string, header ...string) (code int, text []byte) {
	a.t.Helper()
	req, err := http.NewRequest(method, a.url+path, strings.NewReader(body))
	require.NoError(a.t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(a.t, err)
	defer resp.Body.Close()
	text, err = io.ReadAll(resp.Body)
	require.NoError(a.t, err)
	return resp.StatusCode, text
}

// checkout checks out, and waits for the end.
func (a api) checkout(id string) (code int, c shown) {
	a.t.Helper()
	code, text := a.do(http.MethodPost, "/checkouts", order("London"), "Prefer", "wait=60", "Idempotency-Key", id)
	require.NoError(a.t, json.Unmarshal(text, &c), "%s", text)
	return code, c
}

// begin starts a checkout.
func (a api) begin(id string) {
	a.t.Helper()
	code, text := a.do(http.MethodPost, "/checkouts", order("London"), "Idempotency-Key", id)
	require.Equal(a.t, http.StatusAccepted, code, "%s", text)
}

func (a api) get(id string) (c shown) {
	a.t.Helper()
	code, text := a.do(http.MethodGet, "/checkouts/"+id, "")
	require.Equal(a.t, http.StatusOK, code, "%s", text)
	require.NoError(a.t, json.Unmarshal(text, &c), "%s", text)
	return c
}

// becomes waits until the checkout is so.
func (a api) becomes(id, what string, is func(shown) bool) (c shown) {
	a.t.Helper()
	eventually(a.t, id+" to be "+what, func() bool {
		c = a.get(id)
		return is(c)
	})
	return c
}

func (a api) timeline(id string) string {
	a.t.Helper()
	code, text := a.do(http.MethodGet, "/checkouts/"+id+"/timeline", "")
	require.Equal(a.t, http.StatusOK, code, "%s", text)
	return string(text)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			require.FailNow(t, "waited in vain for "+what)
		}
	}
}

// logs collects lines; it is safe for concurrent use.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
