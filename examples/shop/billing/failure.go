package billing

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/retry"
)

// policies decide what becomes of an order that cannot be paid, outermost
// first: it is tried again in place, after 1, 2 and 4 s; when that was in vain,
// payment.failed tells the services and a dead letter the operators. Both are
// outputs of the order's record, so they are sent together, and before it counts
// as handled.
func (s *Service) policies() []wherry.Policy {
	dead := &dlq.Queue{
		Topic:  events.BillingDeadLetters,
		Format: dlq.FormatEnvelope, // as the other side reads it
		// The gate keeps a topic from being drained into the dead letters while
		// a payment provider is down. Here a payment fails because a flag says
		// so, and each order has to end: that of the next one is its own matter.
		Gate: dlq.Gate{After: -1},
	}
	again := retry.Policy{Attempts: 4, Initial: s.RetryInitial}
	return []wherry.Policy{dead, wherry.Middleware(s.tellFailure), again}
}

// tellFailure stages payment.failed for an order on which the policies inside
// have given up. It hands the error on: the dead letter is the business of
// another policy, which ends the chain in nil, so that both outputs stand.
func (s *Service) tellFailure(next wherry.Handler) wherry.Handler {
	return func(ctx context.Context, r *kgo.Record) error {
		err := next(ctx, r)
		if err == nil || wherry.Interrupted(ctx) {
			return err
		}
		order, bad := events.OrderCreated.Decode(r)
		if bad != nil {
			return err // bytes that are no order: there is nobody to tell of
		}
		if refused, ok := errors.AsType[*wherry.OutputError](err); ok && refused.Topic == events.PaymentFailed.Topic {
			return err // it was told, and the brokers did not take it
		}
		failure := events.PaymentFailure{Order: order, Error: reason(err), FailedAt: events.Now()}
		if untold := events.PaymentFailed.Publish(ctx, order.ID, failure); untold != nil {
			return errors.Join(err, untold)
		}
		s.Logger.WarnContext(ctx, "billing: payment failed", "order", order.ID, "error", failure.Error)
		return err
	}
}

// reason is an error's text without what policies have put around it.
func reason(err error) string {
	if e, ok := errors.AsType[*wherry.RecordError](err); ok && e.Err != nil {
		return e.Err.Error()
	}
	return err.Error()
}
