package kafkatest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/kafkatest"
)

// billing pays each order that it reads. It is an ordinary service: it knows a
// client and nothing of tests.
func billing(cl *kgo.Client) kafkatest.RunFunc {
	return func(ctx context.Context) error {
		for {
			fetches := cl.PollFetches(ctx)
			if ctx.Err() != nil {
				return nil
			}
			for r := range fetches.RecordsAll() {
				paid := &kgo.Record{Topic: "order.paid", Key: r.Key, Value: r.Value}
				if err := cl.ProduceSync(ctx, paid).FirstErr(); err != nil {
					return err
				}
			}
		}
	}
}

// A test is written like this, but with its own t.
func Example() {
	TestBilling := func(t testing.TB) {
		k := kafkatest.NewCluster(t, "order.placed", "order.paid")
		kafkatest.Run(t, billing(k.Client(t, kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("order.placed"))))

		kafkatest.Send(t, k, orderPlaced, "o-1", order{ID: "o-1", Amount: 42})

		paid := kafkatest.Next(t, k, orderPaid)
		fmt.Println(paid.ID, paid.Amount)
		kafkatest.None(t, k, orderPaid, 0)
	}
	example(TestBilling)
	// Output: o-1 42
}

// example runs a test inside an Example, which has no t.
func example(test func(testing.TB)) {
	rec := recordAs(nil, "TestBilling", test)
	if rec.failed {
		fmt.Print(rec.text)
	}
}
