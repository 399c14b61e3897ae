package saga_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/planted"
	"github.com/wherry-go/wherry/internal/txn"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/saga"
)

// stranded opens a transaction on the state topic that nobody knows the name of,
// and leaves it open until it is ended.
func stranded(t *testing.T, k *kafkatest.Cluster) (end func()) {
	t.Helper()
	cl := k.Client(t, kgo.TransactionalID("stranger"), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionTimeout(time.Minute))
	require.NoError(t, cl.BeginTransaction())
	require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: "trip.saga.state", Key: []byte("\x00stranger"), Value: []byte("{}")}).FirstErr())
	return func() { require.NoError(t, cl.EndTransaction(context.Background(), kgo.TryAbort)) }
}

// behind has an engine take sagas over whose last records lie behind an open
// transaction, and returns how often a step was done that is to be done once.
// waits is whether the engine waits for that transaction.
func behind(t *testing.T, k *kafkatest.Cluster, waits bool) int {
	var l diary
	newEngine := func() *saga.Engine[order] {
		def := trip(
			saga.Step[order]{Name: "pay", NoUndo: true, Do: saga.Emit(orderMade, func(o order) placed { return placed{} }, saga.Success(wasPaid, func(o *order, _ payment) { o.Done = append(o.Done, "paid") }))},
			saga.Step[order]{Name: "log", NoUndo: true, Do: l.do("log")},
			saga.Step[order]{Name: "tell", NoUndo: true, Do: saga.Emit(told, func(o order) order { return o }, saga.Success(unpaid, func(*order, payment) {}))},
		)
		e := engine(t, k, def)
		e.Topics.Partitions = 1
		return e
	}
	first := newEngine()
	stop := kafkatest.Run(t, first)
	require.NoError(t, first.Start(t.Context(), "o-1", order{Total: 1}))
	kafkatest.Next(t, k, orderMade)
	end := stranded(t, k)
	require.NoError(t, saga.Signal(t.Context(), first, "o-1", wasPaid, payment{}))
	kafkatest.Next(t, k, told) // it was paid, and no read_committed reader sees that in the state topic
	require.NoError(t, stop())
	require.Equal(t, 1, count(read(t, k, "trip.saga.state"))["o-1"], "of what is below the last stable offset")

	// The next one gets another payment of it.
	require.NoError(t, saga.Signal(t.Context(), first, "o-1", wasPaid, payment{}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	over := make(chan error, 1)
	second := newEngine()
	go func() { over <- second.Run(ctx) }()
	left := int64(0)
	await(t, "it reads back, or goes on", func() bool {
		left = 0
		for _, p := range second.Status().Inbox.Partitions {
			left += p.Restoring
		}
		return waits && left > 0 || len(l.of("o-1")) > 1
	})
	if waits {
		require.Positive(t, left, "it tells how much is left")
		require.Zero(t, second.Status().Active)
		require.False(t, second.Status().Ready)
		require.Len(t, l.of("o-1"), 1, "nothing is handled yet")
	}
	end()
	await(t, "it has come to the end of its inbox", func() bool {
		for _, p := range second.Status().Inbox.Partitions {
			return second.Status().Ready && p.Committed >= 0 && p.Committed == p.End && p.End > 2
		}
		return false
	})
	cancel()
	require.NoError(t, <-over)
	require.Len(t, read(t, k, "told"), len(l.of("o-1")))
	return len(l.of("o-1"))
}

func TestS16_SagasAreReadBackToTheHighWatermarkBeforeTheFirstInput(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "told", "order.made", "paid", "unpaid")
	require.Equal(t, 1, behind(t, k, true))
}

// Not parallel: a planted fault is everybody's.
func TestS16_ReadingBackToTheLastStableOffsetIsSeen(t *testing.T) {
	planted.Set(planted.RestoreToLSO)
	defer planted.Set(planted.None)
	k := kafkatest.NewCluster(t, "told", "order.made", "paid", "unpaid")
	require.Equal(t, 2, behind(t, k, false))
}

// outlast lets virtual time pass until all sagas of an engine have ended, and
// returns how much.
func outlast(t *testing.T, k *kafkatest.Cluster, e *saga.Engine[order], n int) time.Duration {
	t.Helper()
	began := time.Now()
	for e.Status().Ended < n {
		require.Less(t, time.Since(began), 5*time.Minute)
		k.Sleep(t, 50*time.Millisecond)
	}
	return time.Since(began)
}

// A transaction that nobody can end, with a state and with offsets, as an engine
// leaves it behind whose producers have names that nobody knows: brokers abort it
// when its 10 s are over, and look for such each 10 s.
func TestS17_AnOpenTransactionHoldsANewcomerForAsLongAsBrokersBearIt(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		var l diary
		newEngine := func() *saga.Engine[order] {
			e := engine(t, k, trip(l.step("a")))
			e.Topics.Partitions = 1
			return e
		}
		first := newEngine()
		stop := kafkatest.Run(t, first)
		require.NoError(t, first.Start(t.Context(), "o-1", order{}))
		outlast(t, k, first, 1)
		require.NoError(t, stop())

		cl := k.Client(t)
		w, err := txn.Open(t.Context(), cl, []kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner())}, "an older one's")
		require.NoError(t, err)
		require.NoError(t, w.Begin())
		require.Nil(t, w.Produce(t.Context(), []*kgo.Record{{Topic: "trip.saga.state", Key: []byte("o-1"), Value: []byte("{}")}}))
		topics, err := kadm.NewClient(cl).ListTopics(t.Context(), "trip.saga.inbox")
		require.NoError(t, err)
		offsets := kmsg.NewPtrTxnOffsetCommitRequest()
		of, in := kmsg.NewTxnOffsetCommitRequestTopicPartition(), kmsg.NewTxnOffsetCommitRequestTopic()
		of.Offset = 1
		in.Topic, in.TopicID, in.Partitions = "trip.saga.inbox", topics["trip.saga.inbox"].ID, append(in.Partitions, of)
		offsets.Group, offsets.Topics = "trip.saga", append(offsets.Topics, in)
		require.NoError(t, w.Offsets(t.Context(), offsets))
		w.Close() // dead

		require.NoError(t, first.Start(t.Context(), "o-2", order{}))
		second := newEngine()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		over := make(chan error, 1)
		go func() { over <- second.Run(ctx) }()
		k.Sleep(t, 5*time.Second)
		st := second.Status()
		require.False(t, st.Ready)
		require.Len(t, st.Inbox.Partitions, 1)
		require.EqualValues(t, -1, st.Inbox.Partitions[0].Committed, "it tells that it does not know yet where to begin")
		took := 5*time.Second + outlast(t, k, second, 2)
		t.Logf("held for %v", took)
		require.LessOrEqual(t, took, 21*time.Second)
		require.Equal(t, []string{"a"}, l.of("o-2"))
		cancel()
		require.NoError(t, <-over)
	})
}

// What an engine's own producers leave open is ended by whoever takes their
// partitions over: by another process when the group has given the dead one up,
// and by the same one, with an instance id, at once. In neither case are the 10 s
// waited for that brokers would bear it.
func TestS17_WhatAPredecessorLeftOpenIsEndedByItsSuccessor(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		opts   []kgo.Opt
		within time.Duration
	}{
		"another process":  {nil, 8 * time.Second},
		"the same, static": {[]kgo.Opt{kgo.InstanceID("engine-1")}, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
				k.WallLimit(time.Minute)
				var l diary
				newEngine := func(client string) *saga.Engine[order] {
					return &saga.Engine[order]{
						Client: k.Client(t, kgo.ClientID(client)), Topics: wherry.TopicSpec{Partitions: 4},
						Opts:        append(test.opts, kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(time.Second), kgo.FetchMaxWait(time.Second)),
						Definitions: []saga.Definition[order]{trip(l.step("a"))},
					}
				}
				ctx, cancel := context.WithCancel(context.Background())
				end := make(chan error, 1)
				first := newEngine("first")
				go func() { end <- first.Run(ctx) }()
				k.Sleep(t, 10*time.Second)
				const n = 8
				f := k.Crash(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.EndTxn}, Client: "first"})
				starter := newEngine("starter")
				for i := range n {
					require.NoError(t, starter.Start(t.Context(), string(rune('a'+i)), order{}))
				}
				f.Wait(t, 1)
				second := newEngine("second")
				crashed := time.Now()
				kafkatest.Run(t, second)
				outlast(t, k, second, n)
				took := time.Since(crashed)
				t.Logf("they went on after %v", took)
				require.Less(t, took, test.within)
				cancel()
				<-end // what it says is of no use: it is dead
				k.Sleep(t, time.Minute)
				require.Equal(t, n, second.Status().Ended)
				noLetters(t, k)
			})
		})
	}
}
