package main_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
)

func TestDoctor_FindsNothingWrongInAHealthyCluster(t *testing.T) {
	onBoth(t, []string{"orders:2"}, func(t *testing.T, k *kafkatest.Cluster) {
		cl := k.Client(t, kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
		produce(t, cl, "orders")
		require.NoError(t, cl.PollFetches(t.Context()).Err())
		require.NoError(t, cl.CommitUncommittedOffsets(t.Context()))

		d := doctor(t, k.Brokers(), "-group", "billing")
		require.Zero(t, d.code, d.all())
		require.Empty(t, d.Findings)
		require.Equal(t, []string{"orders"}, d.Topics)
		require.Len(t, d.Groups, 1)
		require.Equal(t, "Stable", d.Groups[0].State)
		require.Equal(t, 1, d.Groups[0].Members)
		require.Zero(t, d.Groups[0].Lag)
		if k.Embedded() {
			require.Contains(t, d.missed(), "topic settings unclean.leader.election.enable: the brokers do not know it: an older Kafka, or not Apache Kafka")
		} else {
			require.Empty(t, d.NotChecked)
		}
	})
}

func TestDoctor_Groups(t *testing.T) {
	onBoth(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		cl := k.Client(t)
		produce(t, cl, "orders")
		const foreign = "AQAAAAAAAAAAAAAAAAAAAAABAA0" // a finished set of another topic
		commit(t, cl, "ahead", "orders", 7, "")
		commit(t, cl, "behind", "orders", 0, foreign)

		d := doctor(t, k.Brokers(), "-group", "ahead,behind", "-group", "nobody")
		require.Equal(t, 1, d.code)
		require.True(t, d.has("error offset-ahead", "group ahead", "orders/0: committed 7, the end is 1", "--reset-offsets"), d.all())
		require.True(t, d.has("error group-missing", "there is no group nobody"), d.all())
		require.True(t, d.has("warning group-empty", "group behind has no members, and a lag of 1"), d.all())
		require.True(t, d.has("note group-empty", "group ahead"), d.all())
		require.True(t, d.has("warning finished-set", "group behind"), d.all())

		_, err := kadm.NewClient(cl).DeleteRecords(t.Context(), kadm.Offsets{"orders": {0: {Topic: "orders", At: 1}}})
		require.NoError(t, err)
		d = doctor(t, k.Brokers(), "-group", "behind", "-ignore", "group-empty,finished-set")
		require.Len(t, d.Findings, 1, d.all())
		require.True(t, d.has("error offset-behind", "orders/0: committed 0, the first is 1"), d.all())
	})
}

func TestDoctor_StaticAndIdleMembersInBothProtocols(t *testing.T) {
	onBoth(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		for protocol, opts := range map[string][]kgo.Opt{"classic": nil, "consumer": {kgo.ServerSideBalancer()}} {
			for _, instance := range []string{"a", "b"} {
				cl := k.Client(t, append(opts, kgo.ConsumerGroup(protocol), kgo.ConsumeTopics("orders"), kgo.InstanceID(instance))...)
				go cl.PollFetches(t.Context())
			}
			// A group says that it is stable before its members have what they should.
			await(t, func() (diagnosis, bool) {
				d := doctor(t, k.Brokers(), "-group", protocol)
				return d, d.Groups != nil && d.Groups[0].Members == 2 && d.has("note idle-members", "2 members for 1 partition") && !d.has("note group-state")
			}, func(d diagnosis) {
				require.Equal(t, protocol, d.Groups[0].Protocol)
				require.True(t, d.has("note static-members", "2 members with a group.instance.id", "a (", "b ("), d.all())
				require.Zero(t, d.code, d.all())
			})
		}
	})
}

func TestDoctor_Topics(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		k.Create(t,
			kafkatest.Topic{Name: "orders", Partitions: 2},
			kafkatest.Topic{Name: "orders.billing.retry.30s", Partitions: 1, Config: map[string]string{"retention.ms": "20000"}},
			kafkatest.Topic{Name: "orders.other.retry.30s", Partitions: 1, Config: map[string]string{"retention.ms": "20000"}},
			kafkatest.Topic{Name: "billing.dlq", Partitions: 2, Config: map[string]string{"retention.ms": "3600000"}},
			kafkatest.Topic{Name: "billing.dlq.ledger", Partitions: 2, Config: map[string]string{"cleanup.policy": "delete"}},
			kafkatest.Topic{Name: "balances", Config: map[string]string{"cleanup.policy": "compact,delete"}},
		)
		commit(t, k.Client(t), "billing", "orders", 0, "")

		d := doctor(t, k.Brokers(), "-group", "billing", "balances", "oders", "-ignore", "group-empty")
		require.Equal(t, 1, d.code)
		require.ElementsMatch(t, []string{"orders", "orders.billing.retry.30s", "billing.dlq", "billing.dlq.ledger", "balances"}, d.Topics)
		for _, want := range [][]string{
			{"error topic-missing", "there is no topic oders, named in the call"},
			{"error delay-retention", "orders.billing.retry.30s keeps records for 20s, of which they wait 30s", "retention.ms=604830000"},
			{"warning delay-partitions", "has 1 partition, orders has 2"},
			{"error ledger-partitions", "billing.dlq.ledger has 2"},
			{"error changelog", "billing.dlq.ledger has cleanup.policy delete"},
			{"warning dead-letter-retention", "billing.dlq keeps letters for 1h"},
			{"warning changelog-retention", "balances is compacted and also deleted"},
			{"note headers-room", "2 topics", "billing.dlq has", "orders.billing.retry.30s has"},
		} {
			require.True(t, d.has(want[0], want[1:]...), "%v in %v", want, d.all())
		}
		require.Equal(t, 1, d.code)
	})
}

func TestDoctor_OpenTransactions(t *testing.T) {
	onBoth(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		commit(t, k.Client(t), "billing", "orders", 0, "")
		cl := hold(t, k, "billing-1", "billing", "orders")

		d := doctor(t, k.Brokers(), "-group", "billing", "-transaction-age", "1ms")
		require.Equal(t, 1, d.code)
		require.True(t, d.has("warning transaction-open", "transaction of billing-1 has been open for", "orders/0", "describe --transactional-id billing-1"), d.all())
		require.True(t, d.has("note read-committed", "topic orders is written in transactions"), d.all())
		if k.Embedded() { // it has no __consumer_offsets to find the transaction by
			require.True(t, d.has("note offsets-held", "orders/0", "for how long is not known"), d.all())
		} else {
			require.True(t, d.has("warning offsets-held", "orders/0", "that of billing-1"), d.all())
			require.True(t, d.has("warning transaction-open", "perhaps offsets of group billing"), d.all())
		}
		d = doctor(t, k.Brokers(), "-group", "billing")
		require.False(t, d.has("warning transaction-open"), "a minute is not over: %v", d.all())

		require.NoError(t, cl.EndTransaction(t.Context(), kgo.TryAbort))
		await(t, func() (diagnosis, bool) {
			d := doctor(t, k.Brokers(), "-group", "billing", "-transaction-age", "1ms")
			return d, !d.has("warning transaction-open") && !d.has("note offsets-held") && !d.has("warning offsets-held")
		}, func(d diagnosis) {
			// Also of one that is over; the embedded broker forgets it.
			require.Equal(t, !k.Embedded(), d.has("note read-committed", "topic orders"), d.all())
		})
	})
}

func TestDoctor_ReadsIt(t *testing.T) {
	onBoth(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		produce(t, k.Client(t), "orders")
		commit(t, k.Client(t), "billing", "orders", 7, "")
		code, stdout, stderr := callWith(t, []string{"WHERRY_BROKERS=" + strings.Join(k.Brokers(), ",")}, "doctor", "-group", "billing", "-ignore", "group-empty")
		require.Equal(t, 1, code, stderr)
		require.Empty(t, stderr)
		require.Contains(t, stdout, " at "+k.Brokers()[0]+"\n")
		require.Contains(t, stdout, "\n  group    billing: empty, 0 members, classic protocol, lag 0 in 1 partition\n")
		require.Contains(t, stdout, "\nERROR   group billing has committed offsets beyond the end of 1 partition [offset-ahead]\n  where orders/0: committed 7, the end is 1\n  why   The topic was made anew")
		require.Contains(t, stdout, "\n          kafka-consumer-groups --bootstrap-server "+k.Brokers()[0]+" --group billing --reset-offsets")
		require.Contains(t, stdout, "\n1 error, 0 warnings, 0 notes.")
		for _, line := range lines(stdout) {
			if !strings.Contains(line, "kafka-") {
				require.LessOrEqual(t, len([]rune(line)), 96, line)
			}
		}
	})
}

func TestDoctor_ClockProbeLeavesNothing(t *testing.T) {
	onBoth(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		code, stdout, stderr := callWith(t, []string{"WHERRY_BROKERS=" + strings.Join(k.Brokers(), ",")}, "doctor", "-write-probe")
		require.Zero(t, code, stdout+stderr)
		require.Regexp(t, `\n  clock    broker \d (has the time of this machine|is \S+ (ahead of|behind) this machine) \(±`, stdout)
		require.NotContains(t, stdout, "NOT CHECKED  clocks")
		topics, err := kadm.NewClient(k.Client(t)).ListTopics(kadm.WithAuthorizedOps(t.Context()))
		require.NoError(t, err)
		require.Equal(t, []string{"orders"}, topics.Names())
	})
}

// TestDoctor_FindsNothingWrongInWhatWherryMakes has a Consumer make all its
// topics, and use them.
func TestDoctor_FindsNothingWrongInWhatWherryMakes(t *testing.T) {
	onBoth(t, []string{"orders:2"}, func(t *testing.T, k *kafkatest.Cluster) {
		kafkatest.Run(t, &wherry.Consumer{
			Client: k.Client(t), Group: "billing", Order: wherry.ByKey,
			Handlers: []wherry.Route{{Topic: "orders", Handler: func(context.Context, *kgo.Record) error { return errors.New("no bank") }}},
			Policies: []wherry.Policy{&dlq.Queue{Topic: "billing.dlq"}, retry.Topics{Policy: retry.Policy{Attempts: 2, Initial: 50 * time.Millisecond}, KeepOrder: true}},
		})
		require.NoError(t, k.Client(t).ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Key: []byte("k"), Value: []byte("v")}).FirstErr())
		kafkatest.NextRecord(t, k, "billing.dlq")
		code, _, stderr := callWith(t, []string{"WHERRY_BROKERS=" + strings.Join(k.Brokers(), ",")}, "dlq", "discard", "billing.dlq", "-yes")
		require.Zero(t, code, stderr)

		d := doctor(t, k.Brokers(), "-group", "billing")
		require.Zero(t, d.code, d.all())
		require.ElementsMatch(t, []string{"orders", "orders.billing.retry.50ms", "orders.billing.retry.keys", "billing.dlq", "billing.dlq.ledger"}, d.Topics)
		require.True(t, d.has("note dead-letter-retention", "billing.dlq keeps letters for 7 days"), d.all())
		require.True(t, d.has("note headers-room", "2 topics"), d.all())
		require.Len(t, d.Findings, 2, d.all())
	})
}

func TestDoctor_MakesNoTopicByAskingForIt(t *testing.T) {
	t.Parallel()
	p := broker(t, t.TempDir(), "-memory") // topics appear there when they are asked for
	d := doctor(t, []string{p.addr}, "orders", "-group", "billing")
	require.True(t, d.has("error topic-missing", "orders"), d.all())
	topics, err := kadm.NewClient(client(t, p.addr)).ListTopics(t.Context())
	require.NoError(t, err)
	require.Empty(t, topics.Names())
}

func TestDoctor_CouldNotLook(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		args []string
		want string
	}{
		"nobody listens":                    {[]string{"-brokers", "127.0.0.1:1", "-timeout", "1s"}, "check -brokers"},
		"no such flag":                      {[]string{"-nonsense"}, "Usage: wherry doctor [topic...] [flags]"},
		"no such check":                     {[]string{"-ignore", "everything"}, "there is no check of that name, they are auto-create-topics, "},
		"a group of no name":                {[]string{"-group", ""}, "a name is empty"},
		"a password file that is not there": {[]string{"-sasl", "plain", "-sasl-user", "ada", "-sasl-password-file", "nowhere"}, "-sasl-password-file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := call(t, append([]string{"doctor"}, row.args...)...)
			require.Equal(t, 2, code)
			require.Empty(t, stdout)
			require.Contains(t, stderr, row.want)
		})
	}
}

func TestDoctor_HelpSaysWhatItDoes(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := call(t, "help", "doctor")
	require.Zero(t, code)
	require.Empty(t, stderr)
	for _, want := range []string{"Usage: wherry doctor [topic...] [flags]", "-write-probe", "-group group", "Exit codes: 0 nothing is wrong", "WHERRY_BROKERS"} {
		require.Contains(t, stdout, want)
	}
}

func TestDoctor_BrokersOfTheEmbeddedKindAreAskedEachForItself(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(1, "orders"), kfake.BrokerConfigs(map[string]string{"transaction.max.timeout.ms": "5000"}))
	require.NoError(t, err)
	t.Cleanup(fake.Close)
	d := doctor(t, fake.ListenAddrs(), "orders")
	require.True(t, d.has("error txn-timeout-max", "is 5000 on all 3 brokers"), d.all())
	require.Len(t, d.Brokers, 3)
}
