package sagatest_test

import (
	"context"
	"errors"
	"time"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/saga"
)

// A saga of a shop, with steps of every kind.
type (
	order struct {
		Total   int    `json:"total"`
		Shelf   string `json:"shelf,omitempty"`
		Payment string `json:"payment,omitempty"`
		Parcel  string `json:"parcel,omitempty"`
		Logged  bool   `json:"logged,omitempty"`
	}
	reserveReq  struct{ Total int }
	reserved    struct{ Shelf string }
	shipReq     struct{ Shelf string }
	shipped     struct{ Parcel string }
	paymentDue  struct{ Total int }
	payment     struct{ ID, Order string }
	paymentLost struct{ Order, Why string }
	placed      struct{ Total int }
)

var (
	orderPlaced    = wherry.Event[placed]{Topic: "order.placed"}
	paymentWanted  = wherry.Event[paymentDue]{Topic: "payment.wanted"}
	paymentCreated = wherry.Event[payment]{Topic: "payment.created"}
	paymentFailed  = wherry.Event[paymentLost]{Topic: "payment.failed"}
	refundWanted   = wherry.Event[string]{Topic: "refund.wanted"}
	notifyWanted   = wherry.Event[order]{Topic: "notify.wanted"}

	reserve = reqreply.Method[reserveReq, reserved]{Topic: "stock.reserve"}
	release = reqreply.Method[string, struct{}]{Topic: "stock.release"}
	ship    = reqreply.Method[shipReq, shipped]{Topic: "parcels.ship"}
	recall  = reqreply.Method[string, struct{}]{Topic: "parcels.recall"}
)

func checkout() saga.Definition[order] {
	return saga.Definition[order]{
		Name: "checkout", Version: 2, Deadline: time.Hour,
		Start: []saga.Trigger[order]{saga.On(orderPlaced, func(p placed) order { return order{Total: p.Total} })},
		Steps: []saga.Step[order]{
			{
				Name: "reserve", Timeout: 10 * time.Second, Idempotent: true,
				Do: saga.Call(reserve, func(o order) reserveReq { return reserveReq{o.Total} },
					func(o *order, r reserved) { o.Shelf = r.Shelf }),
				Undo: saga.Call(release, func(o order) string { return o.Shelf }, func(o *order, _ struct{}) { o.Shelf = "" }),
			},
			{
				Name: "pay", Timeout: 10 * time.Minute,
				Do: saga.Emit(paymentWanted, func(o order) paymentDue { return paymentDue{o.Total} },
					saga.Success(paymentCreated, func(o *order, p payment) { o.Payment = p.ID }).By(func(p payment) string { return p.Order }),
					saga.Failure(paymentFailed, func(*order, paymentLost) {}).By(func(p paymentLost) string { return p.Order }).
						Because(func(p paymentLost) string { return p.Why })),
				Undo: saga.Emit(refundWanted, func(o order) string { return o.Payment }),
			},
			{
				Name: "ship", Timeout: time.Minute, Pivot: true,
				Do: saga.Call(ship, func(o order) shipReq { return shipReq{o.Shelf} },
					func(o *order, r shipped) { o.Parcel = r.Parcel }),
				Undo: saga.Call(recall, func(order) string { return "all" }, func(o *order, _ struct{}) { o.Parcel = "" }),
			},
			{Name: "log", Do: saga.Local(
				func(context.Context, order) (bool, error) { return true, nil },
				func(o *order, yes bool) { o.Logged = yes },
			)},
			{Name: "notify", Do: saga.Emit(notifyWanted, func(o order) order { return o })},
		},
	}
}

var errDown = errors.New("down")
