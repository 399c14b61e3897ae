package wherry_test

import (
	"context"
	"fmt"
	"hash/crc32"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// counting returns a Consumer of a process of its own that counts orders, of
// which some take longer than others.
func counting(t *testing.T, k *kafkatest.Cluster, name string, by wherry.Order) *wherry.Consumer {
	t.Helper()
	c := exactly(k.Client(t, kgo.ClientID(name)), by)
	c.Logger = quiet
	c.Handlers = []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
		time.Sleep(time.Duration(crc32.ChecksumIEEE(wherry.RecordFrom(ctx).Key)%7) * 9 * time.Millisecond)
		return countOrders(ctx, o)
	})}
	c.Opts = []kgo.Opt{kgo.SessionTimeout(6 * time.Second), kgo.HeartbeatInterval(time.Second)}
	return c
}

// sendRounds sends an order of each key in each of so many rounds.
func sendRounds(t *testing.T, k *kafkatest.Cluster, keys, rounds int, pause time.Duration) {
	t.Helper()
	for range rounds {
		for key := range keys {
			kafkatest.Send(t, k, orderPlaced, strconv.Itoa(key), order_(key))
		}
		k.Sleep(t, pause)
	}
}

// Whatever a Consumer is at when it is asked to stop, it ends soon, and its
// successor goes on exactly there.
func TestExactBreak_StopAtAnyRequest(t *testing.T) {
	t.Parallel()
	for _, hold := range []time.Duration{0, 25 * time.Second} { // with an answer, and with none
		for _, key := range []kmsg.Key{kmsg.InitProducerID, kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn, kmsg.OffsetFetch, kmsg.JoinGroup, kmsg.Heartbeat, kmsg.Metadata} {
			for skip := range 4 {
				t.Run(fmt.Sprint(key.Name(), " ", skip, " held for ", hold), func(t *testing.T) {
					t.Parallel()
					kafkatest.Test(t, exactTopics, func(t *testing.T, k *kafkatest.Cluster) {
						k.WallLimit(2 * time.Minute)
						sendRounds(t, k, 8, 3, 0)
						f := k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{key}, Client: "first", Skip: skip, Count: 1}, hold)
						c := counting(t, k, "first", wherry.Order(skip%2))
						ctx, cancel := context.WithCancel(t.Context())
						end := make(chan error, 1)
						go func() { end <- c.Run(ctx) }()
						for range 6 {
							sendRounds(t, k, 8, 1, 20*time.Millisecond)
						}
						for range 200 {
							if f.Hits() > 0 {
								break
							}
							k.Sleep(t, 50*time.Millisecond)
						}
						if f.Hits() == 0 {
							t.Log("there are not so many of these: stopped when idle")
						}
						began := time.Now()
						cancel()
						err := <-end
						require.LessOrEqual(t, time.Since(began), 8*time.Second)
						require.NoError(t, err)
						stop := kafkatest.Run(t, counting(t, k, "successor", wherry.Order(skip%2)))
						k.Sleep(t, 40*time.Second)
						require.EqualValues(t, 8*9, sum(committed(t, k, "g", "order.placed")))
						requireCounts(t, k, 8, 9)
						require.NoError(t, stop())
					})
				})
			}
		}
	}
}

// Brokers that are away for longer than a transaction may take, a session, or
// both.
func TestExactBreak_BrokersAway(t *testing.T) {
	t.Parallel()
	for _, by := range []wherry.Order{wherry.ByPartition, wherry.ByKey} {
		for _, away := range []time.Duration{3 * time.Second, 15 * time.Second, time.Minute} {
			t.Run(fmt.Sprint(by, " ", away), func(t *testing.T) {
				t.Parallel()
				kafkatest.Test(t, exactTopics, func(t *testing.T, k *kafkatest.Cluster) {
					k.WallLimit(2 * time.Minute)
					stop := kafkatest.Run(t, counting(t, k, "first", by))
					sendRounds(t, k, 8, 5, 10*time.Millisecond)
					gone := k.Disconnect(t, 0)
					sendRounds(t, k, 8, 5, 10*time.Millisecond)
					k.Sleep(t, away)
					gone.Remove()
					sendRounds(t, k, 8, 5, 10*time.Millisecond)
					k.Sleep(t, 2*time.Minute)
					require.EqualValues(t, 8*15, sum(committed(t, k, "g", "order.placed")))
					requireCounts(t, k, 8, 15)
					require.NoError(t, stop())
				})
			})
		}
	}
}

// A member stands still with a transaction open, is given up by its group, and
// comes back.
func TestExactBreak_AMemberStandsStill(t *testing.T) {
	t.Parallel()
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn, kmsg.InitProducerID} {
		for skip := range 3 {
			t.Run(fmt.Sprint(key.Name(), " ", skip), func(t *testing.T) {
				t.Parallel()
				kafkatest.Test(t, exactTopics, func(t *testing.T, k *kafkatest.Cluster) {
					k.WallLimit(2 * time.Minute)
					by := wherry.Order(skip % 2)
					held := k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{key}, Client: "first", Skip: skip}, 20*time.Second)
					first := kafkatest.Run(t, counting(t, k, "first", by))
					second := kafkatest.Run(t, counting(t, k, "second", by))
					for range 20 {
						sendRounds(t, k, 8, 1, 20*time.Millisecond)
						if held.Hits() > 0 {
							break
						}
					}
					held.Wait(t, 1)
					still := k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Heartbeat, kmsg.JoinGroup, kmsg.SyncGroup}, Client: "first", Count: -1}, 20*time.Second)
					sendRounds(t, k, 8, 3, 5*time.Second)
					still.Remove()
					sendRounds(t, k, 8, 3, 5*time.Second)
					k.Sleep(t, time.Minute)
					n := int(sum(committed(t, k, "g", "order.placed"))) / 8
					require.GreaterOrEqual(t, n, 7)
					requireCounts(t, k, 8, n)
					ends := 0
					for range readAll(t, k, "order.placed") {
						ends++
					}
					require.Equal(t, 8*n, ends)
					require.NoError(t, first())
					require.NoError(t, second())
				})
			})
		}
	}
}
