package reqreply_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/reqreply"
)

var Quote = reqreply.Method[string, int]{Topic: "quotes", Timeout: 10 * time.Second}

// Every consumer group that reads the topic answers for itself.
func ExampleMethod_Gather() {
	broker := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "quotes"))
	defer broker.Close()
	cl, _ := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	defer cl.Close()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	for carrier, price := range map[string]int{"quick": 12, "cheap": 4} {
		c := &wherry.Consumer{Client: cl, Group: carrier, Handlers: []wherry.Route{
			Quote.Handler(func(context.Context, string) (int, error) { return price, nil }),
		}}
		running.Go(func() { _ = c.Run(ctx) })
		<-c.Ready()
	}
	caller := &reqreply.Caller{Client: cl}
	running.Go(func() { _ = caller.Run(ctx) })

	quotes, err := Quote.Gather(ctx, caller, "a parcel to Rome", 2)
	slices.SortFunc(quotes, func(a, b reqreply.Result[int]) int { return strings.Compare(a.Group, b.Group) })
	for _, q := range quotes {
		fmt.Println(q.Group, q.Value, q.Err)
	}
	fmt.Println(err)
	// Output:
	// cheap 4 <nil>
	// quick 12 <nil>
	// <nil>
}
