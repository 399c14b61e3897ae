// Package notifications tells users what happens to their orders.
package notifications

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/examples/shop/events"
)

// Group is the consumer group of the service, and DeadLetters the topic of what
// it could not handle.
const (
	Group       = "notifications"
	DeadLetters = "notifications.dlq"
)

// Service is the notifications service. A notification is a line in the log
// here; it is sent at least once, so a user may be told twice.
type Service struct {
	// Client says how to reach the cluster. Required.
	Client *kgo.Client
	// Policies stand outside of the service's own, outermost first.
	Policies []wherry.Policy
	// Logger gets the notifications. Required.
	Logger *slog.Logger

	once     sync.Once
	consumer wherry.Consumer
}

func (s *Service) init() {
	s.once.Do(func() {
		s.consumer = wherry.Consumer{
			Client: s.Client,
			Group:  Group,
			Handlers: []wherry.Route{
				events.OrderCreated.Handler(s.orderCreated),
				events.PaymentCreated.Handler(s.paymentCreated),
				events.PaymentFailed.Handler(s.paymentFailed),
				events.OrderCancelled.Handler(s.orderCancelled),
			},
			Delivery: wherry.ExactlyOnce, // for its dead letters
			Policies: slices.Concat(s.Policies, []wherry.Policy{&dlq.Queue{Topic: DeadLetters}}),
			Logger:   s.Logger,
		}
	})
}

// Ready is closed when the service knows which events are its to tell. The
// fields must be set before.
func (s *Service) Ready() <-chan struct{} {
	s.init()
	return s.consumer.Ready()
}

// Run notifies until ctx is done, and then returns nil. It can be called once.
func (s *Service) Run(ctx context.Context) error {
	s.init()
	return s.consumer.Run(ctx)
}

// orderCreated tells the user of an order that it was received.
func (s *Service) orderCreated(ctx context.Context, o events.Order) error {
	s.Logger.InfoContext(ctx, "notifications: your order was received", "order", o.ID, "to", o.UserID)
	return nil
}

// paymentCreated knows no user: a payment names its order only, and the two
// topics are read side by side, so the order may not have been seen yet.
func (s *Service) paymentCreated(ctx context.Context, p events.Payment) error {
	s.Logger.InfoContext(ctx, "notifications: your payment was received", "order", p.OrderID, "amount", p.Amount)
	return nil
}

// paymentFailed tells the user that no money could be taken.
func (s *Service) paymentFailed(ctx context.Context, f events.PaymentFailure) error {
	s.Logger.InfoContext(ctx, "notifications: your payment failed", "order", f.Order.ID, "to", f.Order.UserID, "error", f.Error)
	return nil
}

// orderCancelled tells the user that the order is off.
func (s *Service) orderCancelled(ctx context.Context, c events.Cancellation) error {
	s.Logger.InfoContext(ctx, "notifications: your order was cancelled", "order", c.Order.ID, "to", c.Order.UserID, "reason", c.Reason)
	return nil
}
