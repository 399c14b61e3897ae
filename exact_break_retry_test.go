package wherry_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
)

// Transactions that are aborted all the while neither begin a wait anew nor
// count as attempts.
func TestExactBreak_WaitsAndAttemptsOutliveAborts(t *testing.T) {
	t.Parallel()
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn} {
		for _, err := range []*kerr.Error{kerr.UnknownServerError, kerr.InvalidProducerEpoch, kerr.TransactionAbortable} {
			if key == kmsg.Produce && err == kerr.UnknownServerError {
				continue // comes to be about the record
			}
			t.Run(fmt.Sprint(key.Name(), " ", err.Message), func(t *testing.T) {
				t.Parallel()
				kafkatest.Test(t, []string{"order.placed:1", "counted:1"}, func(t *testing.T, k *kafkatest.Cluster) {
					k.WallLimit(2 * time.Minute)
					var mu sync.Mutex
					var attempts []string
					began := time.Now()
					c := exactly(k.Client(t, kgo.ClientID("first")), wherry.ByKey)
					c.Logger = quiet
					c.Policies = []wherry.Policy{retry.Policy{Attempts: 4, Initial: 3 * time.Second}}
					c.Handlers = []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
						if o.ID == "slow" {
							mu.Lock()
							attempts = append(attempts, fmt.Sprint(wherry.Attempt(ctx), " at ", time.Since(began).Truncate(time.Second)))
							mu.Unlock()
							if wherry.Attempt(ctx) < 4 {
								return errors.New("not yet")
							}
						}
						return countOrders(ctx, o)
					})}
					kafkatest.Send(t, k, orderPlaced, "slow", order{ID: "slow"})
					stop := kafkatest.Run(t, c)
					failing := k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{key}, Client: "first", Count: -1}, err)
					n := 0
					for time.Since(began) < 30*time.Second {
						kafkatest.Send(t, k, orderPlaced, "fast", order_(n))
						n++
						k.Sleep(t, 500*time.Millisecond)
					}
					failing.Remove()
					k.Sleep(t, time.Minute)
					require.Equal(t, []string{"1 at 0s", "2 at 3s", "3 at 9s", "4 at 21s"}, attempts)
					require.EqualValues(t, n+1, sum(committed(t, k, "g", "order.placed")))
					require.Greater(t, failing.Hits(), 20)
					require.Less(t, failing.Hits(), 500, "it is tried again without a pause")
					require.NoError(t, stop())
					got := map[string]int{}
					for _, r := range readAll(t, k, counted.Topic) {
						v, err := counted.Decode(r)
						require.NoError(t, err)
						got[string(r.Key)]++
						require.Equal(t, got[string(r.Key)], v.N)
					}
					require.Equal(t, map[string]int{"slow": 1, "fast": n}, got)
				})
			})
		}
	}
}

// A record takes its hops and gets its letter once, whenever the process dies:
// each is in one transaction with the offset of the topic that it leaves.
func TestExactBreak_CrashesAroundHopsAndLetters(t *testing.T) {
	t.Parallel()
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn, kmsg.InitProducerID} {
		for skip := range 7 {
			if key == kmsg.InitProducerID && skip > 3 {
				continue // a claim of each partition, and the writer
			}
			for name, crash := range map[string]func(*kafkatest.Cluster, testing.TB, kafkatest.Requests) *kafkatest.Fault{
				"at": (*kafkatest.Cluster).Crash, "after": (*kafkatest.Cluster).CrashAfter,
			} {
				t.Run(fmt.Sprintf("%s %d of %s", name, skip, key.Name()), func(t *testing.T) {
					t.Parallel()
					kafkatest.Test(t, []string{"order.placed:1", "counted:1"}, func(t *testing.T, k *kafkatest.Cluster) {
						consumer := func(name string) *wherry.Consumer {
							return &wherry.Consumer{
								Client: k.Client(t, kgo.ClientID(name)), Group: "g", Order: wherry.Order(skip % 2), Delivery: wherry.ExactlyOnce, Logger: quiet,
								Policies: []wherry.Policy{&dlq.Queue{Topic: "dead"}, retry.Topics{Policy: retry.Policy{Attempts: 3, Initial: time.Second}}},
								Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
									if o.Total > wherry.Attempt(ctx) { // 4 never works
										return errors.New("not yet")
									}
									return counted.Publish(ctx, o.ID, count{wherry.Attempt(ctx)})
								})},
								Opts: []kgo.Opt{kgo.SessionTimeout(6 * time.Second), kgo.HeartbeatInterval(time.Second)},
							}
						}
						f := crash(k, t, kafkatest.Requests{Keys: []kmsg.Key{key}, Client: "first", Skip: skip})
						ctx, cancel := context.WithCancel(context.Background())
						end := make(chan error, 1)
						go func() { end <- consumer("first").Run(ctx) }()
						t.Cleanup(func() { cancel(); <-end })
						const n = 8
						for i := range n {
							kafkatest.Send(t, k, orderPlaced, strconv.Itoa(i), order{ID: strconv.Itoa(i), Total: 1 + i%4})
							k.Sleep(t, 300*time.Millisecond)
						}
						k.Sleep(t, 20*time.Second)
						stop := kafkatest.Run(t, consumer("second"))
						k.Sleep(t, time.Minute)
						require.EqualValues(t, n, sum(committed(t, k, "g", "order.placed")))
						kafkatest.ExactlyOnce(t, k, kafkatest.Effects{
							Inputs: []string{"order.placed"}, Outputs: []string{"counted"}, Instead: []string{"dead"}, Group: "g",
							Unordered: true,
						})
						require.Len(t, readAll(t, k, "dead"), n/4)
						for _, r := range readAll(t, k, "counted") {
							i, err := strconv.Atoi(string(r.Key))
							require.NoError(t, err)
							v, err := counted.Decode(r)
							require.NoError(t, err)
							require.Equal(t, 1+i%4, v.N)
						}
						require.NoError(t, stop())
						require.NotZero(t, f.Hits())
					})
				})
			}
		}
	}
}
