package wherry_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

type order struct {
	ID    string `json:"id"`
	Total int    `json:"total"`
}

type payment struct {
	OrderID string `json:"orderId"`
}

var (
	orderPlaced = wherry.Event[order]{Topic: "order.placed"}
	paymentMade = wherry.Event[payment]{Topic: "payment.made"}
)

func TestHandlerPublishes(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed", "payment.made")
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t),
		Group:  "billing",
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
			return paymentMade.Publish(ctx, o.ID, payment{OrderID: o.ID})
		})},
	})
	kafkatest.Send(t, k, orderPlaced, "o-1", order{ID: "o-1", Total: 3})
	require.Equal(t, payment{OrderID: "o-1"}, kafkatest.Next(t, k, paymentMade))
}
