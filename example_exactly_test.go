package wherry_test

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

type (
	Transferred struct {
		Account string
		Cents   int
	}
	Balance struct{ Cents int }
)

var (
	Transfer = wherry.Event[Transferred]{Topic: "transferred"}
	Booked   = wherry.Event[Balance]{Topic: "booked"}
)

var balances = &wherry.OwnedTable[Balance]{Topic: "balances"} // a compacted topic: the state, and its only store

func book(ctx context.Context, t Transferred) error {
	b, _, err := balances.Get(ctx, t.Account)
	if err != nil {
		return err
	}
	b.Cents += t.Cents
	if err := balances.Put(ctx, t.Account, b); err != nil {
		return err
	}
	return Booked.Publish(ctx, t.Account, b)
}

// What a handler reads, writes and publishes is one transaction.
func Example_exactlyOnce() {
	broker := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "transferred", "booked"))
	defer broker.Close()
	cl, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	defer cl.Close()
	ctx, stop := context.WithCancel(context.Background())
	for _, cents := range []int{500, -200} {
		r, _ := Transfer.Record("ada", Transferred{Account: "ada", Cents: cents})
		_ = cl.ProduceSync(ctx, r).FirstErr()
	}

	ledger := &wherry.Consumer{
		Client: cl, Group: "ledger",
		Handlers: []wherry.Route{Transfer.Handler(book)},
		Delivery: wherry.ExactlyOnce,
		Tables:   []wherry.Owned{balances},
		Order:    wherry.ByKey,
	}

	stopped := make(chan error, 1)
	go func() { stopped <- ledger.Run(ctx) }()
	reader, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...), kgo.ConsumeTopics("booked"),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	defer reader.Close()
	for booked := 0; booked < 2; {
		for _, r := range reader.PollFetches(ctx).Records() {
			fmt.Printf("%s: %s\n", r.Key, r.Value)
			booked++
		}
	}
	stop()
	fmt.Println("stopped:", <-stopped)
	// Output:
	// ada: {"Cents":500}
	// ada: {"Cents":300}
	// stopped: <nil>
}
