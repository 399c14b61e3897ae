package orders

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/retry"
	"github.com/wherry-go/wherry/saga"
)

// An order is a saga: it is placed, paid and settled, or cancelled where it is not
// paid. payment.created, payment.failed, billing's dead letters and the users all
// end it, in different topics and processes; the saga takes them in one after the
// other, and the first of them decides.
//
// Its state is the change that it asks decide for in the end.
func (s *Service) order() saga.Definition[change] {
	return saga.Definition[change]{
		Name: Saga,
		Start: []saga.Trigger[change]{
			// From Earliest: also those that were placed when there were no sagas yet.
			saga.On(events.OrderCreated, first).By(func(o events.Order) string { return o.ID }).From(wherry.Earliest),
		},
		Steps: []saga.Step[change]{
			{
				Name: "place",
				Do:   saga.Do(s.isPending), Idempotent: true, Retry: retry.Policy{Attempts: retry.Forever, Max: lookup},
				Undo: saga.Emit(inbox, toCancelled),
			},
			{
				Name: "pay",
				Do: saga.Await(
					saga.Success(events.PaymentCreated, paidBy).By(func(p events.Payment) string { return p.OrderID }),
					saga.Failure(events.PaymentFailed, failed).By(failedOrder).Because(failedWhy),
					saga.Failure(deadLetter, failed).By(failedOrder).Because(failedWhy),
				),
				NoUndo: true, // billing does not charge for what is cancelled; see paymentCreated
			},
			{Name: "settle", Do: saga.Emit(inbox, toPaid), Pivot: true},
		},
	}
}

func first(o events.Order) change { return change{OrderID: o.ID} }

func paidBy(c *change, p events.Payment) { c.At, c.Reason = p.CreatedAt, p.ID }

func failed(c *change, f events.PaymentFailure) { c.At, c.Reason = f.FailedAt, failedWhy(f) }

func toPaid(c change) change {
	c.To = events.Paid
	return c
}

func toCancelled(c change) change {
	c.To, c.Reason = events.Cancelled, cmp.Or(c.Reason, "Cancelled by the user")
	return c
}

func failedOrder(f events.PaymentFailure) string { return f.Order.ID }

func failedWhy(f events.PaymentFailure) string { return "Payment failed: " + f.Error }

// deadLetter is billing's, whoever wrote it. It says what payment.failed says, for an
// order whose payment.failed may be missing.
var deadLetter = wherry.Event[events.PaymentFailure]{Topic: events.BillingDeadLetters, Codec: letters{}}

// letters reads an order's dead letter.
type letters struct{ wherry.JSON }

func (letters) Decode(r *kgo.Record, v any) error {
	letter, err := dlq.Read(r)
	if err != nil {
		return err
	}
	order, err := events.OrderCreated.Decode(letter.Original())
	if err != nil || letter.Format == dlq.FormatUnknown || letter.Topic != events.OrderCreated.Topic {
		return errors.New("no dead letter of an order")
	}
	*v.(*events.PaymentFailure) = events.PaymentFailure{Order: order, Error: letter.Error, FailedAt: events.Time{Time: letter.Failed}}
	return nil
}

// isPending is for an order.created that comes again when all is over, and for
// orders of others: nobody waits for their payment.
func (s *Service) isPending(ctx context.Context, c change) error {
	order, err := s.find(ctx, c.OrderID)
	if _, unknown := errors.AsType[*UnknownOrderError](err); unknown {
		return wherry.Permanent(err)
	}
	if err != nil { // nobody knows: who cancels meanwhile cancels the order, too
		return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	if order.Status != events.Pending {
		return wherry.Permanent(fmt.Errorf("the order is %s", order.Status))
	}
	return nil
}

// paymentCreated tells of payments that come too late. Its saga settles an order of
// which a payment was told, one way or the other.
func (s *Service) paymentCreated(ctx context.Context, p events.Payment) error {
	order, err := s.find(ctx, p.OrderID)
	if err == nil && order.Status == events.Pending {
		ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("it was not settled in time"))
		defer cancel()
		order, _, err = s.table.Until(ctx, p.OrderID, isSettled)
	}
	if _, unknown := errors.AsType[*UnknownOrderError](err); unknown {
		s.Logger.WarnContext(ctx, "orders: a payment of an order that does not exist", "order", p.OrderID, "payment", p.ID)
		return nil
	}
	if err == nil && order.Status == events.Cancelled {
		s.Logger.WarnContext(ctx, "orders: a payment of a cancelled order, to be paid back", "order", order.ID, "payment", p.ID)
	}
	return err
}
