package orders

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kotel"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"

	"github.com/wherry-go/wherry/examples/shop/events"
)

// patience is how long an order may take to be placed or cancelled.
const patience = 8 * time.Second

// ErrNotReady is returned by Place, Find and Cancel until the service is ready.
var ErrNotReady = errors.New("the orders service is not ready yet")

// UnknownUserError says that an order names a user who does not exist.
type UnknownUserError struct{ ID string }

func (e *UnknownUserError) Error() string { return fmt.Sprintf("User with ID %s not found", e.ID) }

// UnconfirmedError says that it is not known whether an order was placed, or
// cancelled: it may be so later.
type UnconfirmedError struct {
	OrderID string
	Err     error
}

func (e *UnconfirmedError) Error() string {
	return fmt.Sprintf("order %s is not confirmed: %v", e.OrderID, e.Err)
}

// Unwrap returns what kept the order from being confirmed.
func (e *UnconfirmedError) Unwrap() error { return e.Err }

// Place places an order: it asks the inbox for it, and returns when it is decided
// and List has the order. n must be valid.
//
// The order's row and order.created are written together, once, by the process
// that decides on it, which may be another one. An order that is in the inbox is
// placed in any case, also when Place has given up waiting or its caller has gone.
func (s *Service) Place(ctx context.Context, n NewOrder) (events.Order, error) {
	select {
	case <-s.Ready():
	default:
		return events.Order{}, ErrNotReady
	}
	ok, err := s.UserExists(ctx, n.UserID)
	if err != nil {
		return events.Order{}, fmt.Errorf("looking user %s up: %w", n.UserID, err)
	}
	if !ok {
		return events.Order{}, &UnknownUserError{ID: n.UserID}
	}
	now := events.Now()
	order := events.Order{
		ID:          uuid.NewString(),
		TotalAmount: n.TotalAmount,
		Status:      n.Status,
		UserID:      n.UserID,
		CreatedAt:   now,
		UpdatedAt:   now,
	}
	asked, err := inbox.Record(order.ID, change{OrderID: order.ID, To: events.Pending, At: now, Order: &order})
	if err != nil {
		return events.Order{}, err
	}
	// A client that hangs up does not leave its order half placed.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), patience, errors.New("it was not decided in time"))
	defer cancel()
	if err := s.send(ctx, asked); err != nil {
		return events.Order{}, &UnconfirmedError{OrderID: order.ID, Err: err}
	}
	if _, _, err := s.table.Until(ctx, order.ID, func(_ events.Order, found bool) bool { return found }); err != nil {
		return events.Order{}, &UnconfirmedError{OrderID: order.ID, Err: err}
	}
	s.Logger.InfoContext(ctx, "orders: order placed", "order", order.ID, "user", order.UserID, "amount", order.TotalAmount)
	return order, nil
}

var tracer = otel.Tracer("github.com/wherry-go/wherry/examples/shop/orders")

// send produces r, in the trace of ctx, and returns when it is acknowledged or ctx
// is done. It never waits for room in the client's buffer.
func (s *Service) send(ctx context.Context, r *kgo.Record) error {
	ctx, span := tracer.Start(ctx, "send "+r.Topic, trace.WithSpanKind(trace.SpanKindProducer))
	defer span.End()
	otel.GetTextMapPropagator().Inject(ctx, kotel.NewRecordCarrier(r))
	sent := make(chan error, 1)
	s.Client.TryProduce(ctx, r, func(_ *kgo.Record, err error) { sent <- err })
	select {
	case err := <-sent:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
