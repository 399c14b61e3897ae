package wherry_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
)

// Outputs that a topic takes one by one, but not in one batch.
func TestExactBreak_OutputsThatAreTooLargeTogether(t *testing.T) {
	t.Parallel()
	for _, each := range []int{1, 4} {
		t.Run(strconv.Itoa(each), func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, []string{"order.placed:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				createRefusing(t, k)
				const n = 20
				for i := range n {
					kafkatest.Send(t, k, orderPlaced, strconv.Itoa(i), order{ID: strconv.Itoa(i)})
				}
				c := &wherry.Consumer{
					Client: k.Client(t), Group: "g", Order: wherry.ByKey, Delivery: wherry.ExactlyOnce, Logger: quiet,
					Policies: []wherry.Policy{&dlq.Queue{Topic: "dead"}},
					Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
						for range each {
							if err := wherry.Publish(ctx, &kgo.Record{Topic: "small", Key: []byte(o.ID), Value: noise(400)}); err != nil {
								return err
							}
						}
						return nil
					})},
				}
				stop := kafkatest.Run(t, c)
				k.Sleep(t, time.Minute)
				require.EqualValues(t, n, sum(committed(t, k, "g", "order.placed")))
				require.NoError(t, stop())
				require.Empty(t, readAll(t, k, "dead"))
				require.Len(t, readAll(t, k, "small"), n*each)
			})
		})
	}
}
