package orders

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/wherry-go/wherry/examples/shop/events"
)

// patience is how long an order may take to be placed or cancelled.
const patience = 8 * time.Second

// ErrNotReady is returned by Place, Find and Cancel until the service is ready.
var ErrNotReady = errors.New("the orders service is not ready yet")

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

// ReusedKeyError says that an idempotency key has placed another order already.
type ReusedKeyError struct{ OrderID string }

func (e *ReusedKeyError) Error() string {
	return fmt.Sprintf("The Idempotency-Key was used for order %s, which is another one than this: choose a new key", e.OrderID)
}

// Place places an order: it asks the inbox for it, and returns when it is decided
// and List has the order. n must be valid.
//
// The order's row and order.created are written together, once, by the process
// that decides on it, which may be another one. An order that is in the inbox is
// placed in any case, also when Place has given up waiting or its caller has gone.
//
// A key that is not "" makes that one order, however often, in how many processes
// and with what result it is placed: all get the order as it was placed first. It
// is one user's, and as long-lived as the order, which is for ever. For an order
// that differs from the one that the key has placed the error is a *ReusedKeyError.
// TestKeyPlacesOneOrderWhereverTheProcessDies shows it.
func (s *Service) Place(ctx context.Context, n NewOrder, key string) (events.Order, error) {
	select {
	case <-s.Ready():
	default:
		return events.Order{}, ErrNotReady
	}
	now := events.Now()
	order := events.Order{
		ID:          orderID(n.UserID, key),
		TotalAmount: n.TotalAmount,
		Status:      n.Status,
		UserID:      n.UserID,
		CreatedAt:   now,
		UpdatedAt:   now,
	}
	// A client that hangs up does not leave its order half placed.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), patience, errors.New("it was not decided in time"))
	defer cancel()
	if key != "" {
		// Here or, in the inbox, by decide: an order that is there is not placed again.
		if row, found, err := s.table.Get(ctx, order.ID); err != nil || found {
			return asPlaced(row, n, err)
		}
	}
	if err := s.findUser(ctx, n.UserID); err != nil {
		return events.Order{}, err
	}
	asked, err := inbox.Record(order.ID, change{OrderID: order.ID, To: events.Pending, At: now, Order: &order})
	if err != nil {
		return events.Order{}, err
	}
	if err := events.Send(ctx, s.Client, asked); err != nil {
		return events.Order{}, &UnconfirmedError{OrderID: order.ID, Err: err}
	}
	row, _, err := s.table.Until(ctx, order.ID, func(_ events.Order, found bool) bool { return found })
	if err != nil {
		return events.Order{}, &UnconfirmedError{OrderID: order.ID, Err: err}
	}
	if row.CreatedAt.Equal(now.Time) { // else another request with this key was first
		s.Logger.InfoContext(ctx, "orders: order placed", "order", order.ID, "user", order.UserID, "amount", order.TotalAmount)
	}
	return asPlaced(row, n, nil)
}

// keys is the namespace of the ids that are made of idempotency keys.
var keys = uuid.MustParse("6f1b7a0e-6a37-4d3c-9d0b-3f7b1f0c2a51")

// orderID is the id of a user's order with that key, always the same one; a new
// one without a key. So a key needs no place of its own: the order's line in the
// inbox decides who was first, and its row remembers.
func orderID(userID, key string) string {
	if key == "" {
		return uuid.NewString()
	}
	return uuid.NewSHA1(keys, fmt.Appendf(nil, "%d %s %s", len(userID), userID, key)).String()
}

// asPlaced returns an order as it was placed, whatever has become of it, if that
// is what n asks for.
func asPlaced(row events.Order, n NewOrder, err error) (events.Order, error) {
	if err == nil && (row.TotalAmount != n.TotalAmount || row.UserID != n.UserID) {
		err = &ReusedKeyError{OrderID: row.ID}
	}
	if err != nil {
		return events.Order{}, err
	}
	row.Status, row.UpdatedAt = events.Pending, row.CreatedAt
	return row, nil
}
