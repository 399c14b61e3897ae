package wherry_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// Handlers that stage much do not run ahead of transactions that cannot be
// made, and all comes when they can.
func TestExactBreak_WhatWaitsForATransactionIsBounded(t *testing.T) {
	t.Parallel()
	for _, by := range []wherry.Order{wherry.ByPartition, wherry.ByKey} {
		t.Run(strconv.Itoa(int(by)), func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, []string{"order.placed:2", "counted:2"}, func(t *testing.T, k *kafkatest.Cluster) {
				const n = 100
				value := make([]byte, 900_000)
				var handled atomic.Int64
				c := &wherry.Consumer{
					Client: k.Client(t, kgo.ClientID("first")), Group: "g", Order: by, Concurrency: 8, Delivery: wherry.ExactlyOnce, Logger: quiet,
					Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
						handled.Add(1)
						return wherry.Publish(ctx, &kgo.Record{Topic: "counted", Key: []byte(o.ID), Value: value})
					})},
				}
				for i := range n {
					kafkatest.Send(t, k, orderPlaced, strconv.Itoa(i), order{ID: strconv.Itoa(i)})
				}
				away := k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.InitProducerID}, Client: "first", Count: -1}, kerr.CoordinatorNotAvailable)
				stop := kafkatest.Run(t, c)
				k.Sleep(t, 30*time.Second)
				// 4 MiB a partition, and what was in hand.
				require.LessOrEqual(t, handled.Load(), int64(2*5+8))
				require.NotZero(t, away.Hits())
				away.Remove()
				k.Sleep(t, time.Minute)
				require.EqualValues(t, n, sum(committed(t, k, "g", "order.placed")))
				require.EqualValues(t, n, handled.Load())
				require.NoError(t, stop())
				require.Len(t, readAll(t, k, "counted"), n)
			})
		})
	}
}

// Transactions that fail, hundreds of them, cost no effect and leave no client
// behind: the bubble ends only when all have.
func TestExactBreak_TransactionsThatFailOverAndOver(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"order.placed:2", "counted:2"}, func(t *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(2 * time.Minute)
		c := exactly(k.Client(t, kgo.ClientID("first")), wherry.ByKey)
		c.Logger = quiet
		stop := kafkatest.Run(t, c)
		send := func(n int) {
			for i := range n {
				kafkatest.Send(t, k, orderPlaced, strconv.Itoa(i%10), order_(i))
			}
		}
		aborts := func(n int) {
			fault := k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.EndTxn, kmsg.TxnOffsetCommit}, Client: "first", Count: n}, kerr.UnknownServerError)
			send(20)
			fault.Wait(t, n)
			k.Sleep(t, 5*time.Second)
		}
		for range 11 {
			aborts(40)
		}
		require.EqualValues(t, 220, sum(committed(t, k, "g", "order.placed")))
		require.NoError(t, stop())
		requireCounts(t, k, 10, 22)
	})
}
