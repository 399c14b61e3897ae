package kafkatest_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/kafkatest"
)

// lent starts an Apache Kafka that NewCluster borrows for the rest of the test.
func lent(t *testing.T, topics ...string) *kafkatest.Apache {
	t.Helper()
	if testing.Short() {
		t.Skip("starts Apache Kafka: not with -short")
	}
	a := kafkatest.NewApache(t, kafkatest.ApacheConfig{Topics: topics})
	t.Setenv("KAFKATEST_BROKERS", strings.Join(a.Brokers(), ","))
	return a
}

func TestABorrowedClusterKeepsWhatItHadAndLosesWhatTheTestMade(t *testing.T) {
	a := lent(t, "kept:1", "order.placed:1")
	kafkatest.SendRecord(t, a.Cluster, &kgo.Record{Topic: "kept", Value: []byte("older than the test")})
	kafkatest.SendRecord(t, a.Cluster, &kgo.Record{Topic: "order.placed", Value: []byte("older than the test")})
	older := a.Client(t, kgo.ConsumerGroup("kept"), kgo.ConsumeTopics("kept"))
	require.NoError(t, older.PollFetches(t.Context()).Err())
	require.NoError(t, older.CommitUncommittedOffsets(t.Context()))
	adm := kadm.NewClient(a.Client(t))

	var left *kgo.Client
	rec := record(t, func(t testing.TB) {
		k := kafkatest.NewCluster(t, "order.placed")
		require.False(t, k.Embedded())
		kafkatest.None(t, k, orderPlaced, 0) // the topic is a new one
		kafkatest.None(t, k, event[string]{"kept"}, 0)
		kafkatest.SendRecord(t, k, &kgo.Record{Topic: "kept", Value: []byte(`"of the test"`)})
		require.Equal(t, "of the test", kafkatest.Next(t, k, event[string]{"kept"}))
		k.Create(t, kafkatest.Topic{Name: "order.placed.retry"})
		var err error // a member with an instance id does not leave by closing, and this one is not even closed
		left, err = kgo.NewClient(append(k.Opts(), kgo.ConsumerGroup("billing"), kgo.InstanceID("billing-1"), kgo.ConsumeTopics("kept"))...)
		require.NoError(t, err)
		require.NoError(t, left.PollFetches(context.Background()).Err())
	})
	require.False(t, rec.failed, rec.text)
	defer left.Close()
	topics, err := adm.ListTopics(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"kept"}, topics.Names())
	groups, err := adm.ListGroups(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"kept"}, groups.Groups())
}

func TestTestsThatBorrowOneClusterTakeTurns(t *testing.T) {
	lent(t)
	var (
		all   sync.WaitGroup
		mu    sync.Mutex
		using int
	)
	use := func(t testing.TB, n int) {
		mu.Lock()
		defer mu.Unlock()
		using += n
		require.LessOrEqual(t, using, 1)
	}
	for _, name := range []string{"a", "b", "c"} {
		all.Go(func() {
			rec := recordAs(t, name, func(rt testing.TB) {
				k := kafkatest.NewCluster(rt, "order.placed")
				use(rt, 1)
				rt.Cleanup(func() { use(rt, -1) })
				kafkatest.Send(rt, k, orderPlaced, name, order{ID: name})
				require.Equal(rt, name, kafkatest.Next(rt, k, orderPlaced).ID)
				kafkatest.None(rt, k, orderPlaced, 0)
			})
			if rec.failed {
				t.Error(rec.text)
			}
		})
	}
	all.Wait()
}

func TestASecondBorrowInOneTestIsRefused(t *testing.T) {
	lent(t)
	kafkatest.NewCluster(t)
	rec := record(t, func(t testing.TB) { kafkatest.NewCluster(t) })
	require.True(t, rec.failed, "it would wait for itself for ever")
	require.Contains(t, rec.text, "TestASecondBorrowInOneTestIsRefused holds the cluster of KAFKATEST_BROKERS already")
}

func TestABrokerOnAnotherMachineIsRefused(t *testing.T) {
	for _, addr := range []string{"kafka.example.com:9092", "127.0.0.1:9092,10.1.2.3:9092", "[2001:db8::1]:9092"} {
		t.Setenv("KAFKATEST_BROKERS", addr)
		rec := record(t, func(t testing.TB) { kafkatest.NewCluster(t) })
		require.True(t, rec.failed)
		require.Contains(t, rec.text, "is not this machine, and tests delete topics and groups: set KAFKATEST_DISPOSABLE=1")
	}
}

func TestABrokerThatDoesNotAnswerIsNamed(t *testing.T) {
	t.Setenv("KAFKATEST_BROKERS", "127.0.0.1:1")
	rec := record(t, func(t testing.TB) { kafkatest.NewCluster(t) })
	require.True(t, rec.failed)
	require.Contains(t, rec.text, "the brokers of KAFKATEST_BROKERS=127.0.0.1:1 do not answer")
}

func TestWithoutJarsApacheTestsAreSkippedOrRequired(t *testing.T) {
	if testing.Short() {
		t.Skip("looks for Java: not with -short")
	}
	t.Setenv("KAFKATEST_JARS", t.TempDir())
	t.Setenv("KAFKATEST_REQUIRE", "")
	rec := record(t, func(t testing.TB) { kafkatest.NewApache(t, kafkatest.ApacheConfig{}) })
	require.True(t, rec.skipped)
	require.False(t, rec.failed)
	require.Contains(t, rec.text, "scripts/kafka-jars")
	t.Setenv("KAFKATEST_REQUIRE", "1")
	rec = record(t, func(t testing.TB) { kafkatest.NewApache(t, kafkatest.ApacheConfig{}) })
	require.True(t, rec.failed)
}

func TestApacheOptsLogInOverTLS(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts Apache Kafka: not with -short")
	}
	a := kafkatest.NewApache(t, kafkatest.ApacheConfig{
		TLS: true, Users: map[string]string{"alice": "a", "bob": "b"}, Topics: []string{"order.placed:1"},
	})
	kafkatest.Send(t, a.Cluster, orderPlaced, "o-1", order{ID: "o-1"})
	require.Equal(t, "o-1", kafkatest.Next(t, a.Cluster, orderPlaced).ID)
	stranger, err := kgo.NewClient(kgo.SeedBrokers(a.Brokers()...), kgo.DialTLSConfig(a.TLS()))
	require.NoError(t, err)
	defer stranger.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	require.Error(t, stranger.Ping(ctx), "without a login")
}

func TestApacheNodesCanBeLostAndComeBack(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Apache Kafka: not with -short")
	}
	a := kafkatest.NewApache(t, kafkatest.ApacheConfig{Nodes: 3, Topics: []string{"order.placed:1"}})
	var ids []string
	send := func(id string) {
		kafkatest.Send(t, a.Cluster, orderPlaced, id, order{ID: id})
		ids = append(ids, id)
	}
	send("all")
	node := a.Leader(t, "order.placed", 0)
	a.Kill(t, node)
	send("leader killed")
	a.Restart(t, node)
	require.NotEqual(t, node, a.Leader(t, "order.placed", 0))
	a.Pause(t, node)
	send("follower paused")
	a.Resume(t, node)
	a.Stop(t, node)
	send("follower stopped")
	a.Restart(t, node)
	for _, id := range ids {
		require.Equal(t, id, kafkatest.Next(t, a.Cluster, orderPlaced).ID)
	}
	rec := record(t, func(t testing.TB) { a.Kill(t, 4) })
	require.True(t, rec.failed)
	require.Contains(t, rec.text, "kill node 4: the nodes are numbered 1 to 3")
}
