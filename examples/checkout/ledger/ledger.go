// Package ledger books sales. Nothing of it needs a transaction: a sale that is
// booked twice is one row of the ledger, the same both times.
package ledger

import (
	"context"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/checkout/contract"
	"github.com/wherry-go/wherry/examples/checkout/trouble"
	"github.com/wherry-go/wherry/reqreply"
)

// New returns the service.
func New(cl *kgo.Client, how trouble.Mode, log *slog.Logger) *wherry.Consumer {
	return &wherry.Consumer{
		Client: cl, Group: "ledger", Order: wherry.ByKey,
		Handlers: []wherry.Route{contract.Capture.Handler(trouble.In(how, log, capture))},
		// The saga tries again: it is told of what fails, and nothing is kept.
		Policies: []wherry.Policy{reqreply.Faults{Done: true}},
	}
}

// capture sends its entry before the answer counts: see [wherry.AtLeastOnce].
func capture(ctx context.Context, s contract.Sale) (contract.Entry, error) {
	op, err := contract.Op(ctx)
	if err != nil {
		return contract.Entry{}, err
	}
	e := contract.Entry{Number: "sale-" + op.ID, Payment: s.Payment, Amount: s.Amount}
	return e, contract.Entries.Publish(ctx, op.ID, e)
}
