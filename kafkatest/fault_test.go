package kafkatest_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/kafkatest"
)

// both runs f in virtual and in real time.
func both(t *testing.T, topics []string, f func(t *testing.T, k *kafkatest.Cluster)) {
	t.Helper()
	t.Run("virtual", func(t *testing.T) {
		t.Parallel()
		virtual(t, topics, f)
	})
	t.Run("real", func(t *testing.T) {
		t.Parallel()
		f(t, kafkatest.NewCluster(t, topics...))
	})
}

var produces = []kmsg.Key{kmsg.Produce}

// produce sends a record with the given client, as a service does.
func produce(t *testing.T, cl *kgo.Client, topic, value string) {
	t.Helper()
	require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr())
}

// values reads n records of a topic and sees that there are no more.
func values(t *testing.T, k *kafkatest.Cluster, topic string, n int) (got []string) {
	t.Helper()
	for range n {
		got = append(got, string(kafkatest.NextRecord(t, k, topic).Value))
	}
	kafkatest.None(t, k, event[string]{topic}, 0)
	return got
}

func TestADroppedRequestIsNotDoneAndAskedAgain(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		cl := k.Client(t, kgo.DisableIdempotentWrite())
		f := k.Drop(t, kafkatest.Requests{Keys: produces})
		produce(t, cl, "orders", "a")
		require.Equal(t, 1, f.Hits())
		require.Equal(t, []string{"a"}, values(t, k, "orders", 1))
	})
}

func TestARequestWhoseAnswerIsDroppedIsDoneAndAskedAgain(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		f := k.DropAfter(t, kafkatest.Requests{Keys: produces})
		produce(t, k.Client(t, kgo.DisableIdempotentWrite()), "orders", "twice")
		require.Equal(t, 1, f.Hits())
		f = k.DropAfter(t, kafkatest.Requests{Keys: produces})
		produce(t, k.Client(t), "orders", "once")
		require.Equal(t, 1, f.Hits())
		require.Equal(t, []string{"twice", "twice", "once"}, values(t, k, "orders", 3))
	})
}

func TestADelayHoldsARequestAndWhatFollowsIt(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		cl := k.Client(t)
		produce(t, cl, "orders", "a")
		const delay = 50 * time.Millisecond
		f := k.Delay(t, kafkatest.Requests{Keys: produces}, delay)
		begin := time.Now()
		cl.Produce(t.Context(), &kgo.Record{Topic: "orders", Value: []byte("b")}, nil)
		f.Wait(t, 1)
		produce(t, cl, "orders", "c")
		require.GreaterOrEqual(t, time.Since(begin), delay)
		if k.Virtual() {
			require.Equal(t, delay, time.Since(begin))
		}
		require.Equal(t, []string{"a", "b", "c"}, values(t, k, "orders", 3))
	})
}

func TestABrokerThatDoesNotAnswerIsALongDelay(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		f := k.Delay(t, kafkatest.Requests{Keys: produces}, 24*time.Hour)
		begin := time.Now()
		produce(t, k.Client(t), "orders", "a")
		require.Equal(t, 1, f.Hits())
		require.Greater(t, time.Since(begin), 10*time.Second, "the client waited for as long as it has patience")
		require.Less(t, time.Since(begin), time.Minute)
		require.Equal(t, []string{"a"}, values(t, k, "orders", 1))
	})
}

func TestADelayOfNothingCounts(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		cl := k.Client(t)
		f := k.Delay(t, kafkatest.Requests{Keys: produces, Count: -1}, 0)
		for range 3 {
			produce(t, cl, "orders", "a")
		}
		require.Equal(t, 3, f.Hits())
	})
}

func TestSkipAndCountChooseTheRequests(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		cl := k.Client(t, kgo.DisableIdempotentWrite())
		f := k.DropAfter(t, kafkatest.Requests{Keys: produces, Skip: 1, Count: 2})
		for _, v := range []string{"a", "b", "c"} {
			produce(t, cl, "orders", v)
		}
		require.Equal(t, 2, f.Hits())
		require.Equal(t, []string{"a", "b", "b", "b", "c"}, values(t, k, "orders", 5), "the retry is a request as well")
	})
}

func TestOfSeveralFaultsTheOldestThatIsNotSpentHits(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		cl := k.Client(t)
		first := k.Delay(t, kafkatest.Requests{Keys: produces}, 0)
		second := k.Delay(t, kafkatest.Requests{Keys: produces, Skip: 1}, 0)
		third := k.Delay(t, kafkatest.Requests{Count: -1}, 0)
		var hits []int
		for range 3 {
			produce(t, cl, "orders", "a")
			hits = append(hits, first.Hits(), second.Hits())
		}
		require.Equal(t, []int{1, 0, 1, 0, 1, 1}, hits)
		require.Positive(t, third.Hits(), "what the others let pass")
	})
}

func TestAFaultEndsWhenItIsRemovedAndWithItsTest(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		cl := k.Client(t)
		var ended *kafkatest.Fault
		record(t, func(t testing.TB) { ended = k.Drop(t, kafkatest.Requests{Keys: produces, Count: -1}) })
		removed := k.Drop(t, kafkatest.Requests{Keys: produces, Count: -1})
		removed.Remove()
		produce(t, cl, "orders", "a")
		require.Zero(t, ended.Hits())
		require.Zero(t, removed.Hits())
	})
}

func TestWaitSaysWhatDidNotHappen(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:1")
	k.Timeout = 50 * time.Millisecond
	f := k.Drop(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.EndTxn, kmsg.Produce}, Topic: "orders", Client: "billing"})
	rec := record(t, func(t testing.TB) { f.Wait(t, 2) })
	require.True(t, rec.failed)
	require.Contains(t, rec.text, `the fault for requests of kind EndTxn or Produce, topic "orders", client "billing" has hit 0 of 2 within 50ms`)
}

func TestWaitEndsWhenARunnerFails(t *testing.T) {
	t.Parallel()
	virtual(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		f := k.Drop(t, kafkatest.Requests{})
		rec := record(t, func(t testing.TB) {
			kafkatest.Run(t, kafkatest.RunFunc(func(context.Context) error {
				time.Sleep(time.Minute)
				return errors.New("no such table")
			}))
			f.Wait(t, 1)
		})
		require.Contains(t, rec.text, "no such table")
	})
}

func TestFaultsChooseByTopicGroupTransactionAndClient(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1", "audit:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		watch := func(r kafkatest.Requests) *kafkatest.Fault {
			r.Count = -1
			return k.Delay(t, r, 0)
		}
		work := func(id string) {
			cl := k.Client(t, kgo.ClientID(id), kgo.ConsumerGroup(id+"-group"), kgo.ConsumeTopics("orders"), kgo.DisableAutoCommit())
			txn := k.Client(t, kgo.ClientID(id), kgo.TransactionalID(id+"-txn"))
			require.NoError(t, txn.BeginTransaction())
			produce(t, txn, "orders", "a")
			txn.PurgeTopicsFromProducing("a name never used") // see TestACrashAtTheEndOfATransaction
			require.NoError(t, txn.EndTransaction(t.Context(), kgo.TryCommit))
			require.NoError(t, cl.PollFetches(t.Context()).Err())
			require.NoError(t, cl.CommitUncommittedOffsets(t.Context()))
			cl.Close()
			txn.Close()
		}
		kinds := []struct {
			keys    []kmsg.Key
			by      kafkatest.Requests
			another kafkatest.Requests
		}{
			{produces, kafkatest.Requests{Topic: "orders"}, kafkatest.Requests{Topic: "audit"}},
			{[]kmsg.Key{kmsg.Fetch}, kafkatest.Requests{Topic: "orders"}, kafkatest.Requests{Topic: "audit"}},
			{[]kmsg.Key{kmsg.Metadata}, kafkatest.Requests{Topic: "orders"}, kafkatest.Requests{Topic: "audit"}},
			{[]kmsg.Key{kmsg.OffsetCommit}, kafkatest.Requests{Topic: "orders"}, kafkatest.Requests{Topic: "audit"}},
			{[]kmsg.Key{kmsg.OffsetCommit}, kafkatest.Requests{Group: "billing-group"}, kafkatest.Requests{Group: "shipping-group"}},
			{[]kmsg.Key{kmsg.OffsetFetch}, kafkatest.Requests{Group: "billing-group"}, kafkatest.Requests{Group: "shipping-group"}},
			{[]kmsg.Key{kmsg.JoinGroup}, kafkatest.Requests{Group: "billing-group"}, kafkatest.Requests{Group: "shipping-group"}},
			{[]kmsg.Key{kmsg.FindCoordinator}, kafkatest.Requests{Group: "billing-group"}, kafkatest.Requests{Group: "shipping-group"}},
			{[]kmsg.Key{kmsg.FindCoordinator}, kafkatest.Requests{Txn: "billing-txn"}, kafkatest.Requests{Txn: "shipping-txn"}},
			{[]kmsg.Key{kmsg.InitProducerID}, kafkatest.Requests{Txn: "billing-txn"}, kafkatest.Requests{Txn: "shipping-txn"}},
			{[]kmsg.Key{kmsg.EndTxn}, kafkatest.Requests{Txn: "billing-txn"}, kafkatest.Requests{Txn: "shipping-txn"}},
			{produces, kafkatest.Requests{Txn: "billing-txn"}, kafkatest.Requests{Txn: "shipping-txn"}},
			{produces, kafkatest.Requests{Client: "billing"}, kafkatest.Requests{Client: "shipping"}},
			{nil, kafkatest.Requests{Client: "billing"}, kafkatest.Requests{Client: "shipping"}},
		}
		for _, kind := range kinds {
			kind.by.Keys, kind.another.Keys = kind.keys, kind.keys
			another, by := watch(kind.another), watch(kind.by)
			work("billing")
			require.Positive(t, by.Hits(), kind.by)
			require.Zero(t, another.Hits(), kind.another)
			by.Remove()
			another.Remove()
		}
	})
}

func TestFaultsDoNotHitTheTestItself(t *testing.T) {
	t.Parallel()
	both(t, []string{"order.placed"}, func(t *testing.T, k *kafkatest.Cluster) {
		f := k.Drop(t, kafkatest.Requests{Count: -1})
		k.Create(t, kafkatest.Topic{Name: "order.paid"})
		kafkatest.Send(t, k, orderPlaced, "o-1", order{ID: "o-1"})
		require.Equal(t, "o-1", kafkatest.Next(t, k, orderPlaced).ID)
		kafkatest.None(t, k, orderPaid, 0)
		require.Zero(t, f.Hits())
	})
}

func TestFaultsHitClientsThatWereOpenedWithTheOptionsOfAnother(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		cl, err := kgo.NewClient(slices.Concat(k.Client(t).Opts(), []kgo.Opt{kgo.ProducerLinger(0)})...)
		require.NoError(t, err)
		defer cl.Close()
		f := k.Drop(t, kafkatest.Requests{Keys: produces})
		produce(t, cl, "orders", "a")
		require.Equal(t, 1, f.Hits())
	})
}

func TestARecordWithoutAcksHasNoAnswerToDrop(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		cl := k.Client(t, kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
		f := k.DropAfter(t, kafkatest.Requests{Keys: produces, Count: -1})
		produce(t, cl, "orders", "a")
		require.Equal(t, []string{"a"}, values(t, k, "orders", 1))
		require.Zero(t, f.Hits())
		f.Remove()
		swallowed := k.Refuse(t, kafkatest.Requests{Keys: produces}, kerr.NotLeaderForPartition)
		produce(t, cl, "orders", "b")
		produce(t, cl, "orders", "c")
		require.Equal(t, []string{"c"}, values(t, k, "orders", 1))
		require.Equal(t, 1, swallowed.Hits())
	})
}

func TestADisconnectedNodeIsGoneAndComesBack(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		cl := k.Client(t)
		produce(t, cl, "orders", "a")
		f := k.Disconnect(t, k.Leader(t, "orders", 0))
		f.Wait(t, 1)
		acked := make(chan error, 1)
		cl.Produce(t.Context(), &kgo.Record{Topic: "orders", Value: []byte("b")}, func(_ *kgo.Record, err error) { acked <- err })
		f.Wait(t, f.Hits()+2)
		require.Equal(t, []string{"a"}, values(t, k, "orders", 1))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		require.Error(t, k.Client(t).Ping(ctx), "a new client does not reach it either")
		f.Remove()
		require.NoError(t, <-acked)
		require.Equal(t, []string{"b"}, values(t, k, "orders", 1))
	})
}

func TestDisconnectOfANodeThatIsNotThereSaysSo(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	rec := record(t, func(t testing.TB) { k.Disconnect(t, 77) })
	require.Contains(t, rec.text, "there is no node 77")
}

func TestALeaderMoves(t *testing.T) {
	t.Parallel()
	both(t, []string{"order.placed:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		if !k.Embedded() {
			rec := record(t, func(t testing.TB) { k.AddNode(t) })
			require.True(t, rec.skipped)
			rec = record(t, func(t testing.TB) { k.MoveLeader(t, "order.placed", 0, 0) })
			require.True(t, rec.skipped)
			return
		}
		cl := k.Client(t)
		node := k.AddNode(t)
		require.Equal(t, 1, node)
		for i := range 4 {
			k.MoveLeader(t, "order.placed", 0, i%2)
			require.Equal(t, i%2, k.Leader(t, "order.placed", 0))
			produce(t, cl, "order.placed", `{}`)
			kafkatest.Next(t, k, orderPlaced)
		}
		k.Disconnect(t, node).Wait(t, 1)
		rec := record(t, func(t testing.TB) { k.MoveLeader(t, "order.placed", 0, 9) })
		require.Contains(t, rec.text, "make node 9 the leader of order.placed/0: node 9 not found")
	})
}

func TestAFaultThatWasClaimedByAConnectionThatEndedHitsLater(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		// The fetch waits at the broker for 5 s, and its client does not live that long.
		f := k.DropAfter(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Fetch}})
		cl := k.Client(t, kgo.ConsumeTopics("orders"))
		k.Sleep(t, time.Second)
		cl.Close()
		require.Zero(t, f.Hits())
		k.Client(t, kgo.ConsumeTopics("orders"))
		f.Wait(t, 1)
	})
}
