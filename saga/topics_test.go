package saga_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
	"github.com/wherry-go/wherry/saga"
)

// A log that never expires is cut below what is committed.
func TestS1_WhatWasHandledIsDeletedFromTheInbox(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(3 * time.Minute)
		var l diary
		e := engine(t, k, trip(l.step("a"), saga.Step[order]{Name: "b", Do: l.do("b"), NoUndo: true}))
		kafkatest.Run(t, e)
		for i := range 50 {
			require.NoError(t, e.Start(t.Context(), strconv.Itoa(i), order{}))
		}
		adm := kadm.NewClient(k.Client(t))
		left := func() (n int64) {
			starts, err := adm.ListStartOffsets(t.Context(), "trip.saga.inbox")
			require.NoError(t, err)
			ends, err := adm.ListEndOffsets(t.Context(), "trip.saga.inbox")
			require.NoError(t, err)
			ends.Each(func(o kadm.ListedOffset) {
				s, _ := starts.Lookup(o.Topic, o.Partition)
				n += o.Offset - s.Offset
			})
			return n
		}
		require.EqualValues(t, 50, left())
		k.Sleep(t, 2*time.Minute)
		require.Equal(t, 50, e.Status().Ended)
		require.Zero(t, left())
		require.NoError(t, e.Start(t.Context(), "more", order{}))
		k.Sleep(t, time.Second)
		require.Equal(t, 51, e.Status().Ended, "it goes on after")
	})
}

func TestS1_WhatIsInHandStaysInTheInbox(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(3 * time.Minute)
		var l diary
		def := trip(saga.Step[order]{Name: "a", NoUndo: true, Do: saga.Do(func(ctx context.Context, o order) error {
			if o.Total == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			l.add(ctx, "a")
			return nil
		})})
		e := engine(t, k, def)
		e.Topics.Partitions = 1
		stop := kafkatest.Run(t, e)
		require.NoError(t, e.Start(t.Context(), "slow", order{Total: 1}))
		for i := range 50 {
			require.NoError(t, e.Start(t.Context(), strconv.Itoa(i), order{}))
		}
		k.Sleep(t, 3*time.Minute)
		require.Equal(t, 50, e.Status().Ended)
		starts, err := kadm.NewClient(k.Client(t)).ListStartOffsets(t.Context(), "trip.saga.inbox")
		require.NoError(t, err)
		require.Zero(t, starts["trip.saga.inbox"][0].Offset)
		require.NoError(t, stop())
		def.Steps[0].Do = l.do("a")
		e = engine(t, k, def)
		kafkatest.Run(t, e)
		k.Sleep(t, time.Minute)
		require.Equal(t, []string{"a"}, l.of("slow"))
	})
}

// Partitions that are added later are not used, whoever starts, and whatever a
// producer of old does.
func TestS3_GrowingATopicSplitsNoSaga(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	var l diary
	def := trip(l.step("a"), saga.Step[order]{Name: "b", Do: l.fail("b", errFailed, nil), NoUndo: true, Retry: retry.Policy{Initial: 50 * time.Millisecond}})
	first := engine(t, k, def)
	first.Topics.Partitions = 2
	stop := kafkatest.Run(t, first)
	const n = 60
	for i := range n {
		require.NoError(t, first.Start(t.Context(), strconv.Itoa(i), order{}))
	}
	require.NoError(t, stop())
	adm := kadm.NewClient(k.Client(t))
	grow := func(topic string) {
		resp, err := adm.UpdatePartitions(t.Context(), 8, topic)
		require.NoError(t, err)
		require.NoError(t, resp.Error())
		await(t, "all brokers know it", func() bool {
			cl := k.Client(t)
			defer cl.Close()
			found, err := kadm.NewClient(cl).ListTopics(t.Context(), topic)
			return err == nil && len(found[topic].Partitions) == 8
		})
	}
	grow("trip.saga.inbox")
	err := engine(t, k, def).Run(t.Context())
	require.ErrorContains(t, err, "kafka-topics --alter --topic trip.saga.state --partitions 8")
	grow("trip.saga.state")
	var warned warnings
	second := engine(t, k, def)
	second.Logger = warned.logger()
	kafkatest.Run(t, second)
	require.EqualValues(t, 2, second.Status().Partitions)
	require.Contains(t, warned.text(), "partitions were added")
	for i := range n { // again, by one that learns now how many count
		require.NoError(t, engine(t, k, def).Start(t.Context(), strconv.Itoa(i), order{}))
		require.NoError(t, second.Start(t.Context(), fmt.Sprint("new-", i), order{}))
	}
	// A foreign producer that goes by the number of partitions.
	foreign := k.Client(t)
	for i := range n {
		r := &kgo.Record{Topic: "trip.saga.inbox", Key: fmt.Append(nil, "foreign-", i), Value: []byte("{}")}
		r.Headers = []kgo.RecordHeader{{Key: "wherry-saga-kind", Value: []byte("start")}}
		require.NoError(t, foreign.ProduceSync(t.Context(), r).FirstErr())
	}
	await(t, "the sagas end", func() bool { return second.Status().Ended == 3*n })
	for id, s := range lastOf(t, k, "trip") {
		require.Equal(t, saga.Done, s.Phase, id)
		require.Less(t, s.Partition, int32(2), id)
	}
	noLetters(t, k)
}

func TestS4_WrongSettingsAreRefusedWithHowToMendThem(t *testing.T) {
	t.Parallel()
	var l diary
	def := trip(saga.Step[order]{Name: "a", Do: l.do("a"), NoUndo: true})
	setting := func(s string) *string { return &s }
	tests := []struct {
		name   string
		topic  string
		config map[string]*string
		want   []string
	}{
		{"an inbox that expires", "trip.saga.inbox", map[string]*string{"retention.ms": setting("60000")}, []string{`retention.ms is "60000"`, "--add-config retention.ms=-1"}},
		{"an inbox that is compacted", "trip.saga.inbox", map[string]*string{"cleanup.policy": setting("compact"), "retention.ms": setting("-1")}, []string{"--add-config cleanup.policy=delete"}},
		{"a state that is deleted", "trip.saga.state", map[string]*string{"cleanup.policy": setting("delete")}, []string{"--add-config cleanup.policy=compact"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t)
			_, err := kadm.NewClient(k.Client(t)).CreateTopic(t.Context(), 4, 1, test.config, test.topic)
			require.NoError(t, err)
			err = engine(t, k, def).Run(t.Context())
			for _, want := range test.want {
				require.ErrorContains(t, err, want)
			}
			require.ErrorContains(t, err, test.topic)
		})
	}
	t.Run("that contradict", func(t *testing.T) {
		t.Parallel()
		e := engine(t, kafkatest.NewCluster(t), def)
		e.Topics.Config = map[string]string{"retention.ms": "5"}
		require.ErrorContains(t, e.Run(t.Context()), "a Changelog has")
	})
	t.Run("an operator may make them", func(t *testing.T) {
		t.Parallel()
		k := kafkatest.NewCluster(t)
		require.NoError(t, wherry.EnsureTopics(t.Context(), k.Client(t), saga.TopicSpecs("trip", wherry.TopicSpec{Partitions: 3})...))
		e := engine(t, k, def)
		e.Topics.Partitions = 12 // of topics to be made
		kafkatest.Run(t, e)
		require.EqualValues(t, 3, e.Status().Partitions)
	})
}

// Start works before any Engine ran.
func TestS33_AStartBeforeAnyEngineRan(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	var l diary
	def := trip(saga.Step[order]{Name: "a", Do: l.do("a"), NoUndo: true})
	starters := []*saga.Engine[order]{engine(t, k, def), engine(t, k, def), engine(t, k, def)}
	errs := make(chan error)
	for i, e := range starters { // each makes the topics, or finds them
		go func() { errs <- e.Start(t.Context(), strconv.Itoa(i), order{}) }()
	}
	for range starters {
		require.NoError(t, <-errs)
	}
	e := engine(t, k, def)
	kafkatest.Run(t, e)
	await(t, "the sagas end", func() bool { return e.Status().Ended == 3 })
}
