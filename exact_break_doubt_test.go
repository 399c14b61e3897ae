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

// keyOf returns a key of which kafkatest.Send puts records into a partition of
// a topic of so many.
func keyOf(partition int32, partitions, n int) string {
	hash := kgo.StickyKeyPartitioner(nil).ForTopic("")
	for i := 0; ; i++ {
		key := fmt.Sprintf("k%d", i)
		if hash.Partition(&kgo.Record{Key: []byte(key)}, partitions) == int(partition) {
			if n == 0 {
				return key
			}
			n--
		}
	}
}

// A transaction in doubt has offsets of partitions that are where they were:
// those do not tell that it was committed.
func TestExactBreak_ADoubtIsNotSettledByWhatDidNotMove(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"order.placed:8", "counted:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		const still = 7 // partitions whose first record waits
		handle := func(ctx context.Context, o order) error {
			if r := wherry.RecordFrom(ctx); r.Partition < still && r.Offset == 0 {
				return wherry.Wait(ctx, time.Now().Add(time.Minute))
			}
			return counted.Publish(ctx, o.ID, count{1})
		}
		consumer := func(name string) *wherry.Consumer {
			return &wherry.Consumer{
				Client: k.Client(t, kgo.ClientID(name)), Group: "g", Order: wherry.ByKey, Delivery: wherry.ExactlyOnce, Logger: quiet,
				Handlers: []wherry.Route{orderPlaced.Handler(handle)},
			}
		}
		for p := range int32(still) {
			for n := range 3 {
				key := keyOf(p, 8, n)
				kafkatest.Send(t, k, orderPlaced, key, order{ID: key})
			}
		}
		stop := kafkatest.Run(t, consumer("first"))
		k.Sleep(t, 5*time.Second)
		require.Zero(t, sum(committed(t, k, "g", "order.placed")))
		require.NoError(t, stop())

		key := keyOf(still, 8, 0)
		kafkatest.Send(t, k, orderPlaced, key, order{ID: key})
		// The first commit is one transaction of all partitions.
		k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.OffsetCommit}, Client: "second", Count: 20}, kerr.UnknownServerError)
		refused := k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.EndTxn}, Client: "second"}, kerr.UnknownServerError)
		stop = kafkatest.Run(t, consumer("second"))
		k.Sleep(t, 2*time.Minute)
		require.Equal(t, 1, refused.Hits())
		got := map[string]int{}
		for _, r := range readAll(t, k, "counted") {
			got[string(r.Key)]++
		}
		want := map[string]int{key: 1}
		for p := range int32(still) {
			want[keyOf(p, 8, 1)], want[keyOf(p, 8, 2)] = 1, 1
		}
		require.Equal(t, want, got)
		require.NoError(t, stop())
	})
}
