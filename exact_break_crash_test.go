package wherry_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// One record waits while thousands finish. Whoever takes over, and however soon
// it dies in turn, handles nothing of these again: not in memory, as calls of the
// handler show, nor in Kafka.
func TestExactBreak_CrashAfterCrashBehindARecordThatWaits(t *testing.T) {
	t.Parallel()
	for _, key := range []kmsg.Key{kmsg.Fetch, kmsg.OffsetCommit, kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn} {
		for skip := range 3 {
			t.Run(fmt.Sprint(key.Name(), " ", skip), func(t *testing.T) {
				t.Parallel()
				kafkatest.Test(t, []string{"order.placed:1", "counted:1"}, func(t *testing.T, k *kafkatest.Cluster) {
					k.WallLimit(2 * time.Minute)
					const n = 2000
					calls := map[int]int{}
					due := time.Now().Add(10 * time.Minute)
					waits := func(i int) bool { return i%400 == 3 }
					consumer := func(name string) *wherry.Consumer {
						return &wherry.Consumer{
							Client: k.Client(t, kgo.ClientID(name)), Group: "g", Order: wherry.ByKey, Delivery: wherry.ExactlyOnce, Logger: quiet,
							Concurrency: 1, MaxWait: time.Hour, MaxHeld: 3000,
							Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
								calls[o.Total]++ // one at a time
								if waits(o.Total) {
									if err := wherry.Wait(ctx, due); err != nil {
										return err
									}
								}
								return counted.Publish(ctx, o.ID, count{o.Total})
							})},
							Opts: []kgo.Opt{kgo.SessionTimeout(6 * time.Second), kgo.HeartbeatInterval(time.Second), kgo.FetchMaxBytes(20_000)},
						}
					}
					cl := k.Client(t)
					send := func(from, to int) {
						var all []*kgo.Record
						for i := from; i < to; i++ {
							id := strconv.Itoa(i)
							r, err := orderPlaced.Record(id, order{ID: id, Total: i})
							require.NoError(t, err)
							all = append(all, r)
						}
						require.NoError(t, cl.ProduceSync(t.Context(), all...).FirstErr())
					}
					run := func(name string) (crashed func()) {
						ctx, cancel := context.WithCancel(context.Background())
						end := make(chan error, 1)
						c := consumer(name)
						go func() { end <- c.Run(ctx) }()
						over := false
						crashed = func() {
							if cancel(); !over {
								over = true
								<-end
							}
						}
						t.Cleanup(crashed)
						return crashed
					}
					send(0, n)
					first := run("first")
					k.Sleep(t, 20*time.Second)
					k.Crash(t, kafkatest.Requests{Client: "first"})
					k.Sleep(t, 10*time.Second)
					first()
					for i := range n {
						require.Equal(t, 1, calls[i], i)
					}
					for round := range 3 { // each dies at its first this or that
						name := fmt.Sprint("next", round)
						f := k.Crash(t, kafkatest.Requests{Keys: []kmsg.Key{key}, Client: name, Skip: skip})
						ended := run(name)
						send(n+5*round, n+5*(round+1))
						k.Sleep(t, 15*time.Second)
						if f.Hits() == 0 {
							k.Crash(t, kafkatest.Requests{Client: name})
							k.Sleep(t, 10*time.Second)
						}
						ended()
					}
					stop := kafkatest.Run(t, consumer("last"))
					k.Sleep(t, 20*time.Minute)
					require.EqualValues(t, n+15, sum(committed(t, k, "g", "order.placed")))
					require.NoError(t, stop())
					got := map[string]int{}
					for _, r := range readAll(t, k, "counted") {
						got[string(r.Key)]++
					}
					for i := range n + 15 {
						require.Equal(t, 1, got[strconv.Itoa(i)], i)
						if i < n && !waits(i) {
							require.Equal(t, 1, calls[i], i)
						}
					}
				})
			})
		}
	}
}
