package nest_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/interop/nest"
	"github.com/wherry-go/wherry/kafkatest"
)

// The services, the one that is replaced most often first.
var services = []string{"notifications", "billing", "orders", "auth"}

// mixed is the shop, each service a process, in Go or in NestJS.
type mixed struct {
	k       *kafkatest.Cluster
	running map[string]*nest.Process
	inGo    map[string]bool
	shop
	told map[string]int // how often order.cancelled of each order is to be there
	paid []string       // the orders that are
}

// run starts a service.
func (m *mixed) run(t *testing.T, service string) {
	t.Helper()
	const payments = "above=100"
	// With their plain names the groups of NestJS are those of the shop, so that who
	// comes begins where who went has ended. That of auth has NestJS's name in both.
	postfix := ""
	if service == "auth" {
		postfix = "-server"
	}
	address := `shop: starting.* http=(\S+)`
	if m.inGo[service] {
		m.running[service] = inGo(t, m.k, service, "-payments", payments, "-retry-initial", "5ms")
	} else {
		m.running[service] = inNest(t, m.k, []string{service}, "PAYMENTS="+payments, "RETRY_INITIAL_MS=5", "GROUP_POSTFIX="+postfix)
		address = nest.Listening
	}
	if service == "orders" {
		m.url = await(t, m.running[service], address, 1)[1]
	}
}

// replace replaces a live service by the other's. Where orders can still be taken,
// one is placed while the service is away; it must not be lost.
func (m *mixed) replace(t *testing.T, service string) {
	t.Helper()
	m.running[service].Stop(terminate)
	between := ""
	if service == "notifications" || service == "billing" {
		between = m.placed(t, "10.00")
	}
	m.inGo[service] = !m.inGo[service]
	m.run(t, service)
	if between != "" {
		m.isPaid(t, between)
	}
}

// says is what notifications writes of an order.
func (m *mixed) says(id, what string) string {
	if m.inGo["notifications"] {
		return map[string]string{
			"received": `your order was received" order=`, "paid": `your payment was received" order=`,
			"failed": `your payment failed" order=`, "cancelled": `your order was cancelled" order=`,
		}[what] + id
	}
	return "order " + id + " " + map[string]string{
		"received": "was received", "paid": "was paid", "failed": "could not be paid", "cancelled": "was cancelled",
	}[what]
}

func (m *mixed) isPaid(t *testing.T, id string) {
	t.Helper()
	m.becomes(t, id, "paid")
	m.paid = append(m.paid, id)
	for _, what := range []string{"received", "paid"} {
		await(t, m.running["notifications"], m.says(id, what), 1)
	}
}

// flows shows the whole flow.
func (m *mixed) flows(t *testing.T) {
	t.Helper()
	good, bad := m.placed(t, "99.99"), m.placed(t, "100.01")
	_, status, message := m.place(t, "1.00", "nobody")
	require.Equal(t, http.StatusNotFound, status)
	require.Equal(t, "User with ID nobody not found", message)
	m.isPaid(t, good)
	m.becomes(t, bad, "cancelled")
	// NestJS tells of it twice, once for payment.failed and once for the dead letter.
	m.told[bad] = 2
	if m.inGo["orders"] {
		m.told[bad] = 1
	}
	for _, what := range []string{"received", "failed"} {
		await(t, m.running["notifications"], m.says(bad, what), 1)
	}
	await(t, m.running["notifications"], m.says(bad, "cancelled"), m.told[bad])
}

// All combinations of services in Go and in NestJS, beginning and ending with
// NestJS alone. From each to the next one live service is replaced, as a
// migration does it (a Gray code).
func TestMixed_TheFlowHoldsInAllCombinations(t *testing.T) {
	need(t)
	t.Parallel()
	m := &mixed{
		k:       onACluster(t),
		running: map[string]*nest.Process{}, inGo: map[string]bool{}, told: map[string]int{},
	}
	for _, s := range services {
		m.run(t, s)
	}
	seen := map[string]bool{}
	for step := 1; ; step++ {
		var names []string
		for _, s := range services {
			names = append(names, fmt.Sprintf("%s:%v", s, map[bool]string{true: "Go", false: "NestJS"}[m.inGo[s]]))
		}
		name := strings.Join(names, " ")
		t.Log(name)
		m.flows(t)
		seen[name] = true
		if step > 1<<len(services) {
			break
		}
		bit := 0 // the lowest that is set in step, which changes in a Gray code
		for step>>bit&1 == 0 {
			bit++
		}
		m.replace(t, services[min(bit, len(services)-1)])
	}
	require.Len(t, seen, 1<<len(services))
	m.nothingTwice(t)
}

// nothingTwice holds the topics against what happened: through all replacements no
// order was handled twice, but for the cancellations that NestJS tells twice.
func (m *mixed) nothingTwice(t *testing.T) {
	t.Helper()
	for _, s := range services {
		m.running[s].Stop(terminate)
	}
	count := counts(t, m.k, "order.created", "payment.created", "payment.failed", "billing.dlq", "order.cancelled")
	for _, id := range m.paid {
		require.Equal(t, []int{1, 1, 0, 0, 0}, count[id], "paid order %s", id)
	}
	for id, told := range m.told {
		require.Equal(t, []int{1, 0, 1, 1, told}, count[id], "failed order %s", id)
	}
	require.Len(t, count, len(m.paid)+len(m.told))
}

// counts counts the committed records of each topic, by key.
func counts(t *testing.T, k *kafkatest.Cluster, topics ...string) map[string][]int {
	t.Helper()
	cl := k.Client(t)
	ends, err := kadm.NewClient(cl).ListCommittedOffsets(context.Background(), topics...)
	require.NoError(t, err)
	left := map[string]map[int32]int64{}
	partitions := map[string]map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) {
		require.NoError(t, o.Err)
		if o.Offset == 0 {
			return
		}
		if left[o.Topic] == nil {
			left[o.Topic], partitions[o.Topic] = map[int32]int64{}, map[int32]kgo.Offset{}
		}
		left[o.Topic][o.Partition] = o.Offset
		partitions[o.Topic][o.Partition] = kgo.NewOffset().AtStart()
	})
	reader := k.Client(t, kgo.ConsumePartitions(partitions), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	count := map[string][]int{}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for len(left) > 0 {
		fetches := reader.PollFetches(ctx)
		require.NoError(t, fetches.Err0())
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				if count[string(r.Key)] == nil {
					count[string(r.Key)] = make([]int, len(topics))
				}
				count[string(r.Key)][slices.Index(topics, r.Topic)]++
			}
			if r.Offset+1 >= left[r.Topic][r.Partition] {
				delete(left[r.Topic], r.Partition)
				if len(left[r.Topic]) == 0 {
					delete(left, r.Topic)
				}
			}
		})
	}
	return count
}
