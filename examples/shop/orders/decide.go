package orders

import (
	"context"
	"errors"
	"fmt"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/shop/events"
)

// decide is the one place where rows are written, where orders begin and where they
// stop being pending: the first change wins, later ones find it settled. It tells
// order.created and order.cancelled exactly once for each order, because
//
//   - the changes of an order are one partition's, which has one owner, who
//     handles them one after the other;
//   - the row, the event and the group's offset are one transaction, and what an
//     owner does that has lost the partition is refused.
//
// TestOrderIsCancelledOnceWhereverTheProcessDies and
// TestOrderIsCancelledOnceHoweverOftenAndInWhateverOrderItIsTold show it.
func (s *Service) decide(ctx context.Context, c change) error {
	if string(wherry.RecordFrom(ctx).Key) != c.OrderID {
		return wherry.Permanent(fmt.Errorf("a change of order %q that is not in its line", c.OrderID))
	}
	order, found, err := s.rows.Get(ctx, c.OrderID)
	if _, garbled := errors.AsType[*wherry.RecordError](err); garbled {
		err = wherry.Permanent(err) // somebody wrote over the row
	}
	switch {
	case err != nil:
		return err
	case c.To == events.Pending && !found:
		return s.begin(ctx, *c.Order)
	case c.To == events.Pending:
		return nil // it was asked for twice
	case !found:
		// No later time finds it, so trying again would be in vain.
		s.Logger.WarnContext(ctx, "orders: a change of an order that does not exist", "order", c.OrderID, "to", c.To, "reason", c.Reason)
		return nil
	case order.Status == events.Pending:
		return s.settle(ctx, order, c)
	}
	return nil // it is settled already
}

// begin writes the row of an order and tells of it.
func (s *Service) begin(ctx context.Context, order events.Order) error {
	if err := s.rows.Put(ctx, order.ID, order); err != nil {
		return err
	}
	return events.OrderCreated.Publish(ctx, order.ID, order)
}

// settle makes a pending order paid or cancelled.
func (s *Service) settle(ctx context.Context, order events.Order, c change) error {
	order.Status = c.To
	if c.At.IsZero() {
		c.At.Time = wherry.RecordFrom(ctx).Timestamp
	}
	if c.At.After(order.UpdatedAt.Time) {
		order.UpdatedAt = c.At
	}
	if err := s.rows.Put(ctx, order.ID, order); err != nil {
		return err
	}
	if c.To == events.Paid {
		s.Logger.InfoContext(ctx, "orders: order paid", "order", order.ID, "payment", c.Reason)
		return nil
	}
	s.Logger.InfoContext(ctx, "orders: order cancelled", "order", order.ID, "reason", c.Reason)
	return events.OrderCancelled.Publish(ctx, order.ID, events.Cancellation{Order: order, Reason: c.Reason, CancelledAt: order.UpdatedAt})
}
