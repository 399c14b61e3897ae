package wherry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// All faults of a configuration come at once, before anything is opened.
func TestConfig_AllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	cl, err := kgo.NewClient(kgo.ConsumeTopics("x"), kgo.ConsumerGroup("g"), kgo.InstanceID("i"), kgo.TransactionalID("t"), kgo.ManualFlushing())
	require.NoError(t, err)
	defer cl.Close()
	handler := func(context.Context, *kgo.Record) error { return nil }
	err = (&wherry.Consumer{
		Client:   cl,
		Handlers: []wherry.Route{{Topic: "a", Handler: handler}, {Topic: "a", Handler: handler}, {Topic: "b"}, {Handler: handler}},
		Policies: []wherry.Policy{nil, refusing{}},
		Drain:    -1,
		From:     -7,
	}).Run(t.Context())
	for _, want := range []string{
		"ConsumerGroup", "ConsumeTopics", "InstanceID", "TransactionalID", "ManualFlushing",
		"no group", "topic a has two routes", "topic b has no handler", "handler 3 has no topic",
		"policy 0 is nil", "policy refuses", "must not be negative", "From is -7",
	} {
		require.ErrorContains(t, err, want)
	}
	err = (&wherry.Consumer{}).Run(t.Context())
	require.ErrorContains(t, err, "no client")
	require.ErrorContains(t, err, "no handlers")
}

type refusing struct{}

func (refusing) Wrap(next wherry.Handler) wherry.Handler { return next }
func (refusing) Prepare(*wherry.Setup) error             { return errors.New("policy refuses") }

// A hook that registers once panics on a second client, as kprom's does.
func TestConfig_AHookOfOneClient(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed")
	hook := new(once)
	c := &wherry.Consumer{Client: k.Client(t, kgo.WithHooks(hook)), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(newRecorder().handle)}}
	require.ErrorContains(t, c.Run(t.Context()), "give it in Opts")

	c = &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: c.Handlers, Opts: []kgo.Opt{kgo.WithHooks(new(once))}}
	require.NoError(t, kafkatest.Run(t, c)())
}

type once struct{ used bool }

func (o *once) OnNewClient(*kgo.Client) {
	if o.used {
		panic("duplicate metrics collector registration attempted")
	}
	o.used = true
}

// One client serves many Consumers, and is not closed by them.
func TestConfig_OneClientForMany(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed")
	cl := k.Client(t)
	a, b := newRecorder(), newRecorder()
	stop := kafkatest.Run(t, &wherry.Consumer{Client: cl, Group: "a", Handlers: []wherry.Route{orderPlaced.Handler(a.handle)}})
	kafkatest.Run(t, &wherry.Consumer{Client: cl, Group: "b", Handlers: []wherry.Route{orderPlaced.Handler(b.handle)}})
	require.NoError(t, stop())
	require.NoError(t, cl.Ping(t.Context()))
	kafkatest.Send(t, k, orderPlaced, "x", order{ID: "x"})
	receive(t, b.ch, "the other Consumer")
}

// Law 5: an output that the broker refuses is the error of its record. The
// chain runs once more, so that policies see it; the handler is not called
// again.
func TestRejected_PoliciesSeeIt(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1", "payment.made:1")
	nowhere := wherry.Event[payment]{Topic: "no.such.topic"}
	calls := make(chan string, 10)
	seen := make(chan error, 10)
	rescue := wherry.Middleware(func(next wherry.Handler) wherry.Handler {
		return func(ctx context.Context, r *kgo.Record) error {
			err := next(ctx, r)
			if err == nil {
				return nil
			}
			seen <- err
			return paymentMade.Publish(ctx, "", payment{OrderID: "rescued"})
		}
	})
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "g", Policies: []wherry.Policy{rescue},
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
			calls <- o.ID
			if o.ID == "bad" {
				return nowhere.Publish(ctx, "", payment{})
			}
			return paymentMade.Publish(ctx, "", payment{OrderID: o.ID})
		})},
	})
	kafkatest.Send(t, k, orderPlaced, "", order{ID: "bad"})
	require.Equal(t, "rescued", kafkatest.Next(t, k, paymentMade).OrderID)
	err := receive(t, seen, "the policy to see the refusal")
	var out *wherry.OutputError
	require.ErrorAs(t, err, &out)
	require.Equal(t, "no.such.topic", out.Topic)
	require.ErrorIs(t, err, kerr.UnknownTopicOrPartition)
	require.ErrorIs(t, err, wherry.ErrPermanent)
	kafkatest.Send(t, k, orderPlaced, "", order{ID: "good"})
	require.Equal(t, "good", kafkatest.Next(t, k, paymentMade).OrderID)
	require.Len(t, calls, 2, "the handler was called again for an output that was refused")
	require.Eventually(t, func() bool { return committed(t, k, "g", "order.placed")[0] == 2 }, patience, 10*time.Millisecond)
}

func TestRejected_WithoutAPolicyTheConsumerStops(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	kafkatest.Send(t, k, orderPlaced, "", order{ID: "bad"})
	end, _ := background(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error {
		return wherry.Publish(ctx, &kgo.Record{Topic: "no.such.topic", Key: []byte("k"), Value: []byte("v")})
	})}})
	err := receive(t, end, "the Consumer to stop")
	var e *wherry.RecordError
	require.ErrorAs(t, err, &e)
	require.Equal(t, wherry.CauseRejected, e.Cause)
	require.ErrorContains(t, err, `output to no.such.topic (key "k", 2 bytes) refused`)
	require.Zero(t, committed(t, k, "g", "order.placed")[0])
}

func TestToPartition_IsHonouredByOutputs(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1", "payment.made:4")
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
		r := &kgo.Record{Topic: "payment.made", Key: []byte("same"), Value: []byte(fmt.Sprintf(`{"orderId":"%d"}`, o.Total))}
		wherry.ToPartition(r, int32(o.Total))
		return wherry.Publish(ctx, r)
	})}})
	for i := range 12 {
		kafkatest.Send(t, k, orderPlaced, "", order{Total: i % 4})
		r := kafkatest.NextRecord(t, k, "payment.made")
		require.EqualValues(t, i%4, r.Partition)
	}
}
