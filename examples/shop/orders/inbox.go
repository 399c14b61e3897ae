package orders

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/examples/shop/events"
)

// What befalls an order comes from four sides: payment.created, payment.failed,
// billing's dead letters and the users. Records of one order in different topics
// are handled side by side, and in different processes, so two of them could both
// find the order pending. The inbox brings them into one line: whatever comes
// becomes a change in it, keyed by the order's id, and decide takes the changes of
// an order one after the other.

// change is what the inbox holds: that an order is placed, or is to become paid or
// cancelled.
type change struct {
	OrderID string      `json:"orderId"`
	To      string      `json:"to"` // events.Pending, events.Paid or events.Cancelled
	At      events.Time `json:"at"` // when its cause happened
	// Reason is why it is to be cancelled, or the payment that paid it.
	Reason string `json:"reason,omitempty"`
	// Order is one that is placed.
	Order *events.Order `json:"order,omitempty"`
}

// Validate refuses a change that nothing can be done with.
func (c change) Validate() error {
	switch {
	case c.OrderID == "":
	case c.To == events.Pending:
		if c.Order != nil && c.Order.ID == c.OrderID {
			return nil
		}
	case c.To == events.Paid, c.To == events.Cancelled:
		return nil
	}
	return fmt.Errorf("a change of order %q to %q", c.OrderID, c.To)
}

var inbox = wherry.Event[change]{Topic: events.OrdersInbox}

func (s *Service) paymentCreated(ctx context.Context, p events.Payment) error {
	return inbox.Publish(ctx, p.OrderID, change{OrderID: p.OrderID, To: events.Paid, At: p.CreatedAt, Reason: p.ID})
}

func (s *Service) paymentFailed(ctx context.Context, f events.PaymentFailure) error {
	return inbox.Publish(ctx, f.Order.ID, change{OrderID: f.Order.ID, To: events.Cancelled, At: f.FailedAt, Reason: failed(f.Error)})
}

// billingDeadLetter takes a dead letter of billing's, whoever wrote it. It says
// what payment.failed says, for an order whose payment.failed may be missing.
func (s *Service) billingDeadLetter(ctx context.Context, r *kgo.Record) error {
	letter, err := dlq.Read(r)
	if err == nil && letter.Format == dlq.FormatUnknown {
		err = errors.New("no dead letter of a known format")
	}
	if err != nil {
		return &wherry.RecordError{Cause: wherry.CauseUndecodable, Err: err}
	}
	order, err := events.OrderCreated.Decode(letter.Original())
	if err != nil || letter.Topic != events.OrderCreated.Topic {
		s.Logger.WarnContext(ctx, "orders: a dead letter of billing's that is about no order", "of", letter.Topic, "partition", letter.Partition, "offset", letter.Offset)
		return nil //nolint:nilerr // no order waits for it
	}
	return inbox.Publish(ctx, order.ID, change{OrderID: order.ID, To: events.Cancelled, At: events.Time{Time: letter.Failed}, Reason: failed(letter.Error)})
}

func failed(why string) string { return "Payment failed: " + why }
