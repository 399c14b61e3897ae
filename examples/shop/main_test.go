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

	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/examples/shop/events"
)

// patience is how long a test waits for what has to happen.
const patience = 60 * time.Second

// binary is the shop, built once: go run does not hand signals on.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binaryDir, "shop.exe")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

var binaryDir string

// metrics has those of all shops in the test's process.
var metrics http.Handler

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	logging.Disable()
	// Those shops that run in the test's own process have its telemetry together.
	all, err := startTelemetry(context.Background(), func(string) string { return "" }, slog.Default())
	if err != nil {
		panic(err)
	}
	metrics = all.metrics
	if binaryDir, err = os.MkdirTemp("", "shop-test-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(binaryDir)
	os.Exit(code)
}

// process is a shop that runs in the test's own process.
type process struct {
	api
	brokers []string
	logs    *logs
	stop    func() error // ends it in good order and returns run's error
	ended   chan struct{}
}

// start runs a shop with these flags, on free ports. It is stopped when the
// test ends, and must end without an error then unless stop was called.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	cfg, err := parse(append([]string{"-http", "127.0.0.1:0", "-data", "", "-limits", "off"}, args...), func(string) string { return "" })
	require.NoError(t, err)
	return startConfig(t, cfg)
}

func startConfig(t *testing.T, cfg config) *process {
	t.Helper()
	p := &process{logs: &logs{}, ended: make(chan struct{})}
	if cfg.embedded == embeddedAddr {
		cfg.embedded = "127.0.0.1:0"
	}
	cfg.out, cfg.log, cfg.metrics = p.logs, newLogger(p.logs), metrics
	started := make(chan struct{})
	cfg.started = func(http string, brokers []string) {
		p.api, p.brokers = api{t, "http://" + http}, brokers
		close(started)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var result error
	go func() {
		defer close(p.ended)
		result = run(ctx, cfg)
	}()
	judged := false
	p.stop = func() error {
		judged = true
		cancel()
		<-p.ended
		return result
	}
	t.Cleanup(func() {
		if !judged {
			require.NoError(t, p.stop())
		}
		if t.Failed() {
			t.Logf("logs:\n%s", p.logs)
		}
	})
	select {
	case <-started:
	case <-p.ended:
		require.FailNow(t, "the shop ended before it started", "%v", result)
	}
	return p
}

// fails waits until the shop has ended by itself and returns its error.
func (p *process) fails(t *testing.T) error {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		require.FailNow(t, "the shop still runs")
	}
	return p.stop()
}

// api is a client of a shop's HTTP interface.
type api struct {
	t   *testing.T
	url string
}

// answer is an envelope, of a success or a failure.
type answer struct {
	Status     int         `json:"-"`
	Header     http.Header `json:"-"`
	Success    bool
	StatusCode int
	Message    any
	Timestamp  string
	Path       string
	Data       json.RawMessage
}

func (a api) do(method, path, contentType, body string) (answer, error) {
	req, err := http.NewRequest(method, a.url+path, strings.NewReader(body))
	require.NoError(a.t, err)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	out := answer{Status: resp.StatusCode, Header: resp.Header}
	return out, json.Unmarshal(b, &out)
}

func (a api) get(path string) answer {
	a.t.Helper()
	out, err := a.do(http.MethodGet, path, "", "")
	require.NoError(a.t, err)
	return out
}

func (a api) post(body string) answer {
	a.t.Helper()
	out, err := a.do(http.MethodPost, "/orders", "application/json", body)
	require.NoError(a.t, err)
	return out
}

// seedOrder is the order of the seed's README.
const seedOrder = `{"totalAmount": "99.99", "status": "pending", "userId": "user1"}`

// place places the seed's order.
func (a api) place() (o events.Order) {
	a.t.Helper()
	out := a.post(seedOrder)
	require.Equal(a.t, http.StatusCreated, out.Status, "%v", out.Message)
	require.NoError(a.t, json.Unmarshal(out.Data, &o))
	return o
}

func (a api) list() (all []events.Order) {
	a.t.Helper()
	out := a.get("/orders")
	require.Equal(a.t, http.StatusOK, out.Status, "%v", out.Message)
	require.NoError(a.t, json.Unmarshal(out.Data, &all))
	return all
}

// find returns the listed order with that id.
func (a api) find(id string) (o events.Order, ok bool) {
	a.t.Helper()
	for _, o := range a.list() {
		if o.ID == id {
			return o, true
		}
	}
	return o, false
}

// ready waits until GET /healthz answers 200.
func (a api) ready() {
	a.t.Helper()
	eventually(a.t, "the shop to be ready", func() bool {
		out, err := a.do(http.MethodGet, "/healthz", "", "")
		return err == nil && out.Status == http.StatusOK
	})
}

// paid waits until the order is listed as paid.
func (a api) paid(id string) (o events.Order) {
	a.t.Helper()
	eventually(a.t, "order "+id+" to be paid", func() bool {
		found, _ := a.find(id)
		o = found
		return found.Status == events.Paid
	})
	return o
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

// lines returns the lines that have all the parts.
func (l *logs) lines(parts ...string) (found []string) {
next:
	for line := range strings.SplitSeq(l.String(), "\n") {
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}
