// Package orders takes orders and knows them all.
package orders

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/shop/events"
)

// Group is the consumer group of the service: any number of processes share
// its work.
const Group = "orders"

// Service is the orders service. Its orders are a table in Kafka, which every
// process of the service follows as a whole; there is no other database.
type Service struct {
	// Client says how to reach the cluster, and produces. Required.
	Client *kgo.Client
	// UserExists reports whether there is a user with that id. Required.
	UserExists func(ctx context.Context, id string) (bool, error)
	// Policies decide what happens around the handlers, outermost first.
	Policies []wherry.Policy
	// Logger tells what the service does. Required.
	Logger *slog.Logger

	once     sync.Once
	table    wherry.Table[events.Order]
	consumer wherry.Consumer
}

func (s *Service) init() {
	s.once.Do(func() {
		s.table = wherry.Table[events.Order]{
			Client: s.Client,
			Topic:  events.OrdersTable,
			Logger: s.Logger,
		}
		s.consumer = wherry.Consumer{
			Client:   s.Client,
			Group:    Group,
			Handlers: []wherry.Route{events.PaymentCreated.Handler(s.paid)},
			Policies: s.Policies,
			Logger:   s.Logger,
		}
	})
}

// Ready is closed when orders can be placed, listed and paid. The fields must
// be set before.
func (s *Service) Ready() <-chan struct{} {
	s.init()
	return s.consumer.Ready() // it runs when the table is restored
}

// Run is the service until ctx is done; it then returns nil. A payment that
// cannot be handled, and a table that is lost, end it with an error. It can be
// called once.
func (s *Service) Run(ctx context.Context) error {
	s.init()
	// The table outlives the consumer, whose last handlers read it.
	tableCtx, stopTable := context.WithCancel(context.WithoutCancel(ctx))
	defer stopTable()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.table.Run(tableCtx) })
	g.Go(func() error {
		defer stopTable()
		select {
		case <-s.table.Ready():
		case <-ctx.Done():
			return nil
		}
		if err := s.tellAgain(ctx); err != nil {
			return err
		}
		return s.consumer.Run(ctx)
	})
	return g.Wait()
}

// paid sets the order of a payment to paid. A payment that comes again changes
// nothing.
func (s *Service) paid(ctx context.Context, p events.Payment) error {
	// The row was acknowledged before anybody heard of the order, but perhaps
	// to another process, and this one's table may lag behind.
	if err := s.table.Sync(ctx); err != nil {
		return err
	}
	order, found, err := s.table.Get(ctx, p.OrderID)
	switch {
	case err != nil:
		return err
	case !found:
		// No later time finds it, so stopping for it would stop for ever.
		s.Logger.WarnContext(ctx, "orders: a payment of an order that does not exist", "order", p.OrderID, "payment", p.ID)
		return nil
	case order.Status == events.Paid:
		return nil
	}
	order.Status = events.Paid
	// The payment's time, not the present: two of its records in a row write
	// the same row.
	if p.CreatedAt.After(order.UpdatedAt.Time) {
		order.UpdatedAt = p.CreatedAt
	}
	row, err := s.table.Record(order.ID, order)
	if err != nil {
		return err
	}
	if err := wherry.Publish(ctx, row); err != nil {
		return err
	}
	s.Logger.InfoContext(ctx, "orders: order paid", "order", order.ID, "payment", p.ID)
	return nil
}

// List returns all orders, the oldest first. An order whose Place has returned
// in this process is among them.
func (s *Service) List(ctx context.Context) ([]events.Order, error) {
	s.init()
	orders := []events.Order{} // not nil: JSON's [] rather than null
	for m, err := range s.table.All(ctx) {
		if err != nil {
			return nil, err
		}
		orders = append(orders, m.Value)
	}
	slices.SortFunc(orders, func(a, b events.Order) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt.Time), cmp.Compare(a.ID, b.ID))
	})
	return orders, nil
}
