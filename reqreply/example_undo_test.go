package reqreply_test

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/retry"
)

type Goods struct {
	Item     string
	Quantity int
}

var (
	Reserve = reqreply.Method[Goods, string]{Topic: "stock.reserve"}
	Moved   = wherry.Event[Goods]{Topic: "stock.moved"}
	answers = &wherry.OwnedTable[reqreply.Answered]{Topic: "stock.asked"}
)

// stock takes part in sagas. What it does are Kafka records, so that a table can
// remember, in their transaction, what was asked: nothing is done twice, and
// nothing after it was undone.
func stock(cl *kgo.Client) *wherry.Consumer {
	reserve := Reserve
	reserve.Dedupe = answers
	return &wherry.Consumer{
		Client: cl, Group: "stock",
		Handlers: []wherry.Route{
			reserve.HandlerUndo(func(ctx context.Context, g Goods) (string, error) {
				return "", Moved.Publish(ctx, g.Item, g)
			}),
			reserve.Handler(func(ctx context.Context, g Goods) (string, error) {
				return "shelf A3", Moved.Publish(ctx, g.Item, Goods{g.Item, -g.Quantity})
			}),
		},
		Delivery: wherry.ExactlyOnce,
		Tables:   []wherry.Owned{answers},
		Policies: []wherry.Policy{reqreply.Faults{Done: true}, retry.Policy{Attempts: 3}},
	}
}

// A participant of sagas that needs no database.
func ExampleMethod_HandlerUndo() {
	var (
		ctx context.Context
		cl  *kgo.Client
	)
	_ = stock(cl).Run(ctx)
}
