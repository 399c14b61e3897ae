package wherry_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/retry"
)

// What goes wrong is a matter of policies: an order that no retry can help
// becomes a dead letter.
func Example_policies() {
	broker := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "order.placed", "billing.dlq"))
	defer broker.Close()
	cl, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	defer cl.Close()
	ctx, stop := context.WithCancel(context.Background())
	placed, _ := OrderPlaced.Record("o-1", Order{ID: "o-1", User: "ada"})
	_ = cl.ProduceSync(ctx, placed).FirstErr()
	pay := func(context.Context, Order) error { return wherry.Permanent(errors.New("the card is stolen")) }

	billing := &wherry.Consumer{
		Client: cl, Group: "billing",
		Handlers: []wherry.Route{OrderPlaced.Handler(pay)},
		Order:    wherry.ByKey, // one order waits, the others flow on
		Policies: []wherry.Policy{
			wherry.Telemetry{},
			&dlq.Queue{Topic: "billing.dlq"},                // what cannot be handled, and why
			retry.Policy{Attempts: 4, Initial: time.Second}, // after 1 s, 2 s, 4 s
		},
	}

	stopped := make(chan error, 1)
	go func() { stopped <- billing.Run(ctx) }()
	reader, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...), kgo.ConsumeTopics("billing.dlq"))
	defer reader.Close()
	for _, r := range reader.PollFetches(ctx).Records() {
		l, _ := dlq.Read(r)
		fmt.Printf("%s of %s: %s, %s\n", l.Key, l.Group, l.Cause, l.Error)
	}
	stop()
	fmt.Println("stopped:", <-stopped)
	// Output:
	// o-1 of billing: permanent, the card is stolen
	// stopped: <nil>
}
