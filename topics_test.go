package wherry_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// settings returns what a broker reports of a topic.
func settings(t *testing.T, cl *kgo.Client, topic string) map[string]string {
	t.Helper()
	all, err := kadm.NewClient(cl).DescribeTopicConfigs(t.Context(), topic)
	require.NoError(t, err)
	rc, err := all.On(topic, nil)
	require.NoError(t, errors.Join(err, rc.Err))
	have := map[string]string{}
	for _, c := range rc.Configs {
		have[c.Key] = c.MaybeValue()
	}
	return have
}

func TestEnsureTopics_MakesThemAsSpecifiedAndIsIdempotent(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	cl := k.Client(t)
	specs := []wherry.TopicSpec{
		{Name: "made.plain"},
		{Name: "made.three", Partitions: 3, ReplicationFactor: 1},
		{Name: "made.changelog", Partitions: 2, Changelog: true},
		{Name: "made.config", Partitions: 1, Config: map[string]string{"max.message.bytes": "2000000", "retention.ms": "60000"}},
		{Name: "made.both", Partitions: 1, Changelog: true, Config: map[string]string{"delete.retention.ms": "1000", "retention.ms": "-1"}},
		{Name: strings.Repeat("n", 249), Partitions: 1},
	}
	for range 3 {
		require.NoError(t, wherry.EnsureTopics(t.Context(), cl, specs...))
	}
	topics, err := kadm.NewClient(cl).ListTopics(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, topics["made.plain"].Partitions)
	require.Len(t, topics["made.three"].Partitions, 3)
	require.Len(t, topics["made.changelog"].Partitions, 2)
	for _, name := range []string{"made.changelog", "made.both"} {
		have := settings(t, cl, name)
		require.Equal(t, "compact", have["cleanup.policy"])
		require.Equal(t, "-1", have["retention.ms"])
		require.Equal(t, "3600000", have["segment.ms"])
		require.Equal(t, "0.1", have["min.cleanable.dirty.ratio"])
	}
	have := settings(t, cl, "made.config")
	require.Equal(t, "2000000", have["max.message.bytes"])
	require.Equal(t, "60000", have["retention.ms"])
	require.Equal(t, "delete", have["cleanup.policy"])
	require.Equal(t, "1000", settings(t, cl, "made.both")["delete.retention.ms"])
}

func TestEnsureTopics_ManyAtOnce(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	specs := []wherry.TopicSpec{{Name: "race.a", Partitions: 2}, {Name: "race.b", Partitions: 5, Changelog: true}}
	errs := make([]error, 10)
	var all sync.WaitGroup
	for i := range errs {
		cl := k.Client(t)
		all.Go(func() { errs[i] = wherry.EnsureTopics(t.Context(), cl, specs...) })
	}
	all.Wait()
	require.NoError(t, errors.Join(errs...))
}

func TestEnsureTopics_SaysHowToMendATopicAndChangesNothing(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		have kafkatest.Topic
		want wherry.TopicSpec
		says []string // none means that the topic will do
	}{
		{
			name: "too few partitions", have: kafkatest.Topic{Partitions: 2}, want: wherry.TopicSpec{Partitions: 3},
			says: []string{"it has 2 partitions, 3 are asked for", "kafka-topics --alter --topic differs --partitions 3", "keys move"},
		},
		{
			name: "too many partitions", have: kafkatest.Topic{Partitions: 3}, want: wherry.TopicSpec{Partitions: 2},
			says: []string{"it has 3 partitions, 2 are asked for", "cannot be removed"},
		},
		{name: "any number of partitions", have: kafkatest.Topic{Partitions: 3}, want: wherry.TopicSpec{}},
		{
			name: "too few replicas", have: kafkatest.Topic{Partitions: 1}, want: wherry.TopicSpec{ReplicationFactor: 100},
			says: []string{"replicas, 100 are asked for", "kafka-reassign-partitions"},
		},
		{
			name: "not compacted", have: kafkatest.Topic{Partitions: 1, Config: map[string]string{"retention.ms": "-1"}}, want: wherry.TopicSpec{Changelog: true},
			says: []string{`cleanup.policy is "delete", "compact" is asked for`, "kafka-configs --alter --entity-type topics --entity-name differs --add-config cleanup.policy=compact"},
		},
		{
			name: "compacted and deleted", have: kafkatest.Topic{Partitions: 1, Config: map[string]string{"cleanup.policy": "compact,delete", "retention.ms": "-1"}}, want: wherry.TopicSpec{Changelog: true},
			says: []string{`cleanup.policy is "compact,delete", "compact" is asked for`},
		},
		{
			name: "compacted, and deleted after a week", have: kafkatest.Topic{Partitions: 1, Config: map[string]string{"cleanup.policy": "compact"}}, want: wherry.TopicSpec{Changelog: true},
			says: []string{`retention.ms is "604800000", "-1" is asked for`, "--add-config retention.ms=-1"},
		},
		{
			name: "another setting", have: kafkatest.Topic{Partitions: 1, Config: map[string]string{"max.message.bytes": "5000"}}, want: wherry.TopicSpec{Config: map[string]string{"max.message.bytes": "6000"}},
			says: []string{`max.message.bytes is "5000", "6000" is asked for`},
		},
		{
			name: "all at once", have: kafkatest.Topic{Partitions: 2}, want: wherry.TopicSpec{Partitions: 3, ReplicationFactor: 100, Changelog: true},
			says: []string{"partitions", "replicas", "cleanup.policy", "retention.ms"},
		},
		{
			name: "the same numbers and lists, written otherwise", have: kafkatest.Topic{Partitions: 1, Config: map[string]string{"max.message.bytes": "5000", "cleanup.policy": "compact,delete"}},
			want: wherry.TopicSpec{Config: map[string]string{"max.message.bytes": "05000", "cleanup.policy": "compact, delete"}},
		},
		{
			name: "what is there already, as a changelog", have: kafkatest.Topic{Partitions: 1, Config: map[string]string{"cleanup.policy": "compact", "retention.ms": "-1", "segment.ms": "7200000"}},
			want: wherry.TopicSpec{Partitions: 1, ReplicationFactor: 1, Changelog: true},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "other:1")
			test.have.Name, test.want.Name = "differs", "differs"
			k.Create(t, test.have)
			cl := k.Client(t)
			before := settings(t, cl, "differs")
			err := wherry.EnsureTopics(t.Context(), cl, wherry.TopicSpec{Name: "other", Partitions: 1}, test.want)
			if len(test.says) == 0 {
				require.NoError(t, err)
			} else {
				var e *wherry.TopicError
				require.ErrorAs(t, err, &e)
				require.Equal(t, "differs", e.Topic)
				for _, part := range test.says {
					require.ErrorContains(t, err, part)
				}
			}
			require.Equal(t, before, settings(t, cl, "differs"))
			topics, err := kadm.NewClient(cl).ListTopics(t.Context(), "differs")
			require.NoError(t, err)
			require.Len(t, topics["differs"].Partitions, test.have.Partitions)
		})
	}
}

// What a broker reports of a setting is not always what it was given.
func TestEnsureTopics_IsIdempotentHoweverASettingIsWritten(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	config := map[string]string{"max.message.bytes": "05000", "cleanup.policy": "delete, compact", "min.cleanable.dirty.ratio": "0.250", "preallocate": "FALSE"}
	for range 2 {
		require.NoError(t, wherry.EnsureTopics(t.Context(), k.Client(t), wherry.TopicSpec{Name: "written", Config: config}))
	}
}

func TestEnsureTopics_RefusesBadSpecsAllAtOnceAndMakesNone(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	cl := k.Client(t)
	err := wherry.EnsureTopics(t.Context(), cl,
		wherry.TopicSpec{Name: "good"},
		wherry.TopicSpec{Name: ""}, wherry.TopicSpec{Name: "."}, wherry.TopicSpec{Name: ".."}, wherry.TopicSpec{Name: "a b"},
		wherry.TopicSpec{Name: "a/b"}, wherry.TopicSpec{Name: "ü"}, wherry.TopicSpec{Name: strings.Repeat("n", 250)}, wherry.TopicSpec{Name: "line\n"},
		wherry.TopicSpec{Name: "twice"}, wherry.TopicSpec{Name: "twice", Partitions: 2},
		wherry.TopicSpec{Name: "minus", Partitions: -1}, wherry.TopicSpec{Name: "minus.replicas", ReplicationFactor: -1},
		wherry.TopicSpec{Name: "torn", Changelog: true, Config: map[string]string{"cleanup.policy": "delete"}},
		wherry.TopicSpec{Name: "torn.too", Changelog: true, Config: map[string]string{"retention.ms": "1000"}},
	)
	require.Error(t, err)
	for _, part := range []string{
		"topic : the name", "topic .: the name", "topic ..: the name", "topic a b: the name", "topic a/b: the name", "topic ü: the name", "nnn: the name", "topic line\n: the name",
		"topic twice: specified twice", "topic minus: the numbers", "topic minus.replicas: the numbers", "topic torn: a Changelog has", "topic torn.too: a Changelog has",
	} {
		require.ErrorContains(t, err, part)
	}
	require.NotContains(t, err.Error(), "good")
	topics, listErr := kadm.NewClient(cl).ListTopics(t.Context(), "good", "twice")
	require.NoError(t, listErr)
	require.Error(t, topics.Error(), "nothing may be made where a spec is bad")
}

func TestEnsureTopics_TellsTheBrokersReasonAndGoesOnWithTheOthers(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	err := wherry.EnsureTopics(t.Context(), k.Client(t),
		wherry.TopicSpec{Name: "bad.replicas", ReplicationFactor: 100},
		wherry.TopicSpec{Name: "bad.replicas.too", ReplicationFactor: 99},
		wherry.TopicSpec{Name: "fine", Partitions: 1},
	)
	require.ErrorContains(t, err, "topic bad.replicas: creating it: INVALID_REPLICATION_FACTOR")
	require.ErrorContains(t, err, "topic bad.replicas.too: creating it: INVALID_REPLICATION_FACTOR")
	require.NotContains(t, err.Error(), "topic fine")
	require.NoError(t, wherry.EnsureTopics(t.Context(), k.Client(t), wherry.TopicSpec{Name: "fine", Partitions: 1}))
}

func TestEnsureTopics_ASettingThatTheBrokerDoesNotKnow(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	err := wherry.EnsureTopics(t.Context(), k.Client(t), wherry.TopicSpec{Name: "unknown", Config: map[string]string{"no.such.setting": "x"}})
	if k.Embedded() { // which takes and reports any setting
		require.NoError(t, err)
		return
	}
	require.ErrorContains(t, err, "topic unknown: creating it: INVALID_CONFIG")
	require.ErrorContains(t, err, "no.such.setting", "the broker's own words")
}

func TestEnsureTopics_Nothing(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	require.NoError(t, wherry.EnsureTopics(t.Context(), k.Client(t)))
	require.ErrorContains(t, wherry.EnsureTopics(t.Context(), nil), "the client is nil")
}

func TestEnsureTopics_WaitsForABrokerUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	cl, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1"), kgo.DisableClientMetrics())
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err = wherry.EnsureTopics(ctx, cl, wherry.TopicSpec{Name: "orders"})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "127.0.0.1:1", "the error says what it waited for")
}
