package kafkatest_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/kafkatest"
)

func TestACrashIsBeforeTheRequestOrBeforeItsAnswer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		crash func(*kafkatest.Cluster, testing.TB, kafkatest.Requests) *kafkatest.Fault
		want  []string
	}{
		{"before", (*kafkatest.Cluster).Crash, []string{"a"}},
		{"after", (*kafkatest.Cluster).CrashAfter, []string{"a", "b"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				cl := k.Client(t)
				f := test.crash(k, t, kafkatest.Requests{Keys: produces, Skip: 1})
				produce(t, cl, "orders", "a")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				cl.Produce(ctx, &kgo.Record{Topic: "orders", Value: []byte("b")}, nil)
				f.Wait(t, 1)
				require.Equal(t, test.want, values(t, k, "orders", len(test.want)))
			})
		})
	}
}

func TestACrashedProcessStaysDeadAndItsSuccessorLives(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		open := func(opts []kgo.Opt) *kgo.Client {
			cl, err := kgo.NewClient(append(opts, kgo.ClientID("billing"))...)
			require.NoError(t, err)
			t.Cleanup(cl.Close)
			return cl
		}
		dead := open(k.Opts())
		sibling := open(dead.Opts()[:len(dead.Opts()):len(dead.Opts())])
		bystander := open(k.Opts())
		for _, cl := range []*kgo.Client{dead, sibling, bystander} {
			require.NoError(t, cl.Ping(t.Context()))
		}
		f := k.Crash(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.ListGroups}})
		reaches := func(cl *kgo.Client) bool {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			return cl.Ping(ctx) == nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := kmsg.NewPtrListGroupsRequest().RequestWith(ctx, dead)
		require.Error(t, err)
		require.Equal(t, 1, f.Hits())
		f.Remove() // what it did stays done
		require.False(t, reaches(dead))
		require.False(t, reaches(sibling), "clients that were opened with its options are the same process")
		require.True(t, reaches(bystander), "an id alone does not make them one")
		require.True(t, reaches(open(k.Opts())))
	})
}

// A member that crashed is missed when its session is over, in both protocols.
func TestTheBrokerMissesACrashedMemberWhenItsSessionIsOver(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"classic", "KIP-848"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			virtual(t, []string{"order.placed:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				opts := []kgo.Opt{kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("order.placed"), kgo.DisableAutoCommit()}
				if protocol != "classic" {
					opts = append(opts, kgo.ServerSideBalancer())
				}
				kafkatest.Send(t, k, orderPlaced, "o-1", order{})
				first := k.Client(t, append(opts, kgo.ClientID("first"))...)
				require.NoError(t, first.PollFetches(t.Context()).Err())
				k.Crash(t, kafkatest.Requests{Client: "first", Group: "billing"}).Wait(t, 1)
				begin := time.Now()
				second := k.Client(t, opts...)
				fetches := second.PollFetches(t.Context())
				require.NoError(t, fetches.Err())
				require.Equal(t, 1, fetches.NumRecords())
				require.Greater(t, time.Since(begin), 30*time.Second)
				require.Less(t, time.Since(begin), 2*time.Minute)
			})
		})
	}
}

// A transaction that was not ended is aborted when its successor begins, and the
// one whose answer was lost is committed.
func TestACrashAtTheEndOfATransaction(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		crash func(*kafkatest.Cluster, testing.TB, kafkatest.Requests) *kafkatest.Fault
		want  []string
	}{
		{"before", (*kafkatest.Cluster).Crash, []string{"successor"}},
		{"after", (*kafkatest.Cluster).CrashAfter, []string{"dead", "successor"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				f := test.crash(k, t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.EndTxn}, Txn: "billing"})
				commit := func(ctx context.Context, value string) {
					cl := k.Client(t, kgo.TransactionalID("billing"))
					require.NoError(t, cl.BeginTransaction())
					produce(t, cl, "orders", value)
					// kgo may else abort, where it has not yet heard of the topic.
					cl.PurgeTopicsFromProducing("a name never used")
					_ = cl.EndTransaction(ctx, kgo.TryCommit)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				commit(ctx, "dead")
				require.Equal(t, 1, f.Hits())
				commit(t.Context(), "successor")
				require.Equal(t, test.want, values(t, k, "orders", len(test.want)))
			})
		})
	}
}
