package wherry_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/txn"
	"github.com/wherry-go/wherry/kafkatest"
)

// ejectOnly removes the one member of a group, behind its back.
func ejectOnly(t *testing.T, cl *kgo.Client, group string) {
	t.Helper()
	groups, err := kadm.NewClient(cl).DescribeGroups(t.Context(), group)
	require.NoError(t, err)
	require.Len(t, groups[group].Members, 1)
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group = group
	leave.Members = []kmsg.LeaveGroupRequestMember{{MemberID: groups[group].Members[0].MemberID}}
	_, err = leave.RequestWith(t.Context(), cl)
	require.NoError(t, err)
}

// offsetsOf is the request that puts an offset of a group into a transaction,
// from nobody in particular: a group without members takes it.
func offsetsOf(t *testing.T, cl *kgo.Client, group, topic string, partition int32, offset int64) *kmsg.TxnOffsetCommitRequest {
	t.Helper()
	topics, err := kadm.NewClient(cl).ListTopics(t.Context(), topic)
	require.NoError(t, err)
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.Group = group
	of := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	of.Partition, of.Offset = partition, offset
	in := kmsg.NewTxnOffsetCommitRequestTopic()
	in.Topic, in.TopicID, in.Partitions = topic, topics[topic].ID, append(in.Partitions, of)
	req.Topics = append(req.Topics, in)
	return req
}

// A member that was thrown out and is back begins where others left off, also
// where that cannot be told at once.
func TestExactBreak_WhereToBeginAgainIsAwaited(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"order.placed:1", "counted:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		c := &wherry.Consumer{
			Client: k.Client(t, kgo.ClientID("first")), Group: "g", Delivery: wherry.ExactlyOnce, Logger: quiet,
			Opts: []kgo.Opt{kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.HeartbeatInterval(3 * time.Second)},
			Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
				return counted.Publish(ctx, o.ID, count{1})
			})},
		}
		send := func(from, to int) {
			for i := from; i < to; i++ {
				kafkatest.Send(t, k, orderPlaced, "a", order{ID: strconv.Itoa(i)})
			}
		}
		cl := k.Client(t)
		stop := kafkatest.Run(t, c)
		send(0, 10)
		k.Sleep(t, time.Second)
		require.EqualValues(t, 10, sum(committed(t, k, "g", "order.placed")))

		ejectOnly(t, cl, "g")
		// Somebody else does some, and has not ended its transaction.
		w, err := txn.Open(t.Context(), cl, nil, "g/order.placed/7")
		require.NoError(t, err)
		defer w.Close()
		require.NoError(t, w.Begin())
		var theirs []*kgo.Record
		for i := 10; i < 15; i++ {
			r, err := counted.Record(strconv.Itoa(i), count{1})
			require.NoError(t, err)
			theirs = append(theirs, r)
		}
		require.Nil(t, w.Produce(t.Context(), theirs))
		require.NoError(t, w.Offsets(t.Context(), offsetsOf(t, cl, "g", "order.placed", 0, 15)))
		send(10, 20)
		k.Sleep(t, 8*time.Second)
		require.NoError(t, w.Commit(t.Context(), theirs))
		k.Sleep(t, time.Minute)
		require.EqualValues(t, 20, sum(committed(t, k, "g", "order.placed")))
		require.NoError(t, stop())
		var got []string
		for _, r := range readAll(t, k, "counted") {
			got = append(got, string(r.Key))
		}
		var want []string
		for i := range 20 {
			want = append(want, strconv.Itoa(i))
		}
		require.Equal(t, want, got)
	})
}
