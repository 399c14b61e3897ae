// Package checkout is the saga: what a checkout does, in which order, and what
// undoes it.
package checkout

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/wherry-go/wherry/examples/checkout/contract"
	"github.com/wherry-go/wherry/retry"
	"github.com/wherry-go/wherry/saga"
)

// A Checkout is the state of the saga: what a customer wants, and how far it has
// come.
type Checkout struct {
	Customer string `json:"customer"`
	Address  string `json:"address"`
	Item     string `json:"item"`
	Quantity int    `json:"quantity"`
	Amount   int64  `json:"amount"` // in cents

	Shelf    string `json:"shelf,omitempty"`
	Payment  string `json:"payment,omitempty"`
	Tracking string `json:"tracking,omitempty"`
	Entry    string `json:"entry,omitempty"`
}

// Validate tells all that is missing.
func (c Checkout) Validate() error {
	var faults []error
	missing := func(name, text string) {
		if text == "" {
			faults = append(faults, fmt.Errorf("%s is missing", name))
		}
	}
	missing("customer", c.Customer)
	missing("address", c.Address)
	missing("item", c.Item)
	if c.Quantity < 1 {
		faults = append(faults, errors.New("quantity must be at least 1"))
	}
	if c.Amount < 1 {
		faults = append(faults, errors.New("amount must be at least 1"))
	}
	return errors.Join(faults...)
}

// Pace is how patient a checkout is. The zero Pace is that of people.
type Pace struct {
	Timeout    time.Duration // of a step; 0 means 3s
	Retry      time.Duration // the wait before the second attempt; 0 means 1s
	StuckAfter time.Duration // 0 means 15s
}

// Definition returns the saga.
func Definition(p Pace) saga.Definition[Checkout] {
	timeout := cmp.Or(p.Timeout, 3*time.Second)
	again := retry.Policy{Attempts: 4, Initial: p.Retry, Max: 10 * time.Second}
	return saga.Definition[Checkout]{
		Name:       "checkout",
		StuckAfter: cmp.Or(p.StuckAfter, 15*time.Second),
		Steps: []saga.Step[Checkout]{
			{
				Name: "reserve",
				Do:   saga.Call(contract.Reserve, Checkout.goods, func(c *Checkout, r contract.Reservation) { c.Shelf = r.Shelf }),
				// To the same topic: the participant's barrier sees both.
				Undo: saga.Call(contract.Reserve, Checkout.goods, nil), Timeout: timeout, Idempotent: true, Retry: again,
			},
			{Name: "pay and ship", Parallel: []saga.Step[Checkout]{
				{
					Name:    "pay",
					Do:      saga.Call(contract.Pay, Checkout.charge, func(c *Checkout, p contract.Payment) { c.Payment = p.ID }),
					Undo:    saga.Call(contract.Refund, Checkout.charge, nil),
					Timeout: timeout, Idempotent: true, Retry: again,
				},
				{
					Name: "ship",
					Do:   saga.Call(contract.Ship, Checkout.parcel, func(c *Checkout, l contract.Label) { c.Tracking = l.Tracking }),
					Undo: saga.Call(contract.Ship, Checkout.parcel, nil), Timeout: timeout, Idempotent: true, Retry: again,
				},
			}},
			{
				Name: "capture", Pivot: true,
				Do:      saga.Call(contract.Capture, Checkout.sale, func(c *Checkout, e contract.Entry) { c.Entry = e.Number }),
				Timeout: timeout, Idempotent: true, Retry: again,
			},
			{
				Name:    "notify",
				Do:      saga.Call(contract.Notify, Checkout.notice, nil),
				Timeout: timeout, Idempotent: true, Retry: again,
			},
		},
	}
}

func (c Checkout) goods() contract.Goods {
	return contract.Goods{Item: c.Item, Quantity: c.Quantity}
}

func (c Checkout) charge() contract.Charge {
	return contract.Charge{Customer: c.Customer, Amount: c.Amount}
}

func (c Checkout) parcel() contract.Parcel {
	return contract.Parcel{Item: c.Item, Quantity: c.Quantity, Address: c.Address}
}

func (c Checkout) sale() contract.Sale {
	return contract.Sale{Payment: c.Payment, Amount: c.Amount}
}

func (c Checkout) notice() contract.Notice {
	return contract.Notice{Customer: c.Customer, Text: fmt.Sprintf("%d × %s is on its way: %s", c.Quantity, c.Item, c.Tracking)}
}
