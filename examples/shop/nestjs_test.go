package main

import (
	"encoding/json"
	"net/http"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/wherry-go/wherry/examples/shop/billing"
	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/kafkatest"
)

// What goes wrong in the NestJS system that this one takes the place of, as far
// as it shows in the whole shop. docs/nestjs.md has the whole table.

// inOnePartition places orders until n of them are in one partition.
func (a api) inOnePartition(brokers []string, n int) (ids []string) {
	a.t.Helper()
	for placed := 1; ; placed++ {
		a.place()
		byPartition := map[int32][]string{}
		for _, r := range read(a.t, brokers, events.OrderCreated.Topic, placed) {
			byPartition[r.Partition] = append(byPartition[r.Partition], string(r.Key))
			if all := byPartition[r.Partition]; len(all) == n {
				return all
			}
		}
	}
}

// There each of the three is begun anew after the kill, and what was done for
// them is done twice.
func TestNestJS_ThreeFailingOrdersOfOnePartitionAndAKill(t *testing.T) {
	t.Parallel()
	brokers := kafkatest.NewCluster(t).Brokers()
	args := []string{"-http", "127.0.0.1:0", "-brokers", strings.Join(brokers, ","), "-payments", "fail", "-retry-initial", "300ms"}
	c := launch(t, nil, args...)
	c.started(t)
	c.ready()
	ids := c.inOnePartition(brokers, 3)
	// The first is at its end, and the last in the middle of its attempts.
	eventually(t, "the first to fail", func() bool { return len(c.stderr.lines("billing: payment failed", "order="+ids[0])) > 0 })
	require.NoError(t, c.cmd.Process.Kill())
	<-c.done

	p := start(t, args...)
	p.ready()
	for _, o := range p.list() {
		p.becomes(o.ID, events.Cancelled)
	}
	settled(t, p.brokers, billing.Group, events.OrderCreated.Topic)
	ordersSettled(t, p.brokers)
	for _, id := range ids {
		for _, topic := range []string{events.OrderCreated.Topic, events.PaymentFailed.Topic, events.BillingDeadLetters, events.OrderCancelled.Topic} {
			require.Len(t, about(t, p.brokers, topic, id, 1), 1, "%s of %s", topic, id)
		}
	}
}

// There the signal cuts off what is in hand: an order that is tried again is
// neither paid nor cancelled until its record comes again, from its first attempt.
func TestNestJS_SIGTERMInTheMiddleOfWorkCutsNothing(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be sent a signal there")
	}
	args := []string{
		"-http", "127.0.0.1:0", "-brokers", strings.Join(kafkatest.NewCluster(t).Brokers(), ","),
		"-payments", "flaky", "-retry-initial", "2s",
	}
	c := launch(t, nil, args...)
	c.started(t)
	c.ready()
	// Orders are asked for all the while: each is answered, or was never taken.
	placed := make(chan []string)
	go func() {
		var ids []string
		defer func() { placed <- ids }()
		for {
			out, err := c.do(http.MethodPost, "/orders", "application/json", seedOrder)
			if err != nil || out.Status != http.StatusCreated {
				return
			}
			var o events.Order
			if json.Unmarshal(out.Data, &o) == nil {
				ids = append(ids, o.ID)
			}
		}
	}()
	eventually(t, "a retry", func() bool { return len(c.stderr.lines("retry: failed, trying again")) > 5 })
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGTERM))
	ids := <-placed
	require.Zero(t, c.code(t))
	require.Empty(t, c.stderr.lines("level=ERROR"))
	require.NotEmpty(t, ids)

	p := start(t, append(args, "-payments", "ok")...)
	p.ready()
	settled(t, p.brokers, billing.Group, events.OrderCreated.Topic)
	ordersSettled(t, p.brokers)
	paid := map[string]int{}
	for _, r := range read(t, p.brokers, events.PaymentCreated.Topic, len(ids)) {
		paid[string(r.Key)]++
	}
	for _, id := range ids {
		require.Equal(t, 1, paid[id], id)
		p.paid(id)
	}
	require.Len(t, p.list(), len(paid))
}

// There each service ends at its start where its topics are not yet made.
func TestNestJS_AnEmptyClusterIsMadeReadyByWhoeverComesFirst(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	topics, err := kadm.NewClient(k.Client(t)).ListTopics(t.Context())
	require.NoError(t, err)
	require.Empty(t, topics)
	brokers := strings.Join(k.Brokers(), ",")
	var all []*process
	for _, name := range []string{notificationsName, billingName, ordersName, authName} { // who needs others first
		all = append(all, start(t, "-brokers", brokers, "-services", name))
	}
	for _, p := range all {
		p.ready()
	}
	shop := all[2]
	o := shop.paid(shop.place().ID)
	eventually(t, "notifications to tell", func() bool {
		return len(all[0].logs.lines("notifications: your payment was received", "order="+o.ID)) == 1
	})
}
