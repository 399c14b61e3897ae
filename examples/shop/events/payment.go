package events

import (
	"errors"

	"github.com/wherry-go/wherry"
)

// PaymentPaid is the status of a payment that succeeded.
const PaymentPaid = "PAID"

// A Payment is money taken for an order.
type Payment struct {
	// ID is a UUID. One order has one payment, however often it is told of.
	ID string `json:"id"`
	// OrderID is the order that was paid.
	OrderID string `json:"orderId"`
	// Amount is the order's TotalAmount.
	Amount string `json:"amount"`
	// Status is PaymentPaid, in upper case unlike that of an order.
	Status string `json:"status"`
	// CreatedAt is when the money was taken.
	CreatedAt Time `json:"createdAt"`
	// UpdatedAt is null, as payments do not change.
	UpdatedAt *Time `json:"updatedAt"`
}

// Validate refuses a payment that belongs to no order.
func (p Payment) Validate() error {
	if p.OrderID == "" {
		return errors.New("the payment has no orderId")
	}
	return nil
}

// PaymentCreated says that an order was paid. Its key is the order's id. It
// may come more than once for one payment, with the same payment id.
var PaymentCreated = wherry.Event[Payment]{Topic: "payment.created"}

// A PaymentFailure says why no money could be taken for an order.
type PaymentFailure struct {
	// Order is the order as billing was told of it.
	Order Order `json:"order"`
	// Error is what went wrong in the last attempt.
	Error string `json:"error"`
	// FailedAt is when billing gave up.
	FailedAt Time `json:"failedAt"`
}

// Validate refuses a failure that belongs to no order.
func (f PaymentFailure) Validate() error { return f.Order.Validate() }

// PaymentFailed says that billing has given up on an order; the dead letter in
// [BillingDeadLetters] says the same to operators. Its key is the order's id. It
// may come more than once for one order.
var PaymentFailed = wherry.Event[PaymentFailure]{Topic: "payment.failed"}
