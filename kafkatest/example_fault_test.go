package kafkatest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/kafkatest"
)

// A process dies when its record is written and it does not know that yet.
func ExampleCluster_CrashAfter() {
	TestCrash := func(t testing.TB) {
		k := kafkatest.NewCluster(t, "order.paid")
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		cl := k.Client(t, kgo.ClientID("billing"))
		dies := k.CrashAfter(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Client: "billing"})

		r, _ := orderPaid.Record("o-1", order{ID: "o-1"})
		cl.Produce(ctx, r, nil)
		dies.Wait(t, 1)

		fmt.Println(kafkatest.Next(t, k, orderPaid).ID)
		successor := k.Client(t, kgo.ClientID("billing"))
		fmt.Println(successor.Ping(ctx))
	}
	example(TestCrash)
	// Output:
	// o-1
	// <nil>
}

// A request is lost once, and its client does not notice.
func ExampleCluster_Drop() {
	TestLoss := func(t testing.TB) {
		k := kafkatest.NewCluster(t, "order.placed", "order.paid")
		kafkatest.Run(t, billing(k.Client(t, kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("order.placed"))))
		lost := k.Drop(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "order.paid"})

		kafkatest.Send(t, k, orderPlaced, "o-1", order{ID: "o-1"})
		fmt.Println(kafkatest.Next(t, k, orderPaid).ID, lost.Hits())
	}
	example(TestLoss)
	// Output: o-1 1
}
