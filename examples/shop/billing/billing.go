// Package billing takes the money for orders.
package billing

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/shop/events"
)

// Group is the consumer group of the service: any number of processes share
// its work.
const Group = "billing"

// Service is the billing service: it takes the money for each order that was
// created, and says so with payment.created, or, when it has given up, with
// payment.failed and a dead letter.
type Service struct {
	// Client says how to reach the cluster. Required.
	Client *kgo.Client
	// Payments says how payments go. The zero value lets them succeed.
	Payments Payments
	// RetryInitial is the wait before a payment is tried again; the next two
	// waits are twice and four times as long. 0 means 1s.
	RetryInitial time.Duration
	// Policies stand outside of the service's own, outermost first.
	Policies []wherry.Policy
	// Logger tells what the service does. Required.
	Logger *slog.Logger

	once      sync.Once
	consumer  wherry.Consumer
	cancelled wherry.Table[events.Cancellation]
}

func (s *Service) init() {
	s.once.Do(func() {
		s.cancelled = wherry.Table[events.Cancellation]{
			Client: s.Client,
			Topic:  events.OrderCancelled.Topic,
			Logger: s.Logger,
		}
		s.consumer = wherry.Consumer{
			Client:   s.Client,
			Group:    Group,
			Handlers: []wherry.Route{events.OrderCreated.Handler(s.pay)},
			// An order that waits to be tried again holds up no other one.
			Order: wherry.ByKey,
			// A provider that does not answer is one that failed.
			Timeout:  10 * time.Second,
			Delivery: wherry.ExactlyOnce,
			Policies: slices.Concat(s.Policies, []wherry.Policy{follow{&s.cancelled}}, s.policies()),
			Logger:   s.Logger,
		}
	})
}

// follow is a policy that changes nothing: it has the consumer follow a table for
// as long as it runs.
type follow struct{ table wherry.Follower }

// Wrap returns next.
func (f follow) Wrap(next wherry.Handler) wherry.Handler { return next }

// Prepare declares the table.
func (f follow) Prepare(s *wherry.Setup) error {
	s.Follow(f.table)
	return nil
}

// Ready is closed when the service knows which orders are its to pay. The
// fields must be set before.
func (s *Service) Ready() <-chan struct{} {
	s.init()
	return s.consumer.Ready()
}

// Run pays orders until ctx is done, and then returns nil. An order that cannot
// be handed on as a dead letter either ends it with an error, and stays to be
// paid. It can be called once.
func (s *Service) Run(ctx context.Context) error {
	s.init()
	return s.consumer.Run(ctx)
}

// pay charges the user and stages payment.created, which is sent before the
// order counts as handled.
//
// It may be called more than once for an order: after a crash, and when a dead
// letter is replayed. payment.created comes once for each time the order does, and
// the payment has the same id each time, so that the provider takes it once. An
// order that was cancelled, by its user or because a payment failed before, is
// not charged, as far as is known here: orders decides which of a payment and a
// cancellation came first.
func (s *Service) pay(ctx context.Context, o events.Order) error {
	cancelled, err := s.isCancelled(ctx, o.ID)
	if err != nil {
		return err
	}
	if cancelled {
		s.Logger.InfoContext(ctx, "billing: order is cancelled, not charged", "order", o.ID)
		return nil
	}
	if err := s.Payments.charge(ctx, wherry.Attempt(ctx), o.TotalAmount); err != nil {
		return err
	}
	payment := events.Payment{
		ID:        PaymentID(o.ID),
		OrderID:   o.ID,
		Amount:    o.TotalAmount,
		Status:    events.PaymentPaid,
		CreatedAt: events.Now(),
	}
	if err := events.PaymentCreated.Publish(ctx, o.ID, payment); err != nil {
		return err
	}
	s.Logger.InfoContext(ctx, "billing: paid", "order", o.ID, "amount", payment.Amount, "payment", payment.ID)
	return nil
}

// isCancelled reports whether order.cancelled has been told of an order.
func (s *Service) isCancelled(ctx context.Context, id string) (bool, error) {
	_, found, err := s.cancelled.Get(ctx, id)
	if _, garbled := errors.AsType[*wherry.RecordError](err); garbled {
		return false, nil // bytes of a stranger's
	}
	return found, err
}

// namespace is that of payment ids; it was drawn once and must not change.
var namespace = uuid.MustParse("957dfee4-4fd2-43e0-8050-ce06ba5dc954")

// PaymentID is the id of the payment of an order: a UUID (version 5) that
// depends on nothing else.
func PaymentID(orderID string) string { return uuid.NewSHA1(namespace, []byte(orderID)).String() }
