package saga_test

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/saga"
)

// Three brokers. An engine's transaction is committed, and its mark is at the
// offsets and at what it told, and not yet at the sagas, whose leader was frozen
// before. Another engine that is given those offsets begins behind what it does not
// see yet, and must not decide before it does.
func TestS16_TheLeaderOfTheSagasIsFrozenBeforeItHasTheMark(t *testing.T) {
	if os.Getenv("KAFKATEST_BROKERS") == "" {
		t.Skip("starts three nodes of Apache Kafka and takes half a minute: runs with the suite on a real one (KAFKATEST_BROKERS)")
	}
	t.Parallel()
	k := kafkatest.NewApache(t, kafkatest.ApacheConfig{
		Nodes: 3, Topics: []string{"told:1", "order.made:1", "paid:1", "unpaid:1"},
		Config: map[string]string{ // each partition is where it is, and stays there
			"default.replication.factor": "1", "min.insync.replicas": "1", "offsets.topic.replication.factor": "1",
			"transaction.state.log.replication.factor": "1", "transaction.state.log.min.isr": "1",
			"broker.session.timeout.ms": "60000",
		},
	})
	var l diary
	newEngine := func(name string) *saga.Engine[order] {
		e := engine(t, k.Cluster, trip(
			saga.Step[order]{Name: "pay", NoUndo: true, Do: saga.Emit(orderMade, func(order) placed { return placed{} }, saga.Success(wasPaid, func(o *order, _ payment) { o.Done = append(o.Done, "paid") }))},
			saga.Step[order]{Name: "log", NoUndo: true, Do: l.do("log")},
			saga.Step[order]{Name: "tell", NoUndo: true, Do: saga.Emit(told, func(o order) order { return o }, saga.Success(unpaid, func(*order, payment) {}))},
		))
		e.Client = k.Client(t, kgo.ClientID(name))
		e.Topics.Partitions = 1
		return e
	}
	first, second := newEngine("first"), newEngine("second")
	stop := kafkatest.Run(t, first)
	require.NoError(t, first.Start(t.Context(), "o-1", order{Total: 1}))
	kafkatest.Next(t, k.Cluster, orderMade)
	kafkatest.Run(t, second) // it waits for its turn

	frozen := alone(t, k)
	commit := k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.EndTxn}, Client: "first"}, 2*time.Second)
	require.NoError(t, saga.Signal(t.Context(), first, "o-1", wasPaid, payment{}))
	commit.Wait(t, 1)
	k.Pause(t, frozen)
	kafkatest.Next(t, k.Cluster, told) // it is committed
	require.NoError(t, stop())
	require.NoError(t, saga.Signal(t.Context(), first, "o-1", wasPaid, payment{})) // once more
	await(t, "it is the other one's turn", func() bool { return len(second.Status().Inbox.Partitions) == 1 })
	time.Sleep(time.Second) // in which it asks for its offsets
	require.Len(t, l.of("o-1"), 1)
	require.Zero(t, second.Status().Active, "it has read nothing back yet")
	k.Resume(t, frozen)
	await(t, "the second has come to the end of the inbox", func() bool {
		for _, p := range second.Status().Inbox.Partitions {
			return second.Status().Ready && p.Committed >= 0 && p.Committed == p.End && p.End > 2
		}
		return false
	})
	require.Equal(t, 1, second.Status().Active)
	require.Len(t, l.of("o-1"), 1)
	kafkatest.None(t, k.Cluster, told, time.Second)
}

// alone has a node lead the sagas and nothing else that an engine commits to, and
// returns it.
func alone(t *testing.T, k *kafkatest.Apache) (node int) {
	t.Helper()
	adm := kadm.NewClient(k.Client(t))
	busy := map[int32]bool{}
	for _, found := range adm.FindGroupCoordinators(t.Context(), "trip.saga") {
		require.NoError(t, found.Err)
		busy[found.NodeID] = true
	}
	for _, found := range adm.FindTxnCoordinators(t.Context(), "trip.saga/trip.saga.inbox/0") {
		require.NoError(t, found.Err)
		busy[found.NodeID] = true
	}
	for n := int32(1); n <= 3; n++ {
		if !busy[n] {
			node = int(n)
		}
	}
	other := node%3 + 1
	var req kadm.AlterPartitionAssignmentsReq
	want := map[string]int{"trip.saga.state": node, "trip.saga.inbox": other, "told": other}
	for topic, at := range want {
		req.Assign(topic, 0, []int32{int32(at)}) //nolint:gosec // 1 to 3
	}
	_, err := adm.AlterPartitionAssignments(t.Context(), req)
	require.NoError(t, err)
	await(t, "they are where they belong", func() bool {
		for topic, at := range want {
			if k.Leader(t, topic, 0) != at {
				return false
			}
		}
		return true
	})
	return node
}
