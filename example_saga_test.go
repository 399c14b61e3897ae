package wherry_test

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/saga"
)

var checkout = saga.Definition[Order]{
	Name: "checkout",
	Steps: []saga.Step[Order]{
		{Name: "reserve", Do: saga.Do(reserve), Undo: saga.Do(release)},
		{Name: "charge", Do: saga.Do(charge), Pivot: true}, // the point of no return
		{Name: "tell", Do: saga.Emit(OrderPaid, func(o Order) Order { return o })},
	},
}

func reserve(_ context.Context, o Order) error {
	fmt.Println(o.ID, "is reserved")
	return nil
}

func release(_ context.Context, o Order) error {
	fmt.Println(o.ID, "is released")
	return nil
}

func charge(_ context.Context, o Order) error {
	if o.User == "" {
		return wherry.Permanent(errors.New("nobody pays"))
	}
	return nil
}

// Work in several steps, each in a different place, is completed or taken back.
func Example_saga() {
	broker := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "order.paid"))
	defer broker.Close()
	cl, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	defer cl.Close()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()

	engine := &saga.Engine[Order]{Client: cl, Definitions: []saga.Definition[Order]{checkout}}
	running.Go(func() { _ = engine.Run(ctx) }) // in as many processes as you like

	_ = engine.Start(ctx, "o-1", Order{ID: "o-1"}) // nil: it is in Kafka, and will be carried out
	_, err := engine.Wait(ctx, "o-1")
	fmt.Println(err)
	// Output:
	// o-1 is reserved
	// o-1 is released
	// saga checkout: "o-1" was undone, step "charge" was rejected: nobody pays
}
