package retry_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/retry"
)

// A record that fails is tried again in place. By key, the records of other keys
// go on meanwhile.
func ExamplePolicy() {
	broker := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "order.placed")) // yours is kgo.SeedBrokers("host:9092")
	defer broker.Close()
	cl, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	defer cl.Close()
	r, _ := OrderPlaced.Record("o-1", Order{ID: "o-1"})
	_ = cl.ProduceSync(context.Background(), r).FirstErr()

	ctx, stop := context.WithCancel(context.Background())
	err := (&wherry.Consumer{
		Client: cl,
		Group:  "billing",
		Order:  wherry.ByKey,
		Policies: []wherry.Policy{
			retry.Policy{Attempts: 3, Initial: 10 * time.Millisecond}, // after 10 ms, and 20 ms
		},
		Handlers: []wherry.Route{OrderPlaced.Handler(func(ctx context.Context, o Order) error {
			fmt.Printf("%s, attempt %d\n", o.ID, wherry.Attempt(ctx))
			if wherry.Attempt(ctx) < 3 {
				return errors.New("the card's issuer does not answer")
			}
			stop()
			return nil
		})},
	}).Run(ctx)
	fmt.Println("stopped:", err)
	// Output:
	// o-1, attempt 1
	// o-1, attempt 2
	// o-1, attempt 3
	// stopped: <nil>
}
