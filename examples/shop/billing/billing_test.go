package billing_test

import (
	"log/slog"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/examples/shop/billing"
	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/kafkatest"
)

func TestOrderThatComesTwiceIsPaidWithOnePayment(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, events.OrderCreated.Topic, events.PaymentCreated.Topic)
	kafkatest.Run(t, &billing.Service{Client: k.Client(t), Logger: slog.New(slog.DiscardHandler)})
	order := events.Order{ID: uuid.NewString(), TotalAmount: "99.99", Status: events.Pending, UserID: "user1", CreatedAt: events.Now(), UpdatedAt: events.Now()}
	kafkatest.Send(t, k, events.OrderCreated, order.ID, order)
	kafkatest.Send(t, k, events.OrderCreated, order.ID, order)
	first := kafkatest.Next(t, k, events.PaymentCreated)
	second := kafkatest.Next(t, k, events.PaymentCreated)
	require.Equal(t, first.ID, second.ID)
	require.Equal(t, billing.PaymentID(order.ID), first.ID)
	require.NoError(t, uuid.Validate(first.ID))
	require.Equal(t, order.ID, first.OrderID)
	require.Equal(t, "99.99", first.Amount)
}
