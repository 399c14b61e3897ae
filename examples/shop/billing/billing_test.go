package billing_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/examples/shop/billing"
	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/kafkatest"
)

var topics = []string{
	events.OrderCreated.Topic, events.OrderCancelled.Topic, events.PaymentCreated.Topic,
	events.PaymentFailed.Topic, events.BillingDeadLetters,
}

// service is billing, with payments that go as told.
func service(t *testing.T, k *kafkatest.Cluster, payments string) *billing.Service {
	t.Helper()
	p, err := billing.ParsePayments(payments)
	require.NoError(t, err)
	return &billing.Service{Client: k.Client(t), Payments: p, Logger: slog.New(slog.DiscardHandler)}
}

func order(amount string) events.Order {
	return events.Order{ID: uuid.NewString(), TotalAmount: amount, Status: events.Pending, UserID: "user1", CreatedAt: events.Now(), UpdatedAt: events.Now()}
}

// story is what a log told, and when.
type story struct {
	slog.Handler
	mu    sync.Mutex
	lines []slog.Record
}

func (s *story) Handle(_ context.Context, r slog.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, r)
	return nil
}

func (s *story) Enabled(context.Context, slog.Level) bool { return true }
func (s *story) WithAttrs([]slog.Attr) slog.Handler       { return s }

// times returns when a line was logged, counted from begin.
func (s *story) times(begin time.Time, message string) (at []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.lines {
		if r.Message == message {
			at = append(at, r.Time.Sub(begin).Round(100*time.Millisecond))
		}
	}
	return at
}

func TestOrderThatComesTwiceIsPaidWithOnePayment(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, topics...)
	kafkatest.Run(t, service(t, k, "ok"))
	o := order("99.99")
	kafkatest.Send(t, k, events.OrderCreated, o.ID, o)
	kafkatest.Send(t, k, events.OrderCreated, o.ID, o)
	first := kafkatest.Next(t, k, events.PaymentCreated)
	second := kafkatest.Next(t, k, events.PaymentCreated)
	require.Equal(t, first.ID, second.ID)
	require.Equal(t, billing.PaymentID(o.ID), first.ID)
	require.NoError(t, uuid.Validate(first.ID))
	require.Equal(t, o.ID, first.OrderID)
	require.Equal(t, "99.99", first.Amount)
}

func TestFailingPaymentIsTriedAgainAfterOneTwoAndFourSecondsThenTold(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, topics, func(t *testing.T, k *kafkatest.Cluster) {
		s, log := service(t, k, "fail"), &story{}
		s.Logger = slog.New(log)
		kafkatest.Run(t, s)
		begin := time.Now()
		o := order("99.99")
		kafkatest.Send(t, k, events.OrderCreated, o.ID, o)
		kafkatest.None(t, k, events.PaymentFailed, 6900*time.Millisecond)
		kafkatest.Next(t, k, events.PaymentFailed)
		kafkatest.NextRecord(t, k, events.BillingDeadLetters)
		require.Equal(t, []time.Duration{0, time.Second, 3 * time.Second}, log.times(begin, "retry: failed, trying again"))
		require.Equal(t, []time.Duration{7 * time.Second}, log.times(begin, "billing: payment failed"))
		require.Equal(t, []time.Duration{7 * time.Second}, log.times(begin, "dlq: record dead-lettered"))
		kafkatest.None(t, k, events.PaymentFailed, time.Hour)
		kafkatest.None(t, k, events.PaymentCreated, 0)
	})
}

func TestFlakyPaymentSucceedsInTheThirdAttempt(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, topics, func(t *testing.T, k *kafkatest.Cluster) {
		kafkatest.Run(t, service(t, k, "flaky"))
		begin := time.Now()
		for range 3 {
			o := order("99.99")
			kafkatest.Send(t, k, events.OrderCreated, o.ID, o)
		}
		for range 3 {
			kafkatest.Next(t, k, events.PaymentCreated)
			require.InDelta(t, 3*time.Second, time.Since(begin), float64(200*time.Millisecond))
		}
		kafkatest.None(t, k, events.PaymentFailed, time.Minute)
	})
}

func TestEveryOtherOrderIsPaidWhileOneIsTriedAgain(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, topics, func(t *testing.T, k *kafkatest.Cluster) {
		kafkatest.Run(t, service(t, k, "above=100"))
		begin := time.Now()
		dear := order("100.01")
		kafkatest.Send(t, k, events.OrderCreated, dear.ID, dear)
		for range 100 { // over all partitions, that of the first among them
			o := order("100")
			kafkatest.Send(t, k, events.OrderCreated, o.ID, o)
		}
		for range 100 {
			require.NotEqual(t, dear.ID, kafkatest.Next(t, k, events.PaymentCreated).OrderID)
		}
		require.Less(t, time.Since(begin), time.Second)
		require.Equal(t, dear.ID, kafkatest.Next(t, k, events.PaymentFailed).Order.ID)
		require.InDelta(t, 7*time.Second, time.Since(begin), float64(200*time.Millisecond))
	})
}

// The gate of dlq.Queue would hold the 51st, and probe it with pauses.
func TestWhereAllPaymentsFailEachOrderEndsAfterSevenSeconds(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, topics, func(t *testing.T, k *kafkatest.Cluster) {
		kafkatest.Run(t, service(t, k, "fail"))
		begin := time.Now()
		for i := range 200 {
			o := order(strconv.Itoa(i + 1))
			kafkatest.Send(t, k, events.OrderCreated, o.ID, o)
		}
		for range 200 {
			kafkatest.Next(t, k, events.PaymentFailed)
			kafkatest.NextRecord(t, k, events.BillingDeadLetters)
		}
		require.InDelta(t, 7*time.Second, time.Since(begin), float64(time.Second))
	})
}

func TestFailureAndDeadLetterAreWrittenAsTheSeedWritesThem(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, topics...)
	s := service(t, k, "fail")
	s.RetryInitial = 10 * time.Millisecond
	kafkatest.Run(t, s)
	o := order("99.99")
	created := kafkatest.Send(t, k, events.OrderCreated, o.ID, o)

	const why = "the payment of 99.99 was declined: all are"
	failed := kafkatest.NextRecord(t, k, events.PaymentFailed.Topic)
	require.Equal(t, o.ID, string(failed.Key))
	var v map[string]any
	require.NoError(t, json.Unmarshal(failed.Value, &v))
	require.Equal(t, why, v["error"])
	require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`, v["failedAt"])
	require.Equal(t, o.ID, v["order"].(map[string]any)["id"])
	require.Len(t, v, 3)

	dead := kafkatest.NextRecord(t, k, events.BillingDeadLetters)
	require.Equal(t, o.ID, string(dead.Key))
	var envelope struct {
		OriginalMessage struct {
			Topic, Key, Offset string
			Partition          int32
			Value              events.Order
		}
		Error      struct{ Message, Name string }
		FailedAt   string
		RetryCount int
	}
	require.NoError(t, json.Unmarshal(dead.Value, &envelope))
	require.Equal(t, "order.created", envelope.OriginalMessage.Topic)
	require.Equal(t, created.Partition, envelope.OriginalMessage.Partition)
	require.Equal(t, strconv.FormatInt(created.Offset, 10), envelope.OriginalMessage.Offset)
	require.Equal(t, o.ID, envelope.OriginalMessage.Key)
	require.Equal(t, o, envelope.OriginalMessage.Value)
	require.Equal(t, why, envelope.Error.Message)
	require.Equal(t, "*billing.DeclinedError", envelope.Error.Name)
	require.Equal(t, 3, envelope.RetryCount)
}

func TestOrderThatCanNeverBePaidFailsAtOnce(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, topics...)
	s := service(t, k, "ok")
	s.RetryInitial = time.Minute
	kafkatest.Run(t, s)
	o := order("lots")
	kafkatest.Send(t, k, events.OrderCreated, o.ID, o)
	require.Equal(t, `"lots" is no amount`, kafkatest.Next(t, k, events.PaymentFailed).Error)
	require.Equal(t, wherry.CausePermanent, letter(t, k).Cause)
}

func TestBytesThatAreNoOrderAreDeadLetteredWithoutAPaymentFailed(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, topics...)
	kafkatest.Run(t, service(t, k, "ok"))
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: events.OrderCreated.Topic, Key: []byte("k"), Value: []byte("no JSON")})
	l := letter(t, k)
	require.Equal(t, wherry.CauseUndecodable, l.Cause)
	require.Equal(t, "no JSON", string(l.Value))
	o := order("1")
	kafkatest.Send(t, k, events.OrderCreated, o.ID, o)
	require.Equal(t, o.ID, kafkatest.Next(t, k, events.PaymentCreated).OrderID)
	kafkatest.None(t, k, events.PaymentFailed, 0)
}

func TestCancelledOrderIsNotCharged(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, topics, func(t *testing.T, k *kafkatest.Cluster) {
		kafkatest.Run(t, service(t, k, "flaky"))
		before, during := order("1"), order("2")
		cancel := func(o events.Order) {
			kafkatest.Send(t, k, events.OrderCancelled, o.ID, events.Cancellation{Order: o, CancelledAt: events.Now()})
			k.Sleep(t, 100*time.Millisecond)
		}
		cancel(before)
		kafkatest.Send(t, k, events.OrderCreated, before.ID, before)
		kafkatest.Send(t, k, events.OrderCreated, during.ID, during)
		k.Sleep(t, 1500*time.Millisecond)
		cancel(during) // its third attempt would succeed
		kafkatest.None(t, k, events.PaymentCreated, time.Minute)
		kafkatest.None(t, k, events.PaymentFailed, 0)
	})
}

func TestBytesInPlaceOfACancellationDoNotKeepAnOrderFromBeingPaid(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, topics...)
	kafkatest.Run(t, service(t, k, "ok"))
	o := order("1")
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: events.OrderCancelled.Topic, Key: []byte(o.ID), Value: []byte("no JSON")})
	kafkatest.Send(t, k, events.OrderCreated, o.ID, o)
	require.Equal(t, o.ID, kafkatest.Next(t, k, events.PaymentCreated).OrderID)
}

// letter is the next dead letter.
func letter(t *testing.T, k *kafkatest.Cluster) *dlq.Letter {
	t.Helper()
	l, err := dlq.Read(kafkatest.NextRecord(t, k, events.BillingDeadLetters))
	require.NoError(t, err)
	require.Equal(t, events.OrderCreated.Topic, l.Topic)
	require.Equal(t, billing.Group, l.Group)
	return l
}
