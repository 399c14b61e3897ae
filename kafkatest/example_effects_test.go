package kafkatest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/kafkatest"
)

// A service that is not exactly once: it dies when its payment is written and
// its offset is not, and its successor pays again.
func ExampleExactlyOnce() {
	TestBilling := func(t testing.TB) {
		k := kafkatest.NewCluster(t, "order.placed:1", "order.paid:1")
		pay := func() kafkatest.RunFunc {
			return func(ctx context.Context) error {
				cl := k.Client(t, kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("order.placed"), kgo.DisableAutoCommit(), kgo.ClientID("billing"),
					kgo.SessionTimeout(time.Second), kgo.HeartbeatInterval(100*time.Millisecond))
				defer cl.CloseAllowingRebalance()
				for {
					fetches := cl.PollFetches(ctx)
					if ctx.Err() != nil {
						return nil
					}
					for r := range fetches.RecordsAll() {
						cl.ProduceSync(ctx, &kgo.Record{Topic: "order.paid", Key: r.Key, Value: r.Value})
					}
					cl.CommitUncommittedOffsets(ctx)
				}
			}
		}
		dies := k.Crash(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.OffsetCommit}, Client: "billing"})
		kafkatest.Send(t, k, orderPlaced, "o-1", order{ID: "o-1"})
		stop := kafkatest.Run(t, pay())
		dies.Wait(t, 1)
		go stop()
		kafkatest.Run(t, pay())

		kafkatest.ExactlyOnce(t, k, kafkatest.Effects{
			Inputs: []string{"order.placed"}, Outputs: []string{"order.paid"}, Group: "billing",
		})
	}
	fmt.Println(failed(TestBilling, "1 doubled"))
	// Output: true
}

// failed tells whether a test fails with a message that has the given part.
func failed(test func(testing.TB), part string) bool {
	rec := recordAs(nil, "TestBilling", test)
	return rec.failed && strings.Contains(rec.text, part)
}
