package kafkatest_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/kafkatest"
)

// patient is a service that pays each order an hour after it was placed.
func patient(cl *kgo.Client) kafkatest.RunFunc {
	return func(ctx context.Context) error {
		for ctx.Err() == nil {
			fetches := cl.PollFetches(ctx)
			for r := range fetches.RecordsAll() {
				select {
				case <-time.After(time.Until(r.Timestamp.Add(time.Hour))):
				case <-ctx.Done():
				}
				if ctx.Err() == nil {
					cl.Produce(ctx, &kgo.Record{Topic: "order.paid", Key: r.Key, Value: r.Value}, nil)
				}
			}
		}
		return nil
	}
}

// paidAfterAnHour is a test in virtual time: call it TestPaidAfterAnHour.
func paidAfterAnHour(t *testing.T) {
	kafkatest.Test(t, []string{"order.placed", "order.paid"}, func(t *testing.T, k *kafkatest.Cluster) {
		begin := time.Now()
		kafkatest.Run(t, patient(k.Client(t, kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("order.placed"))))
		kafkatest.Send(t, k, orderPlaced, "o-1", order{ID: "o-1", Amount: 42})

		kafkatest.None(t, k, orderPaid, 59*time.Minute) // costs milliseconds
		if paid := kafkatest.Next(t, k, orderPaid); paid.Amount != 42 {
			t.Errorf("paid %d", paid.Amount)
		}
		if after := time.Since(begin); after < time.Hour {
			t.Errorf("paid too early, after %v", after)
		}
	})
}

// go test -tags synctests
func ExampleTest() {
	_ = []testing.InternalTest{{Name: "TestPaidAfterAnHour", F: paidAfterAnHour}}
}
