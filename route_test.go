package wherry_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

func TestDiscardDropsWhatTheHandlerStagedSoFar(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "in:1", "out:1")
	out := wherry.Event[string]{Topic: "out"}
	wherry.Discard(t.Context()) // outside of a handler: nothing
	outer := wherry.Middleware(func(next wherry.Handler) wherry.Handler {
		return func(ctx context.Context, r *kgo.Record) error {
			return errors.Join(out.Publish(ctx, "", "of the policy"), next(ctx, r))
		}
	})
	for _, policies := range [][]wherry.Policy{nil, {outer}} {
		stop := kafkatest.Run(t, &wherry.Consumer{
			Client: k.Client(t), Group: "g", Policies: policies,
			Handlers: []wherry.Route{{Topic: "in", Handler: func(ctx context.Context, _ *kgo.Record) error {
				err := out.Publish(ctx, "", "dropped")
				wherry.Discard(ctx)
				return errors.Join(err, out.Publish(ctx, "", "sent"))
			}}},
		})
		kafkatest.SendRecord(t, k, &kgo.Record{Topic: "in"})
		if policies != nil {
			require.Equal(t, "of the policy", kafkatest.Next(t, k, out))
		}
		require.Equal(t, "sent", kafkatest.Next(t, k, out))
		require.NoError(t, stop())
	}
}

func TestARouteTakesPartInTheConfiguration(t *testing.T) {
	t.Parallel()
	type key struct{}
	k := kafkatest.NewCluster(t, "in:1")
	seen := make(chan any, 1)
	route := wherry.Route{
		Topic:   "in",
		Handler: func(ctx context.Context, _ *kgo.Record) error { seen <- ctx.Value(key{}); return nil },
		Prepare: func(s *wherry.Setup) error { s.WithValue(key{}, s.Group); return nil },
	}
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: []wherry.Route{route}})
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "in"})
	require.Equal(t, "g", <-seen)

	route.Prepare = func(*wherry.Setup) error { return errors.New("the route is wrong") }
	err := (&wherry.Consumer{Client: k.Client(t), Handlers: []wherry.Route{route}}).Run(t.Context())
	require.ErrorContains(t, err, "the route is wrong")
	require.ErrorContains(t, err, "no group")
}
