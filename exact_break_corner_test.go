package wherry_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
)

// Both at once: sets that do not fit, and outputs that are refused.
func TestExactBreak_RefusedOutputsWhereTheSetDoesNotFit(t *testing.T) {
	t.Parallel()
	for _, refusals := range []int{2, 3} {
		for _, wait := range []time.Duration{0, 3 * time.Millisecond, 10 * time.Second} {
			t.Run(fmt.Sprint(refusals, " ", wait), func(t *testing.T) {
				t.Parallel()
				kafkatest.Test(t, []string{"order.placed:1", "counted:1"}, func(t *testing.T, k *kafkatest.Cluster) {
					createRefusing(t, k)
					k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.TxnOffsetCommit, kmsg.OffsetCommit}, Client: "first", Skip: 1, Count: refusals}, kerr.OffsetMetadataTooLarge)
					c := &wherry.Consumer{
						Client: k.Client(t, kgo.ClientID("first")), Group: "g", Order: wherry.ByKey, Delivery: wherry.ExactlyOnce, Logger: quiet,
						Policies: []wherry.Policy{&dlq.Queue{Topic: "dead"}},
						Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
							if o.Total == 0 {
								if err := wherry.Wait(ctx, time.Now().Add(wait)); err != nil {
									return err
								}
							}
							if o.Total%5 == 3 || o.Total == 0 {
								return wherry.Publish(ctx, &kgo.Record{Topic: "small", Key: []byte(o.ID), Value: noise(2000)})
							}
							return counted.Publish(ctx, o.ID, count{o.Total})
						})},
					}
					const n = 120
					for i := range n {
						key := fmt.Sprint("fast", i)
						if i%4 == 0 {
							key = "slow"
						}
						kafkatest.Send(t, k, orderPlaced, key, order{ID: strconv.Itoa(i), Total: i})
					}
					stop := kafkatest.Run(t, c)
					k.Sleep(t, 2*time.Minute)
					require.EqualValues(t, n, sum(committed(t, k, "g", "order.placed")))
					require.NoError(t, stop())
					require.Len(t, readAll(t, k, "dead"), n/5+1)
					require.Len(t, readAll(t, k, "counted"), n-n/5-1)
				})
			})
		}
	}
}
