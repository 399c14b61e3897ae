package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/examples/shop/auth"
	"github.com/wherry-go/wherry/examples/shop/billing"
	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/examples/shop/notifications"
	"github.com/wherry-go/wherry/examples/shop/orders"
	"github.com/wherry-go/wherry/kafkatest"
)

// on runs a shop on a Kafka of the test's, the embedded one or a real one, with
// short waits between the attempts of a payment.
func on(t *testing.T, args ...string) *process {
	t.Helper()
	k := kafkatest.NewCluster(t)
	p := start(t, append([]string{"-brokers", strings.Join(k.Brokers(), ","), "-retry-initial", "20ms"}, args...)...)
	p.ready()
	return p
}

// becomes waits until an order has a status.
func (a api) becomes(id, status string) (o events.Order) {
	a.t.Helper()
	eventually(a.t, "order "+id+" to be "+status, func() bool {
		o, _ = a.find(id)
		return o.Status == status
	})
	return o
}

// order sends a request about one order.
func (a api) order(method, path string) (out answer, o events.Order) {
	a.t.Helper()
	out, err := a.do(method, "/orders/"+path, "", "")
	require.NoError(a.t, err)
	if out.Success {
		require.NoError(a.t, json.Unmarshal(out.Data, &o))
	}
	return out, o
}

// about returns the records of a topic that have the key of an order, once there
// are at least n.
func about(t *testing.T, brokers []string, topic, id string, n int) (found []*kgo.Record) {
	t.Helper()
	for _, r := range read(t, brokers, topic, n) {
		if string(r.Key) == id {
			found = append(found, r)
		}
	}
	return found
}

func TestOrderWhosePaymentFailsIsCancelledAndTheLogTellsItsStory(t *testing.T) {
	t.Parallel()
	p := on(t, "-payments", "fail")
	o := p.place()
	cancelled := p.becomes(o.ID, events.Cancelled)
	require.Equal(t, o.CreatedAt, cancelled.CreatedAt)
	require.True(t, cancelled.UpdatedAt.After(o.UpdatedAt.Time))
	for _, line := range []string{
		"orders: order placed", "billing: payment failed", "orders: order cancelled",
		"notifications: your order was received", "notifications: your payment failed", "notifications: your order was cancelled",
	} {
		eventually(t, line, func() bool { return len(p.logs.lines(line, "order="+o.ID)) == 1 })
	}
	require.Len(t, p.logs.lines("retry: failed, trying again"), 3)
	ordersSettled(t, p.brokers)
	require.Len(t, about(t, p.brokers, events.PaymentFailed.Topic, o.ID, 1), 1)
	require.Len(t, about(t, p.brokers, events.BillingDeadLetters, o.ID, 1), 1)
	require.Empty(t, read(t, p.brokers, events.PaymentCreated.Topic, 0))

	told := about(t, p.brokers, events.OrderCancelled.Topic, o.ID, 1)
	require.Len(t, told, 1)
	var v map[string]any
	require.NoError(t, json.Unmarshal(told[0].Value, &v))
	require.Equal(t, map[string]any{
		"order": map[string]any{
			"id": o.ID, "totalAmount": "99.99", "status": "cancelled", "userId": "user1",
			"createdAt": o.CreatedAt.String(), "updatedAt": cancelled.UpdatedAt.String(),
		},
		"reason": "Payment failed: the payment of 99.99 was declined: all are", "cancelledAt": cancelled.UpdatedAt.String(),
	}, v)
}

// The services alone, in virtual time: the broker and the HTTP server of a whole
// shop have sockets, which know real time only.
func TestFailingOrderIsTriedAgainAfterOneTwoAndFourSecondsAndThenCancelled(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(2 * time.Minute) // an hour of heartbeats, beside shops that have processes of their own
		require.NoError(t, wherry.EnsureTopics(t.Context(), k.Client(t), events.Topics()...))
		log := &logs{}
		payments, err := billing.ParsePayments("fail")
		require.NoError(t, err)
		shop := &orders.Service{Client: k.Client(t), AuthGroup: events.GetUser.Group, Logger: newLogger(log)}
		kafkatest.Run(t, &auth.Service{Client: k.Client(t), Logger: newLogger(log)})
		kafkatest.Run(t, shop)
		kafkatest.Run(t, &billing.Service{Client: k.Client(t), Payments: payments, Logger: newLogger(log)})
		kafkatest.Run(t, &notifications.Service{Client: k.Client(t), Logger: newLogger(log)})

		o, err := shop.Place(t.Context(), orders.NewOrder{TotalAmount: "99.99", Status: events.Pending, UserID: "user1"}, "")
		require.NoError(t, err)
		for _, after := range []time.Duration{0, time.Second, 2 * time.Second} { // 0, 1 and 3 s from the start
			k.Sleep(t, after+10*time.Millisecond)
			found, err := shop.Find(t.Context(), o.ID)
			require.NoError(t, err)
			require.Equal(t, o, found)
		}
		require.Len(t, log.lines("retry: failed, trying again"), 3)
		k.Sleep(t, 3900*time.Millisecond)
		require.Empty(t, log.lines("orders: order cancelled"))
		k.Sleep(t, 200*time.Millisecond)
		found, err := shop.Find(t.Context(), o.ID)
		require.NoError(t, err)
		require.Equal(t, events.Cancelled, found.Status)
		require.Equal(t, "Payment failed: the payment of 99.99 was declined: all are", kafkatest.Next(t, k, events.OrderCancelled).Reason)
		k.Sleep(t, time.Hour)
		kafkatest.None(t, k, events.OrderCancelled, 0)
		require.Len(t, log.lines("notifications: your order was cancelled"), 1)
	})
}

func TestOnlyOrdersAboveTheLimitFail(t *testing.T) {
	t.Parallel()
	p := on(t, "-payments", "above=99")
	dear, cheap := p.place(), p.placeFor("99.00")
	p.becomes(cheap.ID, events.Paid)
	p.becomes(dear.ID, events.Cancelled)
}

func TestFlakyPaymentsSucceedInTheEnd(t *testing.T) {
	t.Parallel()
	p := on(t, "-payments", "flaky")
	a, b := p.place(), p.place()
	p.paid(a.ID)
	p.paid(b.ID)
	require.Len(t, p.logs.lines("retry: failed, trying again"), 4)
}

// placeFor places an order of that amount.
func (a api) placeFor(amount string) (o events.Order) {
	a.t.Helper()
	out := a.post(`{"totalAmount":"` + amount + `","status":"pending","userId":"user1"}`)
	require.Equal(a.t, http.StatusCreated, out.Status, "%v", out.Message)
	require.NoError(a.t, json.Unmarshal(out.Data, &o))
	return o
}

func TestCancelEndpoint(t *testing.T) {
	t.Parallel()
	p := on(t, "-payments", "above=1", "-retry-initial", "1m")
	o := p.place() // its payment waits to be tried again
	out, found := p.order(http.MethodGet, o.ID)
	require.Equal(t, http.StatusOK, out.Status)
	require.Equal(t, "Order retrieved successfully", out.Message)
	require.Equal(t, o, found)

	out, cancelled := p.order(http.MethodPost, o.ID+"/cancel")
	require.Equal(t, http.StatusOK, out.Status, "%v", out.Message)
	require.Equal(t, "Order cancelled successfully", out.Message)
	require.Equal(t, events.Cancelled, cancelled.Status)
	listed, _ := p.find(o.ID)
	require.Equal(t, cancelled, listed, "a GET after the POST sees it")
	out, again := p.order(http.MethodPost, o.ID+"/cancel")
	require.Equal(t, http.StatusOK, out.Status)
	require.Equal(t, cancelled, again)
	require.Len(t, about(t, p.brokers, events.OrderCancelled.Topic, o.ID, 1), 1)
	eventually(t, "the notification", func() bool {
		return len(p.logs.lines("your order was cancelled", o.ID, `reason="Cancelled by the user"`)) == 1
	})

	paid := p.placeFor("1")
	p.paid(paid.ID)
	out, _ = p.order(http.MethodPost, paid.ID+"/cancel")
	require.Equal(t, http.StatusConflict, out.Status)
	require.Equal(t, "Order with ID "+paid.ID+" is paid and cannot be cancelled", out.Message)
	for _, path := range []string{"nope/cancel", "nope"} {
		method := http.MethodGet
		if strings.HasSuffix(path, "cancel") {
			method = http.MethodPost
		}
		out, _ = p.order(method, path)
		require.Equal(t, http.StatusNotFound, out.Status)
		require.Equal(t, http.StatusNotFound, out.StatusCode)
		require.Equal(t, "Order with ID nope not found", out.Message)
		require.Equal(t, "/orders/"+path, out.Path)
	}
}

func TestCancelIsRefusedUntilTheServiceIsReady(t *testing.T) {
	t.Parallel()
	p := start(t, "-brokers", freeAddr(t), "-services", "orders") // nobody answers there
	out, _ := p.order(http.MethodPost, "o-1/cancel")
	require.Equal(t, http.StatusServiceUnavailable, out.Status)
	out, _ = p.order(http.MethodGet, "o-1")
	require.Equal(t, http.StatusServiceUnavailable, out.Status)
}

func TestBytesThatAreNoJSONGoToTheDeadLettersOfWhoReadsThem(t *testing.T) {
	t.Parallel()
	p := on(t, "-payments", "above=1000")
	p.paid(p.place().ID)
	want := map[string][]string{ // the topics whose bytes are there
		events.BillingDeadLetters: {events.OrderCreated.Topic},
		auth.DeadLetters:          {events.AuthInbox},
		orders.DeadLetters:        {events.OrdersInbox, events.PaymentCreated.Topic},
		orders.Saga + ".saga.dlq": {
			events.BillingDeadLetters, events.OrderCreated.Topic, events.PaymentCreated.Topic, events.PaymentFailed.Topic,
		},
		notifications.DeadLetters: {
			events.OrderCancelled.Topic, events.OrderCreated.Topic, events.PaymentCreated.Topic, events.PaymentFailed.Topic,
		},
	}
	for _, spec := range events.Topics() { // that of the table too, which nobody consumes
		for _, value := range []string{"no JSON", "{", ""} {
			produce(t, p.brokers, &kgo.Record{Topic: spec.Name, Key: []byte("k"), Value: []byte(value)})
		}
	}
	for topic, sources := range want {
		got := map[string]int{}
		n := 3 * len(sources)
		if topic == events.BillingDeadLetters || slices.Contains(sources, events.BillingDeadLetters) {
			n += 3 // the bytes that were sent there, or what billing made of its own
		}
		for _, r := range read(t, p.brokers, topic, n) {
			l, err := dlq.Read(r)
			require.NoError(t, err)
			if l.Format != dlq.FormatUnknown {
				got[l.Topic]++
			}
		}
		for _, source := range sources {
			want := 3
			if source == events.BillingDeadLetters {
				want = 6 // billing's own of order.created are about no order either
			}
			require.Equal(t, want, got[source], "%s in %s: %v", source, topic, got)
		}
		require.Len(t, got, len(sources), "%s: %v", topic, got)
	}

	p.paid(p.place().ID)
	p.becomes(p.placeFor("1001").ID, events.Cancelled)
	require.Equal(t, http.StatusOK, p.get("/healthz").Status)
}

// The figures are printed, not judged: what a busy machine adds is not the shop's.
func TestOrdersAreAnsweredAndPaidAsFastWhileOneIsTriedAgain(t *testing.T) {
	t.Parallel()
	p := on(t, "-payments", "above=1000", "-retry-initial", "30s")
	run := func(what string) {
		var mu sync.Mutex
		var answered, paid []time.Duration
		var group sync.WaitGroup
		for range 100 {
			begin := time.Now()
			o := p.place()
			answered = append(answered, time.Since(begin))
			group.Go(func() {
				for {
					out, err := p.do(http.MethodGet, "/orders/"+o.ID, "", "")
					if err != nil || strings.Contains(string(out.Data), `"paid"`) {
						break
					}
					time.Sleep(time.Millisecond)
				}
				mu.Lock()
				defer mu.Unlock()
				paid = append(paid, time.Since(begin))
			})
		}
		group.Wait()
		t.Logf("%-28s answered p50 %v p99 %v   paid p50 %v p99 %v", what, at(answered, 50), at(answered, 99), at(paid, 50), at(paid, 99))
	}
	run("warming up")
	run("none is tried again")
	dear := p.placeFor("1000.01")
	eventually(t, "the first retry", func() bool { return len(p.logs.lines("retry: failed, trying again")) > 0 })
	run("one is tried again meanwhile")
	_, still := p.order(http.MethodGet, dear.ID)
	require.Equal(t, events.Pending, still.Status)
}

// at is a percentile.
func at(all []time.Duration, percent int) string {
	slices.Sort(all)
	return fmt.Sprint(all[len(all)*percent/100].Round(100 * time.Microsecond))
}

// What the embedded broker keeps when it is killed with the shop: README.md.
func TestOrderIsCancelledOnceThoughTheBinaryIsKilledWhileItIsTriedAgain(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a file that was just locked by a killed process stays so for a while there")
	}
	k := kafkatest.NewCluster(t)
	args := []string{"-http", "127.0.0.1:0", "-payments", "fail", "-retry-initial", "200ms", "-brokers", strings.Join(k.Brokers(), ",")}
	if k.Embedded() { // that of the shop, which dies with it
		args = append(args[:6], "-data", t.TempDir())
	}
	c := launch(t, nil, args...)
	c.started(t)
	c.ready()
	o := c.place()
	eventually(t, "the second retry", func() bool { return len(c.stderr.lines("retry: failed, trying again", "attempt=2")) > 0 })
	require.NoError(t, c.cmd.Process.Kill())
	<-c.done

	p := start(t, args[2:]...)
	p.ready()
	p.becomes(o.ID, events.Cancelled)
	settled(t, p.brokers, billing.Group, events.OrderCreated.Topic)
	ordersSettled(t, p.brokers)
	require.Len(t, about(t, p.brokers, events.OrderCancelled.Topic, o.ID, 1), 1)
	require.NotEmpty(t, about(t, p.brokers, events.BillingDeadLetters, o.ID, 1))
	require.Len(t, p.list(), 1)
}
