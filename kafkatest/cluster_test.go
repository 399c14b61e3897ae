package kafkatest_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/kafkatest"
)

func TestNewClusterMakesTheNamedTopics(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders", "audit:1")
	k.Create(t, kafkatest.Topic{Name: "state", Partitions: 2, Config: map[string]string{"cleanup.policy": "compact"}})
	adm := kadm.NewClient(k.Client(t))
	topics, err := adm.ListTopics(t.Context())
	require.NoError(t, err)
	require.Len(t, topics["orders"].Partitions, kafkatest.Partitions)
	require.Len(t, topics["audit"].Partitions, 1)
	require.Len(t, topics["state"].Partitions, 2)
	configs, err := adm.DescribeTopicConfigs(t.Context(), "state")
	require.NoError(t, err)
	for _, c := range configs[0].Configs {
		if c.Key == "cleanup.policy" {
			require.Equal(t, "compact", c.MaybeValue())
		}
	}
}

func TestTopicsDoNotAppearByThemselves(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	cl := k.Client(t, kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(1))
	err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "nobody.made.me"}).FirstErr()
	require.ErrorContains(t, err, "UNKNOWN_TOPIC_OR_PARTITION")
}

func TestAFaultyTopicNameSaysWhatToWrite(t *testing.T) {
	t.Parallel()
	rec := record(t, func(t testing.TB) { kafkatest.NewCluster(t, "orders:many") })
	require.True(t, rec.failed)
	require.Contains(t, rec.text, `"orders:1"`)
}

func TestATopicThatIsThereCannotBeCreated(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders")
	rec := record(t, func(t testing.TB) { k.Create(t, kafkatest.Topic{Name: "orders"}) })
	require.True(t, rec.failed)
	require.Contains(t, rec.text, `create topic "orders": TOPIC_ALREADY_EXISTS`)
}

func TestOptsAreTheCallersOwn(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	mine := k.Opts()
	clear(mine)
	require.NotContains(t, k.Opts(), nil)
	brokers := k.Brokers()
	clear(brokers)
	require.NotContains(t, k.Brokers(), "")
}

func TestClientEndsWithItsTest(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders")
	var cl *kgo.Client
	record(t, func(t testing.TB) {
		cl = k.Client(t, kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders"), kgo.BlockRebalanceOnPoll())
		require.NoError(t, cl.Ping(t.Context()))
	})
	require.True(t, cl.PollFetches(context.Background()).IsClientClosed())
}

// A name that was used before is a new, empty topic with a new id.
func TestEachClusterBeginsEmpty(t *testing.T) {
	t.Parallel()
	var ids []kadm.TopicID
	for range 3 {
		rec := record(t, func(t testing.TB) {
			k := kafkatest.NewCluster(t, "order.placed")
			kafkatest.None(t, k, orderPlaced, 0)
			kafkatest.Send(t, k, orderPlaced, "o-1", order{ID: "o-1"})
			require.Equal(t, "o-1", kafkatest.Next(t, k, orderPlaced).ID)
			topics, err := kadm.NewClient(k.Client(t)).ListTopics(context.Background())
			require.NoError(t, err)
			ids = append(ids, topics["order.placed"].ID)
		})
		require.False(t, rec.failed, rec.text)
	}
	require.Len(t, ids, 3)
	require.NotEqual(t, ids[0], ids[1])
	require.NotEqual(t, ids[1], ids[2])
}
