package orders

import (
	"fmt"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/shop/events"
)

// The inbox is the line of the rows' writer: an order that is placed, and what its
// saga makes of it, keyed by the order's id, for decide.

// change is what the inbox holds: that an order is placed, or is to become paid or
// cancelled.
type change struct {
	OrderID string `json:"orderId"`
	To      string `json:"to,omitempty"` // events.Pending, events.Paid or events.Cancelled
	// At is when its cause happened; the zero Time means when it was asked for.
	At events.Time `json:"at,omitzero"`
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
