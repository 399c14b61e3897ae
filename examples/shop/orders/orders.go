// Package orders takes orders and knows them all.
package orders

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/retry"
	"github.com/wherry-go/wherry/saga"
)

// Saga is the name of the orders' saga, Group the consumer group of what hears of
// payments, and DecidingGroup that of what writes the rows: any number of processes
// share their work. DeadLetters is the topic of what the groups could not handle; the
// saga has its own.
const (
	Saga          = "orders"
	Group         = "orders"
	DecidingGroup = "orders.decide"
	DeadLetters   = "orders.dlq"
)

// Service is the orders service. Its orders are a table in Kafka; there is no
// other database. The rows of an order are written by the process that has its
// partition, and every process follows the table as a whole, to answer from.
type Service struct {
	// Client says how to reach the cluster, and produces. Required.
	Client *kgo.Client
	// AuthGroup is the group of those who answer events.GetUser, so that an order
	// is refused at once where there is none. "" means that nobody is asked for:
	// then it is refused when the answer is late.
	AuthGroup string
	// Subject returns whose a token is. nil means that all tokens are refused.
	Subject func(token string) (userID string, err error)
	// Policies stand outside of the service's own, outermost first.
	Policies []wherry.Policy
	// Logger tells what the service does. Required.
	Logger *slog.Logger

	once    sync.Once
	table   wherry.Table[events.Order]      // to answer from
	rows    wherry.OwnedTable[events.Order] // the same topic, to decide with
	users   reqreply.Caller                 // of auth
	saga    saga.Engine[change]
	hears   wherry.Consumer
	decides wherry.Consumer
	ready   chan struct{}
}

func (s *Service) init() {
	s.once.Do(func() {
		s.ready = make(chan struct{})
		s.table = wherry.Table[events.Order]{Client: s.Client, Topic: events.OrdersTable, Logger: s.Logger}
		s.rows = wherry.OwnedTable[events.Order]{Topic: events.OrdersTable}
		s.users = reqreply.Caller{
			Client:  s.Client,
			Methods: []reqreply.AnyMethod{events.GetUser},
			Topics:  wherry.TopicSpec{Like: events.GetUser.Topic}, // a NestJS caller needs a partition for each process
			Logger:  s.Logger,
		}
		// What cannot be handled for other reasons than its own bytes mostly has
		// to do with Kafka itself, which is soon well again.
		policies := slices.Concat(s.Policies, []wherry.Policy{
			&dlq.Queue{Topic: DeadLetters},
			retry.Policy{Attempts: 6, Initial: 200 * time.Millisecond},
		})
		s.saga = saga.Engine[change]{
			Client:      s.Client,
			Definitions: []saga.Definition[change]{s.order()},
			Topics:      wherry.TopicSpec{Partitions: events.Partitions},
			Logger:      s.Logger,
		}
		s.hears = wherry.Consumer{
			Client:   s.Client,
			Group:    Group,
			Handlers: []wherry.Route{events.PaymentCreated.Handler(s.paymentCreated)},
			Order:    wherry.ByKey,
			Policies: policies,
			Logger:   s.Logger,
		}
		s.decides = wherry.Consumer{
			Client:   s.Client,
			Group:    DecidingGroup,
			Handlers: []wherry.Route{inbox.Handler(s.decide)},
			Order:    wherry.ByKey,
			Delivery: wherry.ExactlyOnce,
			Tables:   []wherry.Owned{&s.rows},
			Policies: policies,
			Logger:   s.Logger,
		}
	})
}

// Ready is closed when orders can be placed, listed, paid and cancelled. The
// fields must be set before.
func (s *Service) Ready() <-chan struct{} {
	s.init()
	return s.ready
}

// Run is the service until ctx is done; it then returns nil. A table that is
// lost, and a record that cannot be handed on as a dead letter either, end it with
// an error. It can be called once.
func (s *Service) Run(ctx context.Context) error {
	s.init()
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{s.table.Run, s.users.Run, s.saga.Run, s.hears.Run, s.decides.Run} {
		g.Go(func() error { return run(ctx) })
	}
	g.Go(func() error {
		for _, ready := range []<-chan struct{}{s.table.Ready(), s.users.Ready(), s.saga.Ready(), s.hears.Ready(), s.decides.Ready()} {
			select {
			case <-ready:
			case <-ctx.Done():
				return nil
			}
		}
		close(s.ready)
		return nil
	})
	return g.Wait()
}

// List returns all orders, the oldest first. An order whose Place has returned
// in this process is among them. A row that is no order is left out.
func (s *Service) List(ctx context.Context) ([]events.Order, error) {
	s.init()
	orders := []events.Order{} // not nil: JSON's [] rather than null
	for order, err := range s.all(ctx) {
		if err != nil {
			return nil, err
		}
		orders = append(orders, order)
	}
	slices.SortFunc(orders, func(a, b events.Order) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt.Time), cmp.Compare(a.ID, b.ID))
	})
	return orders, nil
}

// all ranges over the orders. What somebody else wrote into their topic, and is no
// order, is told of and left out: one row must not hide all others.
func (s *Service) all(ctx context.Context) iter.Seq2[events.Order, error] {
	return func(yield func(events.Order, error) bool) {
		for m, err := range s.table.All(ctx) {
			if garbled, ok := errors.AsType[*wherry.RecordError](err); ok {
				s.Logger.WarnContext(ctx, "orders: a row of the table is no order", "error", garbled)
				continue
			}
			if !yield(m.Value, err) {
				return
			}
		}
	}
}
