// Package stock reserves goods, exactly once: each movement of the stock is a
// record, in one transaction with the answer and with what the barrier remembers.
package stock

import (
	"context"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/checkout/contract"
	"github.com/wherry-go/wherry/examples/checkout/trouble"
	"github.com/wherry-go/wherry/reqreply"
)

// Unicorns are an item that is always out of stock.
const Unicorns = "unicorn"

// New returns the service.
func New(cl *kgo.Client, how trouble.Mode, log *slog.Logger) *wherry.Consumer {
	// The barrier: what was done and undone, by saga and step.
	seen := &wherry.OwnedTable[reqreply.Answered]{Topic: "stock.seen"}
	method := contract.Reserve
	method.Dedupe = seen
	return &wherry.Consumer{
		Client: cl, Group: "stock", Order: wherry.ByKey,
		Delivery: wherry.ExactlyOnce, Tables: []wherry.Owned{seen},
		Handlers: []wherry.Route{
			method.HandlerUndo(trouble.In(how, log, release)),
			method.Handler(trouble.In(how, log, reserve)),
		},
		Policies: []wherry.Policy{reqreply.Faults{Done: true}},
	}
}

func reserve(ctx context.Context, g contract.Goods) (contract.Reservation, error) {
	if g.Item == Unicorns {
		return contract.Reservation{}, &reqreply.Error{Code: "out-of-stock", Message: "there are no unicorns"}
	}
	return contract.Reservation{Shelf: "shelf of the " + g.Item}, move(ctx, g, -g.Quantity)
}

// release is called once for a reservation that was made, and not at all for
// another one.
func release(ctx context.Context, g contract.Goods) (contract.Reservation, error) {
	return contract.Reservation{}, move(ctx, g, g.Quantity)
}

func move(ctx context.Context, g contract.Goods, quantity int) error {
	op, err := contract.Op(ctx)
	if err != nil {
		return err
	}
	return contract.StockMoved.Publish(ctx, op.ID, contract.Movement{Checkout: op.ID, Item: g.Item, Quantity: quantity})
}
