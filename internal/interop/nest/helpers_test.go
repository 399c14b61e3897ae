package nest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/interop/nest"
	"github.com/wherry-go/wherry/kafkatest"
)

// patience is how long a test waits for what has to happen.
const patience = 2 * time.Minute

var binaries string // folder of the Go programs

func TestMain(m *testing.M) {
	var err error
	if binaries, err = os.MkdirTemp("", "wherry-mixed-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(binaries)
	os.Exit(code)
}

// build builds the programs, once.
var build = sync.OnceValue(func() error {
	out, err := exec.Command("go", "build", "-o", binaries+string(filepath.Separator), "../../../examples/shop", "../../../examples/takeover").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
})

// need skips the test where NestJS is missing, or fails it with KAFKATEST_REQUIRE=1.
func need(t *testing.T) {
	t.Helper()
	if _, err := nest.Shop(t.Context(), nil, nil); err != nil {
		if os.Getenv("KAFKATEST_REQUIRE") == "1" {
			t.Fatal("KAFKATEST_REQUIRE=1, and " + err.Error())
		}
		t.Skip(err)
	}
	require.NoError(t, build())
}

// onACluster is a Kafka with the shop's topics.
func onACluster(t *testing.T) *kafkatest.Cluster {
	t.Helper()
	k := kafkatest.NewCluster(t)
	require.NoError(t, wherry.EnsureTopics(t.Context(), k.Client(t), nest.Topics()...))
	return k
}

// start runs a command until the test ends.
func start(t *testing.T, cmd *exec.Cmd) *nest.Process {
	t.Helper()
	cmd.Dir = t.TempDir()
	p, err := nest.Start(cmd)
	require.NoError(t, err)
	t.Cleanup(func() {
		// In good order, for a broker remembers members that were killed.
		_ = p.Signal(terminate)
		select {
		case <-p.Done():
		case <-time.After(patience):
		}
		if t.Failed() {
			t.Logf("%s:\n%s", strings.Join(cmd.Args, " "), p.Log())
		}
		require.NoError(t, p.Close())
	})
	return p
}

// await is Process.Await, and ends the test where it fails.
func await(t *testing.T, p *nest.Process, pattern string, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	found, err := p.Await(ctx, pattern, n)
	require.NoError(t, err)
	return found
}

// inNest starts services in NestJS and returns when they have their partitions.
func inNest(t *testing.T, k *kafkatest.Cluster, services []string, env ...string) *nest.Process {
	t.Helper()
	cmd, err := nest.Shop(context.Background(), k.Brokers(), services, append([]string{
		"PORT=0", "LIMITS=off", "SHUTDOWN_HOOKS=on", "MAX_WAIT_MS=100",
	}, env...)...)
	require.NoError(t, err)
	p := start(t, cmd)
	await(t, p, `(?m)^ready$`, 1)
	await(t, p, nest.Joined, nest.Joins(services...))
	return p
}

// inGo starts a service of the shop's and returns when it is ready.
func inGo(t *testing.T, k *kafkatest.Cluster, service string, args ...string) *nest.Process {
	t.Helper()
	p := start(t, exec.Command(filepath.Join(binaries, "shop"), append([]string{
		"-services", service, "-brokers", strings.Join(k.Brokers(), ","), "-http", "127.0.0.1:0", "-limits", "off",
	}, args...)...))
	await(t, p, `shop: ready`, 1)
	return p
}

// terminate asks a process to end in good order.
const terminate = syscall.SIGTERM

// order is what both sides answer.
type order struct{ ID, TotalAmount, Status string }

// client gives a request up: NestJS's orders waits for auth for ever.
var client = &http.Client{Timeout: patience}

// shop is the HTTP interface of an orders service.
type shop struct{ url string }

// place asks for an order; message is what was answered instead of it.
func (s shop) place(t *testing.T, amount, user string) (o order, status int, message any) {
	t.Helper()
	body := fmt.Sprintf(`{"totalAmount":%q,"status":"pending","userId":%q}`, amount, user)
	resp, err := client.Post(s.url+"/orders", "application/json", strings.NewReader(body))
	require.NoError(t, err)
	defer resp.Body.Close()
	answer := struct {
		Message any
		Data    *order
	}{Data: &o}
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &answer), "%s", b)
	return o, resp.StatusCode, answer.Message
}

// placed is place of an order that is taken.
func (s shop) placed(t *testing.T, amount string) string {
	t.Helper()
	o, status, message := s.place(t, amount, "user1")
	require.Equal(t, http.StatusCreated, status, "%v", message)
	require.Equal(t, order{o.ID, amount, "pending"}, o)
	require.Regexp(t, `^[0-9a-f-]{36}$`, o.ID)
	return o.ID
}

// becomes waits until GET /orders shows the order so.
func (s shop) becomes(t *testing.T, id, want string) {
	t.Helper()
	eventually(t, "order "+id+" to be "+want, func() bool {
		resp, err := client.Get(s.url + "/orders")
		require.NoError(t, err)
		defer resp.Body.Close()
		var answer struct{ Data []order }
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
		for _, o := range answer.Data {
			if o.ID == id {
				return o.Status == want
			}
		}
		return false
	})
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
