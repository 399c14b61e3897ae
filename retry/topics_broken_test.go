package retry_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
)

func TestTopics_GarbledRecordsAreGivenUpAtOnceWithTheirBytes(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		w, dead := newWorker(func(c call) error {
			if c.value() == "fine" && c.attempt == 1 {
				return errDown
			}
			return nil
		}), newLetters()
		kafkatest.Run(t, consumer(t, k, w, dead, four(time.Hour)))
		send(t, k, "k", "fine")
		w.next(t, k, 1)
		hop := kafkatest.NextRecord(t, k, "orders.billing.retry.1h")
		require.Equal(t, "fine", string(hop.Value))
		bad := func(change func(r *kgo.Record)) {
			t.Helper()
			r := &kgo.Record{Topic: "orders.billing.retry.2h", Key: hop.Key, Value: []byte("bad"), Headers: append([]kgo.RecordHeader(nil), hop.Headers...)}
			change(r)
			began := time.Now()
			kafkatest.SendRecord(t, k, r)
			got := dead.next(t, k)
			require.Equal(t, wherry.CauseUndecodable, got.err.Cause)
			require.Equal(t, "bad", string(got.record.Value))
			require.Equal(t, r.Headers, got.record.Headers)
			require.Less(t, time.Since(began), s, "it stops nobody")
		}
		set := func(key, value string) func(r *kgo.Record) {
			return func(r *kgo.Record) {
				for i, h := range r.Headers {
					if h.Key == key {
						r.Headers[i].Value = []byte(value)
						return
					}
				}
				r.Headers = append(r.Headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
			}
		}
		bad(func(r *kgo.Record) { r.Headers = []kgo.RecordHeader{{Key: "app", Value: []byte("1")}} })
		bad(set("wherry-retry-due", "tomorrow"))
		bad(set("wherry-retry-due", "2999-01-01T00:00:00Z"))
		bad(set("wherry-retry-attempts", "-1"))
		bad(set("wherry-retry-attempts", "99999999999"))
		bad(set("wherry-retry-partition", "4294967296"))
		bad(set("wherry-retry-offset", "one"))
		bad(set("wherry-retry-topic", "payments"))
		bad(set("wherry-retry-group", "audit"))
		bad(set("wherry-retry-deadline", "never"))
		w.next(t, k, 1) // the fine one, in its time
		require.Len(t, w.all(), 2)
	})
}

func TestTopics_WorkThatWasCutShortIsNoAttempt(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		w, dead := newWorker(nil), newLetters()
		c := consumer(t, k, w, dead, four(time.Minute))
		begun := make(chan struct{})
		c.Handlers[0].Handler = func(ctx context.Context, _ *kgo.Record) error {
			close(begun)
			<-ctx.Done()
			return ctx.Err()
		}
		stop := kafkatest.Run(t, c)
		send(t, k, "k", "v")
		<-begun
		require.NoError(t, stop())
		require.Empty(t, dead.got)
		require.Zero(t, produced(t, k, "orders.billing.retry.1m"))
		kafkatest.Run(t, consumer(t, k, w, dead, four(time.Minute)))
		require.Equal(t, 1, w.next(t, k, 1)[0].attempt)
	})
}

func TestKeepOrder_WantsAsManyPartitionsAsTheTopicHas(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:4", "orders.billing.retry.2s:3")
	adm := kadm.NewClient(k.Client(t))
	settings := []kadm.AlterConfig{{Name: "retention.ms", Value: kadm.StringPtr("604800000")}, {Name: "retention.bytes", Value: kadm.StringPtr("-1")}}
	_, err := adm.AlterTopicConfigs(t.Context(), settings, "orders.billing.retry.2s")
	require.NoError(t, err)
	err = consumer(t, k, newWorker(nil), inOrder(s)).Run(t.Context())
	require.ErrorContains(t, err, "orders.billing.retry.2s has 3 partitions where orders has 4")
	require.ErrorContains(t, err, "--partitions 4")
}

func TestTopics_AreMadeSoThatNothingGoesAwayUnread(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:3"}, func(t *testing.T, k *kafkatest.Cluster, _ time.Duration) {
		p := retry.Topics{Policy: retry.Policy{Attempts: 3, Initial: 12 * time.Hour, Multiplier: 4}}
		p.Spec.Config = map[string]string{"max.message.bytes": "2000000"}
		kafkatest.Run(t, consumer(t, k, newWorker(nil), p))
		adm := kadm.NewClient(k.Client(t))
		found, err := adm.ListTopics(t.Context())
		require.NoError(t, err)
		for name, retention := range map[string]string{"orders.billing.retry.12h": "604800000", "orders.billing.retry.48h": "777600000"} {
			require.Len(t, found[name].Partitions, 3)
			all, err := adm.DescribeTopicConfigs(t.Context(), name)
			require.NoError(t, err)
			have := map[string]string{}
			for _, c := range all[0].Configs {
				have[c.Key] = c.MaybeValue()
			}
			require.Equal(t, retention, have["retention.ms"])
			require.Equal(t, "-1", have["retention.bytes"])
			require.Equal(t, "delete", have["cleanup.policy"])
			require.Equal(t, "2000000", have["max.message.bytes"])
		}
	})
}

func TestTopics_PrepareReportsAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 240)
	for name, tt := range map[string]struct {
		topics retry.Topics
		setup  wherry.Setup
		want   []string
	}{
		"the policy": {
			retry.Topics{Policy: retry.Policy{Attempts: -1, Jitter: 0.1}},
			wherry.Setup{},
			[]string{"Attempts is -1", "Jitter of 0.1"},
		},
		"too many topics": {
			retry.Topics{Policy: retry.Policy{Attempts: retry.Forever}},
			wherry.Setup{},
			[]string{"more than 20 different waits", "set Max"},
		},
		"names": {
			four(s),
			wherry.Setup{Group: "my group/1", Topics: []string{"orders", long}},
			[]string{`"orders.my group/1.retry.1s"`, "set Topics.Name", long + ".my group/1.retry.4s"},
		},
		"one name for two topics": {
			retry.Topics{Name: func(topic, group, delay string) string { return "retries" }},
			wherry.Setup{Group: "g", Topics: []string{"orders"}},
			[]string{"1s of orders and 2s of orders have one name, retries"},
		},
		"settings that lose records": {
			retry.Topics{Policy: retry.Policy{Initial: time.Hour}, Spec: wherry.TopicSpec{Name: "n", Config: map[string]string{"retention.ms": "3600000", "cleanup.policy": "compact"}}},
			wherry.Setup{Group: "g", Topics: []string{"orders"}},
			[]string{"Name, Like or Changelog in Spec", "cleanup.policy=compact"},
		},
		"a retention that is too short": {
			retry.Topics{Policy: retry.Policy{Initial: time.Hour}, Spec: wherry.TopicSpec{Config: map[string]string{"retention.ms": "3600000"}}},
			wherry.Setup{Group: "g", Topics: []string{"orders"}},
			[]string{"orders.g.retry.1h", "retention.ms=3600000, and records wait 1h0m0s", "orders.g.retry.2h"},
		},
		"former": {
			retry.Topics{Former: []time.Duration{0}},
			wherry.Setup{},
			[]string{"a delay of 0s in Former"},
		},
		"an order to keep": {
			retry.Topics{KeepOrder: true, Spec: wherry.TopicSpec{Partitions: 1}},
			wherry.Setup{Order: wherry.Unordered},
			[]string{"set its Order to ByKey or ByPartition", "Spec has Partitions"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := tt.topics.Prepare(&tt.setup)
			require.Error(t, err)
			for _, want := range tt.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
}
