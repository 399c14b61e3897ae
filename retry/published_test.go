package retry_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// a1 has succeeded in its second attempt, and a policy outside takes its time
// with it: nothing of it is out yet. a2 comes meanwhile, in another lane, and must
// not overtake it.
func TestKeepOrder_ARecordIsNotOverBeforeItsOutputsAreOut(t *testing.T) {
	t.Parallel()
	for name, delivery := range map[string]wherry.Delivery{"at least once": wherry.AtLeastOnce, "exactly once": wherry.ExactlyOnce} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, []string{"orders:1", "done:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				slow := wherry.Middleware(func(next wherry.Handler) wherry.Handler {
					return func(ctx context.Context, r *kgo.Record) error {
						err := next(ctx, r)
						if wherry.HopFrom(ctx) != nil && string(r.Value) == "a1" {
							time.Sleep(5 * s)
						}
						return err
					}
				})
				kafkatest.Run(t, &wherry.Consumer{
					Client: k.Client(t), Group: "billing", Order: wherry.ByKey, Delivery: delivery,
					Policies: []wherry.Policy{slow, inOrder(s)},
					Handlers: []wherry.Route{{Topic: "orders", Handler: func(ctx context.Context, r *kgo.Record) error {
						if string(r.Value) == "a1" && wherry.Attempt(ctx) == 1 {
							return errDown
						}
						return wherry.Publish(ctx, &kgo.Record{Topic: "done", Key: r.Key, Value: r.Value})
					}}},
				})
				send(t, k, "a", "a1")
				k.Sleep(t, 3*s)
				send(t, k, "a", "a2")
				require.Equal(t, "a1", string(kafkatest.NextRecord(t, k, "done").Value))
				require.Equal(t, "a2", string(kafkatest.NextRecord(t, k, "done").Value))
			})
		})
	}
}
