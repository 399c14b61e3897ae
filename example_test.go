package wherry_test

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

type Order struct{ ID, User string }

var (
	OrderPlaced = wherry.Event[Order]{Topic: "order.placed"}
	OrderPaid   = wherry.Event[Order]{Topic: "order.paid"}
)

func Example() {
	broker := kfake.MustCluster(kfake.NumBrokers(1)) // a Kafka in this process; yours is kgo.SeedBrokers("host:9092")
	defer broker.Close()
	cl, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	defer cl.Close()
	ctx, stop := context.WithCancel(context.Background())
	_ = wherry.EnsureTopics(ctx, cl, wherry.TopicSpec{Name: "order.placed"}, wherry.TopicSpec{Name: "order.paid"})

	placed, _ := OrderPlaced.Record("o-1", Order{ID: "o-1", User: "ada"})
	_ = cl.ProduceSync(ctx, placed).FirstErr()

	err := (&wherry.Consumer{
		Client: cl,
		Group:  "shop",
		Handlers: []wherry.Route{
			OrderPlaced.Handler(func(ctx context.Context, o Order) error {
				return OrderPaid.Publish(ctx, o.ID, o) // sent when this returned nil
			}),
			OrderPaid.Handler(func(_ context.Context, o Order) error {
				fmt.Println(o.ID, "is paid by", o.User)
				stop()
				return nil
			}),
		},
	}).Run(ctx)
	fmt.Println("stopped:", err)
	// Output:
	// o-1 is paid by ada
	// stopped: <nil>
}
