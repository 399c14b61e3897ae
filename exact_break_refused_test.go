package wherry_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
)

// noise are bytes that no compression makes less.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

type trail struct{ IDs []string }

var trails = &wherry.OwnedTable[trail]{Topic: "trails"}

// A record whose output is refused takes back what it wrote to a table; what
// rests on that runs again, before anything that comes later in its order.
func TestExactBreak_WhatRestsOnARefusedRecordRunsAgainInOrder(t *testing.T) {
	t.Parallel()
	for _, by := range []wherry.Order{wherry.ByPartition, wherry.ByKey} {
		t.Run(fmt.Sprint(by), func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, []string{"order.placed:1", "counted:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				k.Create(t, kafkatest.Topic{Name: "small", Partitions: 1, Config: map[string]string{"max.message.bytes": "1000"}})
				const n = 200
				bad := func(i int) bool { return i%40 == 7 }
				c := &wherry.Consumer{
					Client: k.Client(t), Group: "g", Order: by, Delivery: wherry.ExactlyOnce, Logger: quiet,
					Tables:   []wherry.Owned{trails},
					Policies: []wherry.Policy{&dlq.Queue{Topic: "dead"}},
					Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
						time.Sleep(time.Millisecond)
						tr, _, err := trails.Get(ctx, "all")
						if err != nil {
							return err
						}
						tr.IDs = append(tr.IDs, o.ID)
						if err := trails.Put(ctx, "all", tr); err != nil {
							return err
						}
						if bad(o.Total) {
							return wherry.Publish(ctx, &kgo.Record{Topic: "small", Key: []byte(o.ID), Value: noise(2000)})
						}
						return counted.Publish(ctx, o.ID, count{len(tr.IDs)})
					})},
				}
				var want, dead []string
				for i := range n {
					id := fmt.Sprintf("%03d", i)
					kafkatest.Send(t, k, orderPlaced, "one", order{ID: id, Total: i})
					if bad(i) {
						dead = append(dead, id)
					} else {
						want = append(want, id)
					}
				}
				stop := kafkatest.Run(t, c)
				k.Sleep(t, 5*time.Minute)
				require.NoError(t, stop())
				require.EqualValues(t, n, sum(committed(t, k, "g", "order.placed")))
				all := readAll(t, k, "trails")
				tr, err := wherry.Event[trail]{Topic: "trails"}.Decode(all[len(all)-1])
				require.NoError(t, err)
				require.Equal(t, want, tr.IDs)
				var got []string
				for i, r := range readAll(t, k, "counted") {
					v, err := counted.Decode(r)
					require.NoError(t, err)
					require.Equal(t, i+1, v.N)
					got = append(got, string(r.Key))
				}
				require.Equal(t, want, got)
				got = nil
				for _, r := range readAll(t, k, "dead") {
					got = append(got, string(r.Key))
				}
				slices.Sort(got)
				require.Len(t, got, len(dead))
			})
		})
	}
}
