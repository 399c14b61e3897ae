package kafkatest_test

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/wherry-go/wherry/kafkatest"
)

// refusables are requests of each kind that can be refused, about partition 7 of a
// topic where they are about one.
func refusables() []kmsg.Request {
	produce := kmsg.NewPtrProduceRequest()
	produce.Acks = -1
	produce.Topics = []kmsg.ProduceRequestTopic{{Topic: "orders", TopicID: [16]byte{1}, Partitions: []kmsg.ProduceRequestTopicPartition{{Partition: 7}}}}
	fetch := kmsg.NewPtrFetchRequest()
	fetch.Topics = []kmsg.FetchRequestTopic{{Topic: "orders", TopicID: [16]byte{1}, Partitions: []kmsg.FetchRequestTopicPartition{{Partition: 7}}}}
	list := kmsg.NewPtrListOffsetsRequest()
	list.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "orders", Partitions: []kmsg.ListOffsetsRequestTopicPartition{{Partition: 7}}}}
	epoch := kmsg.NewPtrOffsetForLeaderEpochRequest()
	epoch.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: "orders", Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{{Partition: 7}}}}
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "orders", TopicID: [16]byte{1}, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: 7}}}}
	committed := kmsg.NewPtrOffsetFetchRequest()
	committed.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "orders", Partitions: []int32{7}}}
	committed.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "billing", Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: "orders", TopicID: [16]byte{1}, Partitions: []int32{7}}}}}
	txn := kmsg.NewPtrTxnOffsetCommitRequest()
	txn.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "orders", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Partition: 7}}}}
	add := kmsg.NewPtrAddPartitionsToTxnRequest()
	add.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: "orders", Partitions: []int32{7}}}
	add.Transactions = []kmsg.AddPartitionsToTxnRequestTransaction{{Topics: []kmsg.AddPartitionsToTxnRequestTransactionTopic{{Topic: "orders", Partitions: []int32{7}}}}}
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.CoordinatorKeys = []string{"billing"}
	create := kmsg.NewPtrCreateTopicsRequest()
	create.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: "orders", Configs: []kmsg.CreateTopicsRequestTopicConfig{{Name: "cleanup.policy"}}}}
	remove := kmsg.NewPtrDeleteTopicsRequest()
	remove.TopicNames = []string{"orders"}
	remove.Topics = []kmsg.DeleteTopicsRequestTopic{{Topic: kmsg.StringPtr("orders")}}
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Members = []kmsg.LeaveGroupRequestMember{{MemberID: "m"}}
	return []kmsg.Request{
		produce, fetch, list, epoch, commit, committed, txn, add, find, create, remove, leave,
		kmsg.NewPtrJoinGroupRequest(), kmsg.NewPtrSyncGroupRequest(), kmsg.NewPtrHeartbeatRequest(), kmsg.NewPtrConsumerGroupHeartbeatRequest(),
		kmsg.NewPtrInitProducerIDRequest(), kmsg.NewPtrAddOffsetsToTxnRequest(), kmsg.NewPtrEndTxnRequest(),
	}
}

// codes returns the error codes of an answer and the partitions that have one.
func codes(v reflect.Value) (all []int16, partitions []int32) {
	if f := v.FieldByName("ErrorCode"); f.IsValid() && f.Int() != 0 {
		all = append(all, int16(f.Int()))
		if p := v.FieldByName("Partition"); p.IsValid() {
			partitions = append(partitions, int32(p.Int()))
		}
	}
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Struct {
			for j := range f.Len() {
				c, p := codes(f.Index(j))
				all, partitions = append(all, c...), append(partitions, p...)
			}
		}
	}
	return all, partitions
}

func TestARefusedRequestHasTheErrorInItsAnswerWhateverItsKindAndVersion(t *testing.T) {
	t.Parallel()
	for name, versions := range map[string]*kversion.Versions{"newest": nil, "2.4": kversion.V2_4_0()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				node := k.Leader(t, "orders", 0)
				var opts []kgo.Opt
				if versions != nil {
					opts = append(opts, kgo.MaxVersions(versions))
				}
				cl := k.Client(t, opts...)
				for _, req := range refusables() {
					kind := kmsg.Key(req.Key())
					if versions != nil && !versions.HasKey(req.Key()) {
						continue
					}
					f := k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kind}}, kerr.PolicyViolation)
					resp, err := cl.Broker(node).Request(t.Context(), req)
					require.NoError(t, err, kind.Name())
					require.Equal(t, 1, f.Hits())
					got, partitions := codes(reflect.ValueOf(resp).Elem())
					require.Equal(t, []int16{kerr.PolicyViolation.Code}, got, "%s v%d: %+v", kind.Name(), req.GetVersion(), resp)
					for _, p := range partitions {
						require.EqualValues(t, 7, p, kind.Name())
					}
				}
			})
		})
	}
}

func TestARefusedRequestDoesNotReachTheBroker(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		cl := k.Client(t)
		f := k.Refuse(t, kafkatest.Requests{Keys: produces, Topic: "orders"}, kerr.MessageTooLarge)
		err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: []byte("a")}).FirstErr()
		require.ErrorIs(t, err, kerr.MessageTooLarge)
		require.Equal(t, 1, f.Hits())
		produce(t, cl, "orders", "b")
		require.Equal(t, []string{"b"}, values(t, k, "orders", 1))
	})
}

func TestARefusedRequestThatMayBeTriedAgainIs(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		for _, refuse := range []struct {
			key kmsg.Key
			err *kerr.Error
		}{
			{kmsg.Produce, kerr.NotLeaderForPartition},
			{kmsg.InitProducerID, kerr.CoordinatorLoadInProgress},
			{kmsg.FindCoordinator, kerr.CoordinatorNotAvailable},
			{kmsg.EndTxn, kerr.ConcurrentTransactions},
			{kmsg.TxnOffsetCommit, kerr.CoordinatorLoadInProgress},
			{kmsg.JoinGroup, kerr.NotCoordinator},
			{kmsg.SyncGroup, kerr.RebalanceInProgress},
			{kmsg.OffsetFetch, kerr.UnstableOffsetCommit},
			{kmsg.OffsetFetch, kerr.NotCoordinator},
			{kmsg.ListOffsets, kerr.NotLeaderForPartition},
			{kmsg.Fetch, kerr.NotLeaderForPartition},
			{kmsg.Fetch, kerr.FetchSessionIDNotFound},
		} {
			f := k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{refuse.key}}, refuse.err)
			group := "billing-" + refuse.key.Name() + refuse.err.Message
			s, err := kgo.NewGroupTransactSession(append(k.Opts(), kgo.TransactionalID(group), kgo.ConsumerGroup(group), kgo.ConsumeTopics("orders"),
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
			require.NoError(t, err)
			kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders", Value: []byte("in")})
			for s.PollFetches(t.Context()).NumRecords() == 0 {
				require.NoError(t, t.Context().Err())
			}
			require.NoError(t, s.Begin())
			require.NoError(t, s.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: []byte("out")}).FirstErr())
			committed, err := s.End(t.Context(), kgo.TryCommit)
			require.NoError(t, err, refuse)
			_ = committed // a commit that was refused may abort
			require.Equal(t, 1, f.Hits(), "%s %s", refuse.key.Name(), refuse.err.Message)
			s.Close()
		}
	})
}

func TestRefuseSaysWhatItCannotRefuse(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	for want, refuse := range map[string]func(t testing.TB){
		"name one of package kerr":  func(t testing.TB) { k.Refuse(t, kafkatest.Requests{Keys: produces}, nil) },
		"name the kinds of request": func(t testing.TB) { k.Refuse(t, kafkatest.Requests{}, kerr.NotCoordinator) },
		"cannot answer requests of kind Me": func(t testing.TB) {
			k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Metadata}}, kerr.NotCoordinator)
		},
	} {
		rec := record(t, refuse)
		require.True(t, rec.failed)
		require.Contains(t, rec.text, want)
	}
}
