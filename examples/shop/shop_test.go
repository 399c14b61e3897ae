package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/examples/shop/orders"
)

func TestSeedsCurlsPlaceAndListAnOrder(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.ready()
	before := time.Now().Add(-time.Second)
	out := p.post(seedOrder)
	require.Equal(t, http.StatusCreated, out.Status)
	require.True(t, out.Success)
	require.Equal(t, "Order created successfully", out.Message)
	require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`, out.Timestamp)
	require.Equal(t, "application/json; charset=utf-8", out.Header.Get("Content-Type"))

	var raw map[string]string
	require.NoError(t, json.Unmarshal(out.Data, &raw))
	require.Len(t, raw, 6)
	require.NoError(t, uuid.Validate(raw["id"]))
	require.Equal(t, "99.99", raw["totalAmount"])
	require.Equal(t, "pending", raw["status"])
	require.Equal(t, "user1", raw["userId"])
	require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`, raw["createdAt"])
	created, err := time.Parse(time.RFC3339, raw["createdAt"])
	require.NoError(t, err)
	require.WithinRange(t, created, before, time.Now())

	_, found := p.find(raw["id"])
	require.True(t, found, "a GET after the POST sees the order")
}

func TestPlacedOrderIsSeenByTheNextGetEveryTime(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.ready()
	for range 30 {
		o := p.place()
		_, found := p.find(o.ID)
		require.True(t, found)
	}
}

func TestOrdersAreListedOldestFirstAndAnEmptyShopHasNone(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.ready()
	require.JSONEq(t, `[]`, string(p.get("/orders").Data))
	for range 12 {
		p.place()
	}
	all := p.list()
	require.Len(t, all, 12)
	for i := 1; i < len(all); i++ {
		a, b := all[i-1], all[i]
		require.True(t, a.CreatedAt.Before(b.CreatedAt.Time) || a.CreatedAt.Equal(b.CreatedAt.Time) && a.ID < b.ID)
	}
}

func TestOrderBecomesPaidAndTheLogTellsItsStory(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.ready()
	o := p.place()
	paid := p.paid(o.ID)
	require.Equal(t, o.CreatedAt, paid.CreatedAt)
	require.False(t, paid.UpdatedAt.Before(o.UpdatedAt.Time))
	for _, line := range []string{
		"orders: order placed", "billing: paid", "orders: order paid",
		"notifications: your order was received", "notifications: your payment was received",
	} {
		eventually(t, line, func() bool { return len(p.logs.lines(line, "order="+o.ID)) == 1 })
	}
}

func TestEventsAreOnTheWireAsTheSeedHasThem(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.ready()
	o := p.place()
	p.paid(o.ID)
	created := read(t, p.brokers, events.OrderCreated.Topic, 1)[0]
	require.Equal(t, o.ID, string(created.Key))
	require.Len(t, created.Headers, 1)
	require.Equal(t, "traceparent", created.Headers[0].Key, "beside the trace there are none")
	require.JSONEq(t, `{"id":"`+o.ID+`","totalAmount":"99.99","status":"pending","userId":"user1","createdAt":"`+o.CreatedAt.String()+`","updatedAt":"`+o.UpdatedAt.String()+`"}`, string(created.Value))

	payment := read(t, p.brokers, events.PaymentCreated.Topic, 1)[0]
	require.Equal(t, o.ID, string(payment.Key))
	var v map[string]any
	require.NoError(t, json.Unmarshal(payment.Value, &v))
	require.NoError(t, uuid.Validate(v["id"].(string)))
	require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`, v["createdAt"])
	delete(v, "id")
	delete(v, "createdAt")
	require.Equal(t, map[string]any{"orderId": o.ID, "amount": "99.99", "status": "PAID", "updatedAt": nil}, v)
}

func TestRestartOnTheSameFolderListsTheOrders(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, "-data", dir)
	p.ready()
	o := p.place()
	paid := p.paid(o.ID)
	require.NoError(t, p.stop())

	again := start(t, "-data", dir)
	again.ready()
	require.Equal(t, []events.Order{paid}, again.list())
}

func TestSecondPaymentOfAPaidOrderChangesNothing(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.ready()
	o := p.place()
	paid := p.paid(o.ID)
	rows := len(read(t, p.brokers, events.OrdersTable, 2))

	later := events.Time{Time: time.Now().Add(time.Hour)}
	for range 2 {
		produce(t, p.brokers, record(t, o.ID, events.Payment{ID: uuid.NewString(), OrderID: o.ID, Amount: "99.99", Status: events.PaymentPaid, CreatedAt: later}))
	}
	produce(t, p.brokers, record(t, o.ID, events.Payment{ID: "stranger", OrderID: "no-such-order", CreatedAt: later}))
	ordersSettled(t, p.brokers)
	require.Len(t, p.logs.lines("a payment of an order that does not exist", "no-such-order"), 1)
	after, _ := p.find(o.ID)
	require.Equal(t, paid, after)
	require.Len(t, read(t, p.brokers, events.OrdersTable, rows), rows)
}

func TestHealthNamesWhatIsNotReady(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	p := start(t, "-brokers", addr, "-services", "orders,billing,auth") // nobody answers there
	out := p.get("/healthz")
	require.Equal(t, http.StatusServiceUnavailable, out.Status)
	require.Equal(t, "not ready: auth, billing, orders", out.Message)
	require.Equal(t, http.StatusServiceUnavailable, p.post(seedOrder).Status)
	require.Equal(t, http.StatusServiceUnavailable, p.get("/orders").Status)

	q := start(t)
	q.ready()
	out = q.get("/healthz")
	require.JSONEq(t, `{"auth":"ready","billing":"ready","notifications":"ready","orders":"ready"}`, string(out.Data))
}

func TestPartThatHasEndedIsNotHealthy(t *testing.T) {
	t.Parallel()
	ready := make(chan struct{})
	p := &part{service: fakeService{ready}}
	require.False(t, p.healthy())
	close(ready)
	require.True(t, p.healthy())
	p.over.Store(true)
	require.False(t, p.healthy())
}

func TestPartWhoseHandlerFailedIsNotHealthyFromThenOn(t *testing.T) {
	t.Parallel()
	ready := make(chan struct{})
	close(ready)
	p := &part{service: fakeService{ready}}
	var result error
	handler := p.watch(func(context.Context, *kgo.Record) error { return result })
	require.NoError(t, handler(t.Context(), nil))
	require.True(t, p.healthy())
	result = errors.New("failed")
	cut, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, handler(cut, nil), result)
	require.True(t, p.healthy(), "work that was cut short has not failed")
	require.ErrorIs(t, handler(t.Context(), nil), result)
	require.False(t, p.healthy())
}

type fakeService struct{ ready chan struct{} }

func (s fakeService) Ready() <-chan struct{}    { return s.ready }
func (s fakeService) Run(context.Context) error { return nil }

func TestServicesInTwoProcessesShareOneBroker(t *testing.T) {
	t.Parallel()
	p := start(t, "-services", "orders,auth,notifications")
	p.ready()
	o := p.place()
	q := start(t, "-brokers", p.brokers[0], "-services", "billing")
	q.ready()
	p.paid(o.ID)
	require.Len(t, q.logs.lines("billing: paid", o.ID), 1)
	require.Empty(t, p.logs.lines("billing: paid"))

	out := q.get("/healthz")
	require.JSONEq(t, `{"billing":"ready"}`, string(out.Data))
	out = q.get("/orders")
	require.Equal(t, http.StatusNotFound, out.Status)
	require.Equal(t, "Cannot GET /orders", out.Message)
	require.NoError(t, q.stop())

	o = p.place() // nobody pays it
	r := start(t, "-brokers", p.brokers[0], "-services", "billing")
	r.ready()
	p.paid(o.ID)
}

func TestRecordThatCannotBeDeadLetteredStopsTheShop(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.ready()
	tooLarge(t, p.brokers)
	for status := http.StatusOK; status != 0; { // until nobody answers any more
		out, err := p.do(http.MethodGet, "/healthz", "", "")
		require.False(t, err == nil && out.Status == http.StatusOK && status != http.StatusOK, "healthy again")
		status = out.Status
	}
	err := p.fails(t)
	require.ErrorContains(t, err, "payment.created/")
	require.ErrorContains(t, err, "cannot be written")
}

// tooLarge sends bytes that cannot be decoded, and that with what a dead letter
// has to add to them are more than the shop's clients produce.
func tooLarge(t *testing.T, brokers []string) {
	t.Helper()
	cl := client(t, brokers, kgo.ProducerBatchMaxBytes(1<<20))
	value := strings.Repeat("no JSON ", 130_000)
	require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: events.PaymentCreated.Topic, Key: []byte("k"), Value: []byte(value)}).FirstErr())
}

func TestEmbeddedBrokerTakesAFreePortWhereItsOwnIsTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	cfg, err := parse([]string{"-http", "127.0.0.1:0", "-data", "", "-limits", "off"}, func(string) string { return "" })
	require.NoError(t, err)
	cfg.embedded = taken.Addr().String()
	p := startConfig(t, cfg)
	p.ready()
	require.NotEqual(t, cfg.embedded, p.brokers[0])
	require.NotEmpty(t, p.logs.lines("shop: starting", "brokers="+p.brokers[0]))
	p.paid(p.place().ID)
}

func TestTakenHTTPPortIsAnError(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	err = run(t.Context(), config{http: taken.Addr().String()})
	require.ErrorContains(t, err, "is taken by another program: stop it, or choose another address with -http")
}

func TestFolderInUseIsAnError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start(t, "-data", dir).ready()
	cfg, err := parse([]string{"-http", "127.0.0.1:0", "-data", dir, "-limits", "off"}, func(string) string { return "" })
	require.NoError(t, err)
	cfg.embedded, cfg.out, cfg.log = "127.0.0.1:0", &logs{}, newLogger(&logs{})
	err = run(t.Context(), cfg)
	require.ErrorContains(t, err, "is in use by process")
}

// client returns a client of the brokers for the length of the test.
func client(t *testing.T, brokers []string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(brokers...))...)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

// read returns the records of a topic that are committed, once there are at
// least n and all that is there was read.
func read(t *testing.T, brokers []string, topic string, n int) (records []*kgo.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cl := client(t, brokers, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	adm := kadm.NewClient(cl)
	next := map[int32]int64{}
	for {
		ends, err := adm.ListEndOffsets(ctx, topic)
		require.NoError(t, err)
		whole := true
		ends.Each(func(o kadm.ListedOffset) { whole = whole && next[o.Partition] >= o.Offset })
		if whole && len(records) >= n {
			return records
		}
		fetches := cl.PollFetches(ctx)
		require.NoError(t, fetches.Err())
		for r := range fetches.RecordsAll() {
			next[r.Partition] = r.Offset + 1
			if !r.Attrs.IsControl() {
				records = append(records, r)
			}
		}
	}
}

func produce(t *testing.T, brokers []string, r *kgo.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, client(t, brokers).ProduceSync(ctx, r).FirstErr())
}

func record(t *testing.T, key string, p events.Payment) *kgo.Record {
	t.Helper()
	r, err := events.PaymentCreated.Record(key, p)
	require.NoError(t, err)
	return r
}

// settled waits until a group has handled all that the topics hold.
func settled(t *testing.T, brokers []string, group string, topics ...string) {
	t.Helper()
	adm := kadm.NewClient(client(t, brokers))
	eventually(t, group+" to handle "+strings.Join(topics, ", "), func() bool {
		ends, err := adm.ListEndOffsets(t.Context(), topics...)
		require.NoError(t, err)
		committed, err := adm.FetchOffsets(t.Context(), group)
		require.NoError(t, err)
		done := true
		ends.Each(func(end kadm.ListedOffset) {
			at, ok := committed.Lookup(end.Topic, end.Partition)
			done = done && ok && at.At == end.Offset
		})
		return done
	})
}

// ordersSettled waits until orders has handled all that is told of orders: what is
// done of the first is in the topics of the next.
func ordersSettled(t *testing.T, brokers []string) {
	t.Helper()
	saga := orders.Saga + ".saga"
	settled(t, brokers, saga+".router.earliest", events.OrderCreated.Topic)
	settled(t, brokers, saga+".router", events.PaymentCreated.Topic, events.PaymentFailed.Topic, events.BillingDeadLetters)
	settled(t, brokers, saga, saga+".inbox")
	settled(t, brokers, orders.DecidingGroup, events.OrdersInbox)
	settled(t, brokers, orders.Group, events.PaymentCreated.Topic)
}

// freeAddr is an address where nobody listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	return ln.Addr().String()
}

func TestOrderPlacedByAClientThatHangsUpIsPaidAnyway(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.ready()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+"/orders", strings.NewReader(seedOrder))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	require.NoError(t, err)
	require.NoError(t, req.Write(conn))
	require.NoError(t, conn.Close())
	cancel()
	eventually(t, "the order to be paid", func() bool {
		all := p.list()
		return len(all) == 1 && all[0].Status == events.Paid
	})
}
