package orders

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

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

// Place places an order: it writes the order's row and then order.created, and
// returns when both are acknowledged and List has the order. n must be valid.
//
// The two are not written in one step, and this is what can happen between
// them. While the process lives, order.created follows the row as soon as the
// brokers take it, also when Place has given up waiting or its caller has gone.
// When the process dies, or the brokers refuse the event, the order stays
// pending, and the next start of the service tells it again ([Service.Run]).
// So no order is forgotten, and order.created may come twice.
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
	row, err := s.table.Record(order.ID, order)
	if err != nil {
		return events.Order{}, err
	}
	created, err := events.OrderCreated.Record(order.ID, order)
	if err != nil {
		return events.Order{}, err
	}
	// A client that hangs up does not leave its order half placed.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), patience, errors.New("the brokers did not answer in time"))
	defer cancel()
	if err := s.write(ctx, row, created); err != nil {
		return events.Order{}, &UnconfirmedError{OrderID: order.ID, Err: err}
	}
	s.Logger.InfoContext(ctx, "orders: order placed", "order", order.ID, "user", order.UserID, "amount", order.TotalAmount)
	if err := s.table.Wait(ctx, row); err != nil {
		return events.Order{}, &UnconfirmedError{OrderID: order.ID, Err: err}
	}
	return order, nil
}

// write produces row, and created once row is acknowledged, and waits for
// both until ctx is done. It never waits for room in the client's buffer.
func (s *Service) write(ctx context.Context, row, created *kgo.Record) error {
	written := make(chan error, 1)
	s.Client.TryProduce(ctx, row, func(_ *kgo.Record, err error) {
		if err != nil {
			written <- fmt.Errorf("writing its row: %w", err)
			return
		}
		s.Client.TryProduce(context.WithoutCancel(ctx), created, func(r *kgo.Record, err error) {
			if err != nil {
				s.Logger.Error("orders: order.created was not sent, the next start sends it", "order", string(r.Key), "error", err)
				err = fmt.Errorf("telling of it: %w", err)
			}
			written <- err
		})
	})
	select {
	case err := <-written:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tellAgain sends order.created for each order that is pending: the process
// that placed it may have died before it could. Most were told and are sent
// twice, which everyone who handles order.created has to bear anyway.
func (s *Service) tellAgain(ctx context.Context) error {
	var told []*kgo.Record
	for order, err := range s.all(ctx) {
		if err != nil {
			return err
		}
		if order.Status != events.Pending {
			continue
		}
		r, err := events.OrderCreated.Record(order.ID, order)
		if err != nil {
			return err
		}
		told = append(told, r)
		s.Logger.InfoContext(ctx, "orders: order is pending, told again", "order", order.ID)
	}
	acks := make(chan error, len(told))
	for _, r := range told {
		s.Client.Produce(ctx, r, func(_ *kgo.Record, err error) { acks <- err })
	}
	for range told {
		select {
		case err := <-acks:
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("telling of pending orders again: %w", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}
