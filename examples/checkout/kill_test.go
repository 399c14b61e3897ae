package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/examples/checkout/shipping"
	"github.com/wherry-go/wherry/kafkatest"
)

// child is a process of its own.
type child struct {
	api
	cmd  *exec.Cmd
	logs *logs
	done chan struct{}
}

var readyLine = regexp.MustCompile(`checkout: ready".* http=(\S*)`)

// launch starts services as a process, and returns before they are ready.
func launch(t *testing.T, k *kafkatest.Cluster, dir, services string) *child {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	session := "6s" // the shortest that a Kafka takes, unless told otherwise
	if k.Embedded() {
		session = "3s"
	}
	args := append([]string{
		"-brokers", strings.Join(k.Brokers(), ","), "-data", dir, "-services", services, "-session-timeout", session, "-step-timeout", "2s",
	}, hasty...)
	c := &child{cmd: exec.Command(path, args...), logs: &logs{}, done: make(chan struct{})}
	c.cmd.Stderr = c.logs
	require.NoError(t, c.cmd.Start())
	go func() {
		defer close(c.done)
		_ = c.cmd.Wait() // it is killed in the end
	}()
	t.Cleanup(func() {
		c.kill()
		if t.Failed() {
			t.Logf("%s:\n%s", services, c.logs)
		}
	})
	return c
}

// ready waits until the services are.
func (c *child) ready(t *testing.T) {
	t.Helper()
	eventually(t, "a process to be ready", func() bool {
		m := readyLine.FindStringSubmatch(c.logs.String())
		if m != nil {
			c.api = api{t, "http://" + m[1]}
		}
		return m != nil
	})
}

// kill is kill -9.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it may have ended
	<-c.done
}

// Each is a process, and most are killed in the middle of their work: every
// checkout comes to its end all the same, nothing is done twice, and nothing of it
// is lost.
func TestKilledProcesses(t *testing.T) {
	t.Parallel()
	k, dir := kafkatest.NewCluster(t), t.TempDir()
	all := map[string]*child{}
	for _, name := range allServices {
		all[name] = launch(t, k, dir, name)
	}
	for _, c := range all {
		c.ready(t)
	}
	address := map[string]string{}
	place := func(n int) {
		id, to := fmt.Sprintf("o-%02d", n), "London"
		if n%2 == 1 {
			to = shipping.Nowhere
		}
		address[id] = to
		code, text := all[checkoutName].do(http.MethodPost, "/checkouts", order(to), "Idempotency-Key", id)
		require.Equal(t, http.StatusAccepted, code, "%s", text)
	}
	const n = 40
	for i := range n / 2 {
		place(i)
	}
	killed := []string{stockName, paymentsName, shippingName, checkoutName}
	for _, name := range killed {
		all[name].kill()
	}
	for _, name := range killed {
		all[name] = launch(t, k, dir, name)
	}
	for _, name := range killed {
		all[name].ready(t)
	}
	for i := n / 2; i < n; i++ {
		place(i)
	}
	phases := map[string]string{}
	for id := range address {
		eventually(t, id+" to end", func() bool {
			var c shown
			code, text := all[checkoutName].do(http.MethodGet, "/checkouts/"+id, "")
			require.Equal(t, http.StatusOK, code, "%s", text)
			require.NoError(t, json.Unmarshal(text, &c))
			phases[id] = c.Phase
			return c.Phase == "done" || c.Phase == "undone"
		})
	}
	found := worlds(t, k, dir)
	require.Subset(t, slices.Collect(maps.Keys(address)), slices.Collect(maps.Keys(found)))
	done := 0
	for id, to := range address {
		w := found[id]
		if phases[id] == "done" {
			require.NotEqual(t, shipping.Nowhere, to, id)
			require.Equal(t, sold(), w, id)
			done++
			continue
		}
		// A step that was in hand when its participant was killed may never have been
		// done, and is undone all the same: a refund of nothing, or no trace at all.
		require.Equal(t, w["stock -2"], w["stock 2"], "%s: %v", id, w)
		require.Equal(t, w["charge 9999"], w["refund 9999"], "%s: %v", id, w)
		require.LessOrEqual(t, w["refund 9999"]+w["refund 0"], 1, "%s: %v", id, w)
		require.Zero(t, w["label"]+w["sale 9999"], "%s: %v", id, w)
		for what, times := range w {
			require.Equal(t, 1, times, "%s: %s", id, what)
		}
	}
	require.NotZero(t, done)
}
