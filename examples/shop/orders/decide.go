package orders

import (
	"context"
	"errors"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/shop/events"
)

// decide is the one place where an order stops being pending: the first change
// wins, later ones find it settled. It tells order.cancelled exactly once for each
// cancelled order, because
//
//   - the changes of an order are one partition's, which has one owner, who
//     handles them one after the other;
//   - it reads what was written before: it syncs its tables with the ends of their
//     topics, and it returns only when what it wrote is acknowledged. That is why
//     it does not stage its outputs, which are sent after the return: the next
//     change of the order may be in hand by then;
//   - order.cancelled is written first and the row after it. So a row that is
//     settled needs nothing more, and a row that is still pending is looked up in
//     order.cancelled itself: a process that died between the two leaves the next
//     owner the row alone to write.
//
// What is left: an owner that stands still in the middle of this, or is cut off
// from the brokers with a write under way, for longer than the group waits for it,
// and then goes on. The next owner has decided by then, and nothing keeps the old
// one's write out. That takes transactions.
//
// TestOrderIsCancelledOnceWhereverTheProcessDies and
// TestOrderIsCancelledOnceHoweverOftenAndInWhateverOrderItIsTold show it.
func (s *Service) decide(ctx context.Context, c change) error {
	order, found, err := s.latest(ctx, c.OrderID)
	if err != nil {
		return err
	}
	if !found {
		// No later time finds it, so trying again would be in vain.
		s.Logger.WarnContext(ctx, "orders: a change of an order that does not exist", "order", c.OrderID, "to", c.To, "reason", c.Reason)
		return nil
	}
	if order.Status == events.Pending {
		if order, err = s.settle(ctx, order, c); err != nil {
			return err
		}
	}
	if c.To == events.Paid && order.Status == events.Cancelled {
		s.Logger.WarnContext(ctx, "orders: a payment of a cancelled order, to be paid back", "order", order.ID, "payment", c.Reason)
	}
	return nil
}

// latest returns an order as it is when all that was written before has been read.
func (s *Service) latest(ctx context.Context, id string) (order events.Order, found bool, err error) {
	if err := s.table.Sync(ctx); err != nil {
		return order, false, err
	}
	order, found, err = s.table.Get(ctx, id)
	if _, garbled := errors.AsType[*wherry.RecordError](err); garbled {
		err = wherry.Permanent(err) // somebody wrote over the row
	}
	return order, found, err
}

// settle makes a pending order paid or cancelled, and returns it.
func (s *Service) settle(ctx context.Context, order events.Order, c change) (events.Order, error) {
	told, cancelled, err := s.cancellation(ctx, order.ID)
	switch {
	case err != nil:
		return order, err
	case cancelled: // a process died before it could write the row
		c = change{OrderID: order.ID, To: events.Cancelled, At: told.CancelledAt, Reason: told.Reason}
	}
	order.Status = c.To
	if c.At.After(order.UpdatedAt.Time) {
		order.UpdatedAt = c.At
	}
	if c.To == events.Cancelled && !cancelled {
		event, err := events.OrderCancelled.Record(order.ID, events.Cancellation{Order: order, Reason: c.Reason, CancelledAt: order.UpdatedAt})
		if err != nil {
			return order, err
		}
		if err := s.Client.ProduceSync(ctx, event).FirstErr(); err != nil {
			return order, err
		}
	}
	row, err := s.table.Record(order.ID, order)
	if err != nil {
		return order, err
	}
	if err := s.Client.ProduceSync(ctx, row).FirstErr(); err != nil {
		return order, err
	}
	if c.To == events.Paid {
		s.Logger.InfoContext(ctx, "orders: order paid", "order", order.ID, "payment", c.Reason)
	} else {
		s.Logger.InfoContext(ctx, "orders: order cancelled", "order", order.ID, "reason", c.Reason)
	}
	return order, nil
}

// cancellation returns what order.cancelled has told of an order, if anything.
func (s *Service) cancellation(ctx context.Context, id string) (told events.Cancellation, found bool, err error) {
	if err := s.cancelled.Sync(ctx); err != nil {
		return told, false, err
	}
	told, found, err = s.cancelled.Get(ctx, id)
	if _, garbled := errors.AsType[*wherry.RecordError](err); garbled {
		return told, false, nil // bytes of a stranger's tell nobody anything
	}
	return told, found, err
}
