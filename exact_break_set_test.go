package wherry_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// What has finished and does not fit into the metadata waits in memory, and
// what must finish before it fits begins.
func TestExactBreak_AFinishedSetThatDoesNotFitHoldsNothingUpForGood(t *testing.T) {
	t.Parallel()
	for _, refusals := range []int{2, 3} { // to a set of 187 characters, and none
		for _, size := range []int{10, 400_000} {
			t.Run(fmt.Sprint(refusals, " outputs of ", size), func(t *testing.T) {
				t.Parallel()
				kafkatest.Test(t, []string{"order.placed:2", "counted:1"}, func(t *testing.T, k *kafkatest.Cluster) {
					k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.TxnOffsetCommit, kmsg.OffsetCommit}, Client: "first", Skip: 1, Count: refusals}, kerr.OffsetMetadataTooLarge)
					c := &wherry.Consumer{
						Client: k.Client(t, kgo.ClientID("first")), Group: "g", Order: wherry.ByKey, Delivery: wherry.ExactlyOnce, Logger: quiet,
						Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
							if o.ID == "slow" && o.Total == 0 {
								if err := wherry.Wait(ctx, time.Now().Add(time.Minute)); err != nil {
									return err
								}
							}
							return wherry.Publish(ctx, &kgo.Record{Topic: "counted", Key: fmt.Append(nil, o.ID, "-", o.Total), Value: noise(size)})
						})},
					}
					n := 300
					if size > 1000 {
						n = 80 // over the bounds of a transaction
					}
					slow := keyOf(0, 2, 0)
					want := map[string]int{}
					for i := range n {
						o, key := order{ID: "fast", Total: i}, keyOf(0, 2, 1+i%20)
						if i%4 == 0 {
							o, key = order{ID: "slow", Total: i}, slow
						}
						want[fmt.Sprint(o.ID, "-", o.Total)] = 1
						kafkatest.Send(t, k, orderPlaced, key, o)
					}
					stop := kafkatest.Run(t, c)
					k.Sleep(t, 10*time.Second)
					// Another partition goes on meanwhile.
					kafkatest.Send(t, k, orderPlaced, keyOf(1, 2, 0), order{ID: "other"})
					want["other-0"] = 1
					k.Sleep(t, 10*time.Second)
					require.EqualValues(t, 1, committed(t, k, "g", "order.placed")[1])
					k.Sleep(t, 2*time.Minute)
					require.EqualValues(t, n+1, sum(committed(t, k, "g", "order.placed")))
					require.NoError(t, stop())
					got := map[string]int{}
					for _, r := range readAll(t, k, "counted") {
						got[string(r.Key)]++
					}
					require.Equal(t, want, got)
				})
			})
		}
	}
}
