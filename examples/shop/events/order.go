package events

import (
	"errors"

	"github.com/wherry-go/wherry"
)

// Order statuses, in lower case on the wire.
const (
	Pending   = "pending" // placed, and neither paid nor cancelled yet
	Paid      = "paid"
	Cancelled = "cancelled"
)

// An Order is what a user asked for, as the table of orders has it and as
// order.created told it.
type Order struct {
	// ID is a UUID, and the key of every record that is about the order, so
	// that all of them keep their order.
	ID string `json:"id" format:"uuid"`
	// TotalAmount is text, and stays as it was given: a float could not hold
	// every amount.
	TotalAmount string `json:"totalAmount" doc:"a decimal number" example:"99.99"`
	Status      string `json:"status" enum:"pending,paid,cancelled"`
	UserID      string `json:"userId" example:"user1"`
	// CreatedAt is when the order was placed.
	CreatedAt Time `json:"createdAt" format:"date-time"`
	// UpdatedAt is when its status last changed; at first it is CreatedAt.
	UpdatedAt Time `json:"updatedAt" format:"date-time" doc:"when the status last changed"`
}

// Validate refuses an order that no service could do anything with.
func (o Order) Validate() error {
	if o.ID == "" {
		return errors.New("the order has no id")
	}
	return nil
}

// OrderCreated says that an order was placed. Its key is the order's id, and
// it has no headers of its own. There is one for each order, and another one for each
// time that somebody replays its dead letter.
var OrderCreated = wherry.Event[Order]{Topic: "order.created"}

// A Cancellation is the end of an order that will not be paid.
type Cancellation struct {
	// Order is the order, cancelled.
	Order Order `json:"order"`
	// Reason is for people: who cancelled the order, or why it could not be
	// paid.
	Reason string `json:"reason"`
	// CancelledAt is when what led to it happened.
	CancelledAt Time `json:"cancelledAt"`
}

// Validate refuses a cancellation of no order.
func (c Cancellation) Validate() error { return c.Order.Validate() }

// OrderCancelled says that an order was cancelled. Its key is the order's id.
// There is one for each cancelled order.
var OrderCancelled = wherry.Event[Cancellation]{Topic: "order.cancelled"}
