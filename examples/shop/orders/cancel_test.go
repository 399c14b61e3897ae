package orders_test

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/examples/shop/orders"
	"github.com/wherry-go/wherry/kafkatest"
)

// Groups of the saga: those that hear of what happens to orders, and that of the
// engine.
const (
	engine   = orders.Saga + ".saga"
	router   = engine + ".router"
	starting = router + ".earliest"
)

// names are the topics as kafkatest makes them; ensure makes the others.
func names() (all []string) {
	for _, spec := range events.Topics() {
		if !spec.Changelog && spec.Config == nil {
			all = append(all, spec.Name)
		}
	}
	return all
}

func ensure(t *testing.T, k *kafkatest.Cluster) *kafkatest.Cluster {
	t.Helper()
	require.NoError(t, wherry.EnsureTopics(t.Context(), k.Client(t), events.Topics()...))
	kafkatest.Run(t, directory(k.Client(t)))
	return k
}

func onACluster(t *testing.T) *kafkatest.Cluster {
	t.Helper()
	return ensure(t, kafkatest.NewCluster(t, names()...))
}

// failure is payment.failed of an order.
func failure(t *testing.T, o events.Order) *kgo.Record {
	t.Helper()
	r, err := events.PaymentFailed.Record(o.ID, events.PaymentFailure{Order: o, Error: "declined", FailedAt: events.Now()})
	require.NoError(t, err)
	return r
}

// deadLetter is the dead letter of an order.
func deadLetter(t *testing.T, o events.Order) *kgo.Record {
	t.Helper()
	created, err := events.OrderCreated.Record(o.ID, o)
	require.NoError(t, err)
	r, err := (&dlq.Letter{
		Format: dlq.FormatEnvelope, Topic: created.Topic, Key: created.Key, Value: created.Value,
		Error: "declined", Attempts: 4, Failed: time.Now(),
	}).Encode(events.BillingDeadLetters)
	require.NoError(t, err)
	return r
}

// payment is payment.created of an order.
func payment(t *testing.T, o events.Order) *kgo.Record {
	t.Helper()
	r, err := events.PaymentCreated.Record(o.ID, events.Payment{ID: uuid.NewString(), OrderID: o.ID, Amount: o.TotalAmount, Status: events.PaymentPaid, CreatedAt: events.Now()})
	require.NoError(t, err)
	return r
}

func place(t *testing.T, s *orders.Service) events.Order {
	t.Helper()
	o, err := s.Place(t.Context(), newOrder, "")
	require.NoError(t, err)
	return o
}

// becomes waits until an order has a status.
func becomes(t *testing.T, s *orders.Service, id, status string) (o events.Order) {
	t.Helper()
	require.Eventually(t, func() bool {
		var err error
		o, err = s.Find(t.Context(), id)
		return err == nil && o.Status == status
	}, 30*time.Second, 5*time.Millisecond, "%s does not become %s", id, status)
	return o
}

// settled waits until the service has committed all that its topics hold.
func settled(t *testing.T, k *kafkatest.Cluster) {
	t.Helper()
	adm := kadm.NewClient(k.Client(t))
	// What is done of the first is in the topics of the next.
	for _, of := range []struct {
		group  string
		topics []string
	}{
		{starting, []string{events.OrderCreated.Topic}},
		{router, []string{events.PaymentCreated.Topic, events.PaymentFailed.Topic, events.BillingDeadLetters}},
		{engine, []string{engine + ".inbox"}},
		{orders.DecidingGroup, []string{events.OrdersInbox}},
		{orders.Group, []string{events.PaymentCreated.Topic}},
	} {
		require.Eventually(t, func() bool {
			ends, err := adm.ListEndOffsets(t.Context(), of.topics...)
			require.NoError(t, err)
			committed, err := adm.FetchOffsets(t.Context(), of.group)
			require.NoError(t, err)
			done := true
			ends.Each(func(end kadm.ListedOffset) {
				at, ok := committed.Lookup(end.Topic, end.Partition)
				done = done && ok && at.At == end.Offset
			})
			return done
		}, 60*time.Second, 20*time.Millisecond, "the inputs are not handled")
	}
}

// cancellations counts what order.cancelled has told, by order.
func cancellations(t *testing.T, k *kafkatest.Cluster) map[string]int {
	t.Helper()
	cl := k.Client(t, kgo.ConsumeTopics(events.OrderCancelled.Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	ends, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), events.OrderCancelled.Topic)
	require.NoError(t, err)
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	told := map[string]int{}
	for len(left) > 0 {
		fetches := cl.PollFetches(t.Context())
		require.NoError(t, fetches.Err())
		for r := range fetches.RecordsAll() {
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			if r.Attrs.IsControl() {
				continue
			}
			c, err := events.OrderCancelled.Decode(r)
			require.NoError(t, err)
			require.Equal(t, c.Order.ID, string(r.Key))
			told[c.Order.ID]++
		}
	}
	return told
}

func onceEach(t *testing.T, placed []events.Order) map[string]int {
	t.Helper()
	want := map[string]int{}
	for _, o := range placed {
		want[o.ID] = 1
	}
	return want
}

func TestOrderIsCancelledOnceHoweverOftenAndInWhateverOrderItIsTold(t *testing.T) {
	t.Parallel()
	k := onACluster(t)
	// Two processes share the work, and all is told to both at once.
	s := service(k.Client(t))
	stop := kafkatest.Run(t, s)
	stopOther := kafkatest.Run(t, service(k.Client(t)))
	var placed []events.Order
	var told []*kgo.Record
	tell := func(r ...func(*testing.T, events.Order) *kgo.Record) {
		for _, o := range placed[len(placed)-4:] {
			for _, r := range r {
				told = append(told, r(t, o))
			}
		}
	}
	for _, sequence := range [][]func(*testing.T, events.Order) *kgo.Record{
		{failure, deadLetter},
		{deadLetter, failure},
		{failure, failure, deadLetter, deadLetter},
		{deadLetter, failure, failure, deadLetter},
		{failure},
		{deadLetter, deadLetter},
	} {
		for range 4 {
			placed = append(placed, place(t, s))
		}
		tell(sequence...)
	}
	send := func() {
		var group sync.WaitGroup
		cl := k.Client(t)
		for _, r := range told {
			again := *r
			group.Go(func() { cl.ProduceSync(context.Background(), &again) })
		}
		group.Wait()
	}
	send()
	settled(t, k)
	require.Equal(t, onceEach(t, placed), cancellations(t, k))

	// Another process, and all of it again.
	require.NoError(t, stop())
	require.NoError(t, stopOther())
	s = service(k.Client(t))
	stop = kafkatest.Run(t, s)
	send()
	settled(t, k)
	for _, o := range placed {
		require.Equal(t, "cancelled", becomes(t, s, o.ID, events.Cancelled).Status)
	}
	require.Equal(t, onceEach(t, placed), cancellations(t, k))

	// And all of it once more: as if nothing had been handled yet.
	require.NoError(t, stop())
	adm := kadm.NewClient(k.Client(t))
	for _, group := range []string{starting, engine, orders.DecidingGroup, orders.Group} {
		require.Eventually(t, func() bool {
			_, err := adm.DeleteGroup(t.Context(), group)
			return err == nil
		}, 30*time.Second, 50*time.Millisecond)
	}
	kafkatest.Run(t, service(k.Client(t)))
	settled(t, k)
	require.Equal(t, onceEach(t, placed), cancellations(t, k))
}

// The process of the owner dies at each step of a decision, before and after the
// brokers have done what it asked them to.
func TestOrderIsCancelledOnceWhereverTheProcessDies(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]kafkatest.Requests{
		"what was heard":   {Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Group: router},
		"the second heard": {Keys: []kmsg.Key{kmsg.EndTxn}, Txn: router + "/billing.dlq/0"},
		"into the saga":    {Keys: []kmsg.Key{kmsg.Produce}, Topic: engine + ".inbox"},
		"the saga":         {Keys: []kmsg.Key{kmsg.Produce}, Topic: engine + ".state"},
		"its offsets":      {Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Group: engine},
		"the saga's end":   {Keys: []kmsg.Key{kmsg.EndTxn}, Txn: engine + "/" + engine + ".inbox/0"},
		"into the inbox":   {Keys: []kmsg.Key{kmsg.Produce}, Topic: events.OrdersInbox},
		"the event":        {Keys: []kmsg.Key{kmsg.Produce}, Topic: events.OrderCancelled.Topic},
		"the row":          {Keys: []kmsg.Key{kmsg.Produce}, Topic: events.OrdersTable},
		"the offsets":      {Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Group: orders.DecidingGroup},
		"its end":          {Keys: []kmsg.Key{kmsg.EndTxn}, Txn: orders.DecidingGroup + "/orders.inbox/0"},
	} {
		for _, after := range []bool{false, true} {
			t.Run(name+", answered "+strconv.FormatBool(after), func(t *testing.T) {
				t.Parallel()
				kafkatest.Test(t, names(), func(t *testing.T, k *kafkatest.Cluster) {
					ensure(t, k)
					first := service(k.Client(t))
					stop := kafkatest.Run(t, first)
					o := place(t, first)
					crash := k.Crash
					if after {
						crash = k.CrashAfter
					}
					dead := crash(t, step)
					kafkatest.SendRecord(t, k, failure(t, o))
					k.Sleep(t, time.Second)
					kafkatest.SendRecord(t, k, deadLetter(t, o))
					dead.Wait(t, 1)
					go func() { _ = stop() }() // it cannot leave its group any more

					second := service(k.Client(t))
					kafkatest.Run(t, second)
					becomes(t, second, o.ID, events.Cancelled)
					k.Sleep(t, 10*time.Minute)
					require.Equal(t, map[string]int{o.ID: 1}, cancellations(t, k))
				})
			})
		}
	}
}

func TestFirstOfPaymentAndFailureWins(t *testing.T) {
	t.Parallel()
	k := onACluster(t)
	s := service(k.Client(t))
	log := &lines{}
	s.Logger = slog.New(slog.NewTextHandler(log, nil))
	kafkatest.Run(t, s)
	paid, off := place(t, s), place(t, s)
	kafkatest.SendRecord(t, k, payment(t, paid))
	becomes(t, s, paid.ID, events.Paid)
	kafkatest.SendRecord(t, k, failure(t, off))
	cancelled := becomes(t, s, off.ID, events.Cancelled)
	require.False(t, cancelled.UpdatedAt.Before(off.UpdatedAt.Time))
	kafkatest.SendRecord(t, k, failure(t, paid))
	kafkatest.SendRecord(t, k, deadLetter(t, paid))
	kafkatest.SendRecord(t, k, payment(t, off))
	settled(t, k)
	becomes(t, s, paid.ID, events.Paid)
	require.Equal(t, cancelled, becomes(t, s, off.ID, events.Cancelled))
	require.Equal(t, map[string]int{off.ID: 1}, cancellations(t, k))
	require.Equal(t, 1, log.count("a payment of a cancelled order, to be paid back"))
}

func TestCancelReturnsTheCancelledOrderEachTime(t *testing.T) {
	t.Parallel()
	k := onACluster(t)
	s, other := service(k.Client(t)), service(k.Client(t))
	kafkatest.Run(t, s)
	o := place(t, s)
	kafkatest.Run(t, other)
	var group sync.WaitGroup
	results := make([]events.Order, 8)
	errs := make([]error, len(results))
	for i := range results {
		group.Go(func() { results[i], errs[i] = []*orders.Service{s, other}[i%2].Cancel(t.Context(), o.ID) })
	}
	group.Wait()
	require.NoError(t, errors.Join(errs...))
	found, err := s.Find(t.Context(), o.ID)
	require.NoError(t, err)
	require.Equal(t, events.Cancelled, found.Status)
	for _, r := range results {
		require.Equal(t, found, r)
	}
	settled(t, k)
	require.Equal(t, map[string]int{o.ID: 1}, cancellations(t, k))
	c := kafkatest.Next(t, k, events.OrderCancelled)
	require.Equal(t, events.Cancellation{Order: found, Reason: "Cancelled by the user", CancelledAt: found.UpdatedAt}, c)
}

func TestCancelOfAPaidOrAnUnknownOrder(t *testing.T) {
	t.Parallel()
	k := onACluster(t)
	s := service(k.Client(t))
	_, err := s.Cancel(t.Context(), "o-1")
	require.ErrorIs(t, err, orders.ErrNotReady)
	kafkatest.Run(t, s)
	o := place(t, s)
	kafkatest.SendRecord(t, k, payment(t, o))
	becomes(t, s, o.ID, events.Paid)
	_, err = s.Cancel(t.Context(), o.ID)
	var paid *orders.PaidError
	require.ErrorAs(t, err, &paid)
	_, err = s.Cancel(t.Context(), "o-1")
	var unknown *orders.UnknownOrderError
	require.ErrorAs(t, err, &unknown)
	require.EqualError(t, err, "Order with ID o-1 not found")
	kafkatest.None(t, k, events.OrderCancelled, 0)
}

// Under another key it is another partition's, whose owner knows nothing of the order.
func TestChangeUnderAnotherKeyThanItsOrdersIsADeadLetter(t *testing.T) {
	t.Parallel()
	k := onACluster(t)
	kafkatest.Run(t, service(k.Client(t)))
	kafkatest.SendRecord(t, k, &kgo.Record{
		Topic: events.OrdersInbox, Key: []byte("another"),
		Value: []byte(`{"orderId":"o-1","to":"pending","at":"2026-01-02T03:04:05.000Z","order":{"id":"o-1","totalAmount":"1","status":"pending","userId":"user1"}}`),
	})
	letter, err := dlq.Read(kafkatest.NextRecord(t, k, orders.DeadLetters))
	require.NoError(t, err)
	require.Contains(t, letter.Error, `a change of order "o-1" that is not in its line`)
	require.Empty(t, told(t, k))
}

// What nobody has heard of yet may have been placed in another process: the brokers
// are asked, for so long as a client can wait.
func TestOrderThatCannotBeLookedUpIsNotUnknown(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, names(), func(t *testing.T, k *kafkatest.Cluster) {
		ensure(t, k)
		s := service(k.Client(t))
		kafkatest.Run(t, s)
		silent := k.Drop(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.ListOffsets}, Count: -1})
		var unread *orders.UnreadError
		_, err := s.Find(t.Context(), "nope")
		require.ErrorAs(t, err, &unread)
		_, err = s.Cancel(t.Context(), "nope")
		require.ErrorAs(t, err, &unread)
		silent.Remove()
		var unknown *orders.UnknownOrderError
		_, err = s.Find(t.Context(), "nope")
		require.ErrorAs(t, err, &unknown)
	})
}

func TestDeadLetterOfBillingThatIsAboutNoOrderChangesNothing(t *testing.T) {
	t.Parallel()
	k := onACluster(t)
	s := service(k.Client(t))
	kafkatest.Run(t, s)
	o := place(t, s)
	for _, l := range []*dlq.Letter{
		{Topic: events.OrderCreated.Topic, Value: []byte("no JSON")},
		{Topic: "another.topic", Key: []byte(o.ID), Value: []byte(`{"id":"` + o.ID + `"}`)},
	} {
		l.Format = dlq.FormatEnvelope
		r, err := l.Encode(events.BillingDeadLetters)
		require.NoError(t, err)
		kafkatest.SendRecord(t, k, r)
	}
	settled(t, k)
	becomes(t, s, o.ID, events.Pending)
	kafkatest.None(t, k, events.OrderCancelled, 0)
}

// lines collects what is logged.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(b))
	return len(b), nil
}

func (l *lines) count(part string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.all {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}
