package wherry_test

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// Members come and go in real time, on the embedded broker or on a real one,
// under each kind of balancer.
func TestExactBreak_MembersComeAndGoInEarnest(t *testing.T) {
	t.Parallel()
	for name, balancer := range balancers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, exactTopics...)
			member := func(i int) func() error {
				c := counting(t, k, fmt.Sprint("m", i), wherry.Order(i%2))
				c.Opts = []kgo.Opt{balancer, kgo.HeartbeatInterval(200 * time.Millisecond)}
				return kafkatest.Run(t, c)
			}
			const keys, rounds = 8, 12
			var stops []func() error
			for round := range rounds {
				for key := range keys {
					kafkatest.Send(t, k, orderPlaced, strconv.Itoa(key), order_(key))
				}
				switch round % 4 {
				case 0, 1:
					stops = append(stops, member(round))
				case 2:
					require.NoError(t, stops[0]())
					stops = stops[1:]
				}
			}
			require.Eventually(t, func() bool { return sum(committed(t, k, "g", "order.placed")) >= keys*rounds }, patience, 50*time.Millisecond)
			for _, stop := range stops {
				require.NoError(t, stop())
			}
			requireCounts(t, k, keys, rounds)
		})
	}
}

// Brokers that take hardly any metadata with an offset, and say so.
func TestExactBreak_BrokersThatTakeLittleMetadata(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewApache(t, kafkatest.ApacheConfig{
		Topics: []string{"order.placed:1", "counted:1"}, Config: map[string]string{"offset.metadata.max.bytes": "60"},
	})
	release := make(chan struct{})
	var handled atomic.Int64
	consumer := func() *wherry.Consumer {
		return &wherry.Consumer{
			Client: k.Client(t), Group: "g", Order: wherry.ByKey, Delivery: wherry.ExactlyOnce, Logger: quiet,
			Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
				if o.Total == 0 {
					select {
					case <-release:
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				handled.Add(1)
				return counted.Publish(ctx, o.ID, count{o.Total})
			})},
		}
	}
	const n = 300
	for i := range n {
		key := strconv.Itoa(i)
		if i%3 == 0 {
			key = "slow"
		}
		kafkatest.Send(t, k.Cluster, orderPlaced, key, order{ID: strconv.Itoa(i), Total: i})
	}
	stop := kafkatest.Run(t, consumer())
	require.Eventually(t, func() bool { return handled.Load() > n/3 }, patience, 10*time.Millisecond)
	close(release)
	require.Eventually(t, func() bool { return sum(committed(t, k.Cluster, "g", "order.placed")) >= n }, patience, 50*time.Millisecond)
	require.NoError(t, stop())
	got := map[string]int{}
	for _, r := range readAll(t, k.Cluster, "counted") {
		got[string(r.Key)]++
	}
	require.Len(t, got, n)
	for id, times := range got {
		require.Equal(t, 1, times, id)
	}
}
