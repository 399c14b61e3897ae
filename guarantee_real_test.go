package wherry_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
)

// The same in real time, so that a real Kafka shows it too: a process dies at
// one of its requests, with records that wait for their second attempt in hand;
// a successor begins within the session timeout, and each order ends as a
// payment or as a dead letter.
func TestGuarantee_CrashInRealTime(t *testing.T) {
	t.Parallel()
	strikes := map[string]func(*kafkatest.Cluster, testing.TB, kafkatest.Requests) *kafkatest.Fault{
		"crash at": (*kafkatest.Cluster).Crash, "crash after": (*kafkatest.Cluster).CrashAfter,
	}
	for name, strike := range strikes {
		for _, key := range []kmsg.Key{kmsg.Produce, kmsg.OffsetCommit} {
			t.Run(name+" "+key.Name(), func(t *testing.T) {
				t.Parallel()
				k := kafkatest.NewCluster(t, "order.placed:2", "payment.made:1", "dead:1")
				for partition := range int32(2) {
					for _, key := range []string{"a", "b", "c", "bad"} {
						for _, n := range []string{"1", "2", "3", "4"} {
							place(t, k, partition, key+"-"+n+"-"+strconv.Itoa(int(partition)))
						}
					}
				}
				const orders = 2 * 4 * 4
				session := 6 * time.Second // the least that Kafka takes
				if k.Embedded() {
					session = time.Second
				}
				run := func(cl *kgo.Client) (stop func() error) {
					return kafkatest.Run(t, &wherry.Consumer{
						Client: cl, Group: "g", Order: wherry.ByKey, Logger: quiet,
						Opts: []kgo.Opt{kgo.SessionTimeout(session), kgo.HeartbeatInterval(session / 10)},
						Policies: []wherry.Policy{
							&dlq.Queue{Topic: "dead", Gate: dlq.Gate{After: -1}},
							retry.Policy{Attempts: 3, Initial: 50 * time.Millisecond},
						},
						Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
							if strings.HasPrefix(o.ID, "bad") {
								return errors.New("refused")
							}
							if strings.HasPrefix(o.ID, "c") && wherry.Attempt(ctx) == 1 {
								return errors.New("not yet")
							}
							return paymentMade.Publish(ctx, o.ID, payment{OrderID: o.ID})
						})},
					})
				}
				dies := strike(k, t, kafkatest.Requests{Keys: []kmsg.Key{key}, Client: "first", Skip: 1})
				stop := run(k.Client(t, kgo.ClientID("first")))
				dies.Wait(t, 1)
				struck := time.Now()
				stopped := make(chan error, 1)
				go func() { stopped <- stop() }()
				run(k.Client(t, kgo.ClientID("successor")))
				require.Eventually(t, func() bool { return sum(committed(t, k, "g", "order.placed")) == orders }, patience, 20*time.Millisecond)
				t.Logf("all is done %v after the crash", time.Since(struck).Round(time.Millisecond))
				<-stopped

				paid, dead := map[string]int{}, map[string]int{}
				for len(paid) < orders*3/4 {
					paid[kafkatest.Next(t, k, paymentMade).OrderID]++
				}
				for len(dead) < orders/4 {
					l, err := dlq.Read(kafkatest.NextRecord(t, k, "dead"))
					require.NoError(t, err)
					o, err := orderPlaced.Decode(l.Original())
					require.NoError(t, err)
					require.Equal(t, wherry.CauseExhausted, l.Cause)
					require.True(t, strings.HasPrefix(o.ID, "bad"))
					dead[o.ID]++
				}
				for id := range paid {
					require.NotContains(t, dead, id)
					require.False(t, strings.HasPrefix(id, "bad"))
				}
			})
		}
	}
}
