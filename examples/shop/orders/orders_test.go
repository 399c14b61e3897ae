package orders_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/examples/shop/orders"
	"github.com/wherry-go/wherry/kafkatest"
)

var newOrder = orders.NewOrder{TotalAmount: "99.99", Status: events.Pending, UserID: "user1"}

// cluster is a broker, whose produce requests a test can make fail, with the
// shop's topics.
func cluster(t *testing.T) (*kfake.Cluster, *kgo.Client) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DisableClientMetrics())
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	require.NoError(t, wherry.EnsureTopics(t.Context(), cl, events.Topics()...))
	kafkatest.Run(t, directory(cl))
	return c, cl
}

// directory stands in for auth: it knows user1.
func directory(cl *kgo.Client) *wherry.Consumer {
	return &wherry.Consumer{
		Client: cl, Group: events.GetUser.Group, Logger: slog.New(slog.DiscardHandler),
		Handlers: []wherry.Route{events.GetUser.Handler(func(_ context.Context, id string) (*events.User, error) {
			if id != "user1" {
				return nil, nil
			}
			return &events.User{ID: id, Name: "Ada", Email: "ada@example.com"}, nil
		})},
	}
}

func service(cl *kgo.Client) *orders.Service {
	return &orders.Service{
		Client:    cl,
		AuthGroup: events.GetUser.Group,
		Logger:    slog.New(slog.DiscardHandler),
	}
}

// created returns how often order.created was told, each time in a transaction,
// whose mark counts too.
func created(t *testing.T, c *kfake.Cluster) (n int64) {
	t.Helper()
	for p := range int32(4) {
		n += c.PartitionInfo(events.OrderCreated.Topic, p).HighWatermark
	}
	return n / 2
}

// Neither the row nor the event is there without the other.
func TestOrderWhoseRowOrEventIsRefusedIsNotPlacedButADeadLetter(t *testing.T) {
	t.Parallel()
	for _, topic := range []string{events.OrderCreated.Topic, events.OrdersTable} {
		t.Run(topic, func(t *testing.T) {
			t.Parallel()
			c, cl := cluster(t)
			s := service(cl)
			kafkatest.Run(t, s)
			c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.TopicAuthorizationFailed, Count: 1})
			_, err := s.Place(t.Context(), newOrder, "")
			var unconfirmed *orders.UnconfirmedError
			require.ErrorAs(t, err, &unconfirmed)

			_, err = s.Place(t.Context(), newOrder, "")
			require.NoError(t, err)
			all, err := s.List(t.Context())
			require.NoError(t, err)
			require.Len(t, all, 1)
			require.NotEqual(t, unconfirmed.OrderID, all[0].ID)
			letters, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), orders.DeadLetters)
			require.NoError(t, err)
			n := int64(0)
			letters.Each(func(o kadm.ListedOffset) { n += o.Offset })
			require.EqualValues(t, 2, n, "a letter and the mark of its transaction")
		})
	}
}

func TestOrderIsPlacedThoughItsCallerHasGone(t *testing.T) {
	t.Parallel()
	c, cl := cluster(t)
	s := service(cl)
	kafkatest.Run(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Place(ctx, newOrder, "")
	require.NoError(t, err)
	require.EqualValues(t, 1, created(t, c))
}

func TestUserIsAskedForBeforeAnythingIsWritten(t *testing.T) {
	t.Parallel()
	c, cl := cluster(t)
	s := service(cl)
	kafkatest.Run(t, s)
	_, err := s.Place(t.Context(), orders.NewOrder{TotalAmount: "1", Status: events.Pending, UserID: "nobody"}, "")
	var unknown *orders.UnknownUserError
	require.ErrorAs(t, err, &unknown)
	require.EqualError(t, err, "User with ID nobody not found")

	require.Zero(t, created(t, c))
}

func TestNothingIsPlacedBeforeTheServiceIsReady(t *testing.T) {
	t.Parallel()
	_, cl := cluster(t)
	_, err := service(cl).Place(t.Context(), newOrder, "")
	require.ErrorIs(t, err, orders.ErrNotReady)
}
