// Package billing takes the money for orders.
package billing

import (
	"context"
	"log/slog"
	"sync"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/shop/events"
)

// Group is the consumer group of the service: any number of processes share
// its work.
const Group = "billing"

// Service is the billing service: it pays each order that was created, and
// says so with payment.created.
type Service struct {
	// Client says how to reach the cluster. Required.
	Client *kgo.Client
	// Policies decide what happens around the handlers, outermost first.
	Policies []wherry.Policy
	// Logger tells what the service does. Required.
	Logger *slog.Logger

	once     sync.Once
	consumer wherry.Consumer
}

func (s *Service) init() {
	s.once.Do(func() {
		s.consumer = wherry.Consumer{
			Client:   s.Client,
			Group:    Group,
			Handlers: []wherry.Route{events.OrderCreated.Handler(s.pay)},
			Policies: s.Policies,
			Logger:   s.Logger,
		}
	})
}

// Ready is closed when the service knows which orders are its to pay. The
// fields must be set before.
func (s *Service) Ready() <-chan struct{} {
	s.init()
	return s.consumer.Ready()
}

// Run pays orders until ctx is done, and then returns nil; an order that
// cannot be paid ends it with an error and stays to be paid. It can be called
// once.
func (s *Service) Run(ctx context.Context) error {
	s.init()
	return s.consumer.Run(ctx)
}

// pay charges the user and stages payment.created, which is sent before the
// order counts as handled.
//
// An order can come more than once: after a crash, and because orders tells
// again what it is not sure to have told. The payment has the same id each
// time, so that the order is still paid once.
func (s *Service) pay(ctx context.Context, o events.Order) error {
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

// namespace is that of payment ids; it was drawn once and must not change.
var namespace = uuid.MustParse("957dfee4-4fd2-43e0-8050-ce06ba5dc954")

// PaymentID is the id of the payment of an order: a UUID (version 5) that
// depends on nothing else.
func PaymentID(orderID string) string { return uuid.NewSHA1(namespace, []byte(orderID)).String() }
