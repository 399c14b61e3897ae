// Package payments charges customers. It stands in for the service in NestJS
// (../nestjs), from which nobody can tell it on the wire.
package payments

import (
	"context"
	"errors"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/checkout/contract"
	"github.com/wherry-go/wherry/examples/checkout/trouble"
	"github.com/wherry-go/wherry/reqreply"
)

// A Service charges and refunds, each once for a step of a saga: its book has
// the key of the step.
type Service struct {
	wherry.Consumer
	path string
	book *book // while it runs
}

// New returns the service, with its book in the file at path.
func New(cl *kgo.Client, how trouble.Mode, log *slog.Logger, path string) *Service {
	s := &Service{path: path}
	s.Consumer = wherry.Consumer{
		// The group that NestJS makes of the groupId "payments".
		Client: cl, Group: "payments-server", Order: wherry.ByKey,
		Handlers: []wherry.Route{
			contract.Pay.Handler(trouble.In(how, log, s.pay)),
			contract.Refund.Handler(trouble.In(how, log, s.refund)),
		},
		Policies: []wherry.Policy{reqreply.Faults{Done: true}},
	}
	return s
}

// Run opens the book and works until ctx is done.
func (s *Service) Run(ctx context.Context) (err error) {
	if s.book, err = open(s.path); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.book.close()) }()
	return s.Consumer.Run(ctx)
}

func (s *Service) pay(ctx context.Context, c contract.Charge) (contract.Payment, error) {
	op, err := contract.Op(ctx)
	if err != nil {
		return contract.Payment{}, err
	}
	return s.book.charge(contract.Step(op), c)
}

func (s *Service) refund(ctx context.Context, _ contract.Charge) (contract.Payment, error) {
	op, err := contract.Op(ctx)
	if err != nil {
		return contract.Payment{}, err
	}
	return s.book.refund(contract.Step(op))
}
