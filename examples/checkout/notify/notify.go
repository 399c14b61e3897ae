// Package notify tells customers. A customer may be told twice, which does no
// harm: there is nothing here to remember.
package notify

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
	tell := func(ctx context.Context, n contract.Notice) (struct{}, error) {
		log.InfoContext(ctx, "notify: told", "customer", n.Customer, "text", n.Text)
		return struct{}{}, nil
	}
	return &wherry.Consumer{
		Client: cl, Group: "notify", Order: wherry.ByKey,
		Handlers: []wherry.Route{contract.Notify.Handler(trouble.In(how, log, tell))},
		Policies: []wherry.Policy{reqreply.Faults{Done: true}},
	}
}
