package wherry_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/client"
	"github.com/wherry-go/wherry/kafkatest"
)

// What tells others that a record is done is sent when the record's other outputs
// are acknowledged, and before the record counts as done; also while the Consumer
// stops, as long as its drain time lets it.
func TestPublish_TheLastOutputIsSentWhenTheOthersAreAcknowledged(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		drain time.Duration
		told  int
	}{
		"the drain time is enough": {10 * time.Second, 1},
		"it is not":                {time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, []string{"order.placed:1", "counted:1", "told:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				slow := k.AddNode(t)
				k.MoveLeader(t, "counted", 0, slow)
				k.MoveLeader(t, "told", 0, 1-slow)
				stop := kafkatest.Run(t, &wherry.Consumer{
					Client: k.Client(t), Group: "g", Drain: row.drain, Logger: quiet,
					Handlers: []wherry.Route{{Topic: "order.placed", Handler: func(ctx context.Context, r *kgo.Record) error {
						told := &kgo.Record{Topic: "told", Value: r.Value}
						client.Last(told)
						return wherry.Publish(ctx, told, &kgo.Record{Topic: "counted", Value: r.Value})
					}}},
				})
				kafkatest.SendRecord(t, k, &kgo.Record{Topic: "order.placed", Value: []byte("1")})
				k.Sleep(t, 10*time.Second)
				require.Len(t, readAll(t, k, "told"), 1)
				fault := k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "counted"}, 5*time.Second)
				kafkatest.SendRecord(t, k, &kgo.Record{Topic: "order.placed", Value: []byte("2")})
				k.Sleep(t, 3*time.Second)
				require.Equal(t, 1, fault.Hits())
				require.Len(t, readAll(t, k, "told"), 1)
				require.EqualValues(t, 1, sum(committed(t, k, "g", "order.placed")))
				require.NoError(t, stop())
				require.Len(t, readAll(t, k, "told"), 1+row.told)
				require.EqualValues(t, 1+row.told, sum(committed(t, k, "g", "order.placed")))
			})
		})
	}
}
