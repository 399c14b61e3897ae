package wherry_test

import (
	"context"
	"fmt"
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

// late holds a client up where it has told that its partitions are lost, and still
// has what it fetched of them.
type late struct{ held *atomic.Int32 }

func (l late) OnGroupManageError(error) {
	l.held.Add(1)
	time.Sleep(20 * time.Second)
}

// A member hears that it was thrown out, with work in hand, records that joined and
// others that are fetched. For twenty seconds its client has told that all is lost
// and has not cleared it; for the first six of them its session lives, and brokers
// would take offsets of it. Nothing of what it lost is committed any more: neither
// with its offsets nor, as kgo's GroupTransactSession can (see docs/traps.md),
// without.
func TestExactBreak_WhatComesOfALostAssignmentIsNotCommitted(t *testing.T) {
	t.Parallel()
	for name, balancer := range map[string]kgo.GroupBalancer{
		"cooperative": kgo.CooperativeStickyBalancer(), "eager": kgo.RangeBalancer(),
	} {
		for _, tables := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", tables ", tables), func(t *testing.T) {
				t.Parallel()
				kafkatest.Test(t, exactTopics, func(t *testing.T, k *kafkatest.Cluster) { lostAssignment(t, k, balancer, tables) })
			})
		}
	}
}

func lostAssignment(t *testing.T, k *kafkatest.Cluster, balancer kgo.GroupBalancer, tables bool) {
	t.Helper()
	var held atomic.Int32
	start := func(id string, more ...kgo.Opt) {
		c := counting(t, k, id, wherry.ByKey)
		if !tables { // what rests on none is not rolled back with one
			c.Tables, c.Handlers = nil, []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
				time.Sleep(30 * time.Millisecond)
				return counted.Publish(ctx, string(wherry.RecordFrom(ctx).Key), count{})
			})}
		}
		c.MaxHeld, c.Concurrency = 8, 4
		c.Opts = append(c.Opts, kgo.Balancers(balancer))
		c.Opts = append(c.Opts, more...)
		kafkatest.Run(t, kafkatest.RunFunc(c.Run))
	}
	n := 0
	send := func(rounds int) {
		sendRounds(t, k, 8, rounds, 50*time.Millisecond)
		n += rounds
	}
	start("first", kgo.WithHooks(late{&held}))
	send(40)
	// A transaction is under way meanwhile, and others join behind it.
	slow := k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "counted", Client: "first"}, 3*time.Second)
	fault := k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Heartbeat}, Client: "first"}, kerr.UnknownMemberID)
	send(40)
	require.Equal(t, 1, slow.Hits())
	require.Equal(t, 1, fault.Hits())
	start("second")
	send(200)
	require.EqualValues(t, 1, held.Load())
	k.Sleep(t, 2*time.Minute)
	require.EqualValues(t, 8*n, sum(committed(t, k, "g", "order.placed")))
	if tables {
		requireCounts(t, k, 8, n)
		return
	}
	got := len(readAll(t, k, "counted"))
	require.Equal(t, 8*n, got)
}
