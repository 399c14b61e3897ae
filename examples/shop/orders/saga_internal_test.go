package orders

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/saga"
	"github.com/wherry-go/wherry/saga/sagatest"
)

// A user cancels while nobody can look the order up.
func TestSaga_CancelledBeforeTheOrderIsLookedUp(t *testing.T) {
	t.Parallel()
	s := sagatest.New(t, (&Service{}).order(), "o-1")
	s.FailLocal("place", context.DeadlineExceeded)
	sagatest.Event(s, events.OrderCreated, events.Order{ID: "o-1"})
	s.Do(saga.Undo, saga.By{})
	s.Undone("place")
	require.Equal(t, []change{{OrderID: "o-1", To: events.Cancelled, Reason: "Cancelled by the user"}}, sagatest.Emitted(s, inbox))
}

// Whatever comes, and in whichever order, an order ends, done or taken back.
func TestSaga_WhateverComesOfAnOrder(t *testing.T) {
	t.Parallel()
	o := events.Order{ID: "o-1"}
	sagatest.Everything(t, (&Service{}).order(), first(o), sagatest.World[change]{
		Events: []sagatest.AnEvent{
			sagatest.Sample(events.PaymentCreated, events.Payment{OrderID: "o-1"}),
			sagatest.Sample(events.PaymentFailed, events.PaymentFailure{Order: o}),
			sagatest.Sample(wherry.Event[events.Order]{Topic: events.BillingDeadLetters, Codec: letter{}}, o),
		},
		Never: map[string][]sagatest.Outcome{"pay": {sagatest.Lost, sagatest.Late}}, // billing says so in the end
	})
}

// letter writes an order's dead letter, as billing does.
type letter struct{ wherry.JSON }

func (letter) Encode(r *kgo.Record, v any) error {
	created, err := events.OrderCreated.Record("o-1", v.(events.Order))
	if err != nil {
		return err
	}
	l, err := (&dlq.Letter{Format: dlq.FormatEnvelope, Topic: created.Topic, Key: created.Key, Value: created.Value}).Encode(r.Topic)
	if err == nil {
		r.Value, r.Headers = l.Value, l.Headers
	}
	return err
}
