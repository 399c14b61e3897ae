package orders

import (
	"context"
	"errors"
	"fmt"

	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/saga"
)

// UnknownOrderError says that there is no order with an id.
type UnknownOrderError struct{ ID string }

func (e *UnknownOrderError) Error() string { return fmt.Sprintf("Order with ID %s not found", e.ID) }

// PaidError says that an order cannot be cancelled any more.
type PaidError struct{ OrderID string }

func (e *PaidError) Error() string {
	return fmt.Sprintf("Order with ID %s is paid and cannot be cancelled", e.OrderID)
}

// UnreadError says that the brokers did not tell what the orders are now.
type UnreadError struct{ Err error }

func (e *UnreadError) Error() string {
	return fmt.Sprintf("the orders could not be looked up: %v", e.Err)
}

// Unwrap returns what kept them from it.
func (e *UnreadError) Unwrap() error { return e.Err }

// Find returns the order with that id, also one that was placed in another
// process a moment ago. Its error for one that does not exist is an
// *UnknownOrderError; where the brokers do not tell, an *UnreadError.
func (s *Service) Find(ctx context.Context, id string) (events.Order, error) {
	select {
	case <-s.Ready():
	default:
		return events.Order{}, ErrNotReady
	}
	return s.find(ctx, id)
}

func (s *Service) find(ctx context.Context, id string) (events.Order, error) {
	order, found, err := s.table.Get(ctx, id)
	if err == nil && !found {
		order, found, err = s.latest(ctx, id)
	}
	if err == nil && !found {
		err = &UnknownOrderError{ID: id}
	}
	return order, err
}

// Cancel cancels an order for its user and returns it when that is decided and
// Find has it. An order that is cancelled already is returned as it is. The error
// for one that is paid, or whose payment comes first, is a *PaidError.
//
// A payment that is under way is not stopped by it, but not tried again either;
// one that succeeds nevertheless is to be paid back.
func (s *Service) Cancel(ctx context.Context, id string) (events.Order, error) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), patience, errors.New("it was not decided in time"))
	defer cancel()
	order, err := s.Find(ctx, id)
	if err != nil || order.Status != events.Pending {
		return cancelled(order, err)
	}
	// Its order.created may still be on its way to the saga. A second start is none.
	err = s.saga.Start(ctx, id, first(order))
	if err == nil {
		err = s.saga.Undo(ctx, id, saga.By{Actor: "user " + order.UserID, Reason: "cancelled by the user"})
	}
	// A saga refuses that is settling the order already, or has.
	if _, refused := errors.AsType[*saga.VerbError](err); err != nil && !refused {
		return order, &UnconfirmedError{OrderID: id, Err: err}
	}
	// The row may be written in another process. The table hears of it in any case.
	order, _, err = s.table.Until(ctx, id, isSettled)
	if err != nil {
		return order, &UnconfirmedError{OrderID: id, Err: err}
	}
	return cancelled(order, nil)
}

func isSettled(o events.Order, _ bool) bool { return o.Status != events.Pending }

// cancelled is the answer to who wants to cancel an order that is not pending.
func cancelled(order events.Order, err error) (events.Order, error) {
	if err == nil && order.Status != events.Cancelled {
		err = &PaidError{OrderID: order.ID}
	}
	return order, err
}

// latest returns an order as it is when all that was written before has been read.
func (s *Service) latest(ctx context.Context, id string) (order events.Order, found bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the brokers did not answer in time"))
	defer cancel()
	if err := s.table.Sync(ctx); err != nil {
		return order, false, &UnreadError{err}
	}
	return s.table.Get(ctx, id)
}
