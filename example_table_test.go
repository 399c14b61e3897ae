package wherry_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// A handler's policy: this one knows what to do about a closed bank.
func ExampleMiddleware() {
	errClosed := errors.New("the bank is closed")
	giveUp := wherry.Middleware(func(next wherry.Handler) wherry.Handler {
		return func(ctx context.Context, r *kgo.Record) error {
			err := next(ctx, r)
			if errors.Is(err, errClosed) {
				fmt.Printf("%s: %v\n", r.Key, err)
				return nil // done: the Consumer goes on
			}
			return err
		}
	})
	handler := giveUp.Wrap(func(context.Context, *kgo.Record) error { return errClosed })
	fmt.Println(handler(context.Background(), &kgo.Record{Key: []byte("o-1")}))
	// Output:
	// o-1: the bank is closed
	// <nil>
}

// A table is a compacted topic. Who writes to it waits until the table has
// what was written, and then finds it.
func ExampleTable() {
	broker := kfake.MustCluster(kfake.NumBrokers(1))
	defer broker.Close()
	cl, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	defer cl.Close()
	ctx, stop := context.WithCancel(context.Background())
	_ = wherry.EnsureTopics(ctx, cl, wherry.TopicSpec{Name: "orders", Changelog: true})

	orders := &wherry.Table[Order]{Client: cl, Topic: "orders"}
	stopped := make(chan error)
	go func() { stopped <- orders.Run(ctx) }()

	row, _ := orders.Record("o-1", Order{ID: "o-1", User: "ada"})
	_ = cl.ProduceSync(ctx, row).FirstErr()
	_ = orders.Wait(ctx, row)
	o, ok, err := orders.Get(ctx, "o-1")
	fmt.Println(o.User, ok, err)

	gone := orders.Tombstone("o-1")
	_ = cl.ProduceSync(ctx, gone).FirstErr()
	_ = orders.Wait(ctx, gone)
	_, ok, err = orders.Get(ctx, "o-1")
	fmt.Println(ok, err)

	stop()
	fmt.Println(<-stopped)
	// Output:
	// ada true <nil>
	// false <nil>
	// <nil>
}
