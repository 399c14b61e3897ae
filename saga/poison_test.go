package saga_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/saga"
)

// What is no input becomes a dead letter, and its partition moves on.
func TestS26_WhatIsNoInputIsADeadLetter(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	var l diary
	e := engine(t, k, trip(saga.Step[order]{Name: "a", Do: l.do("a"), NoUndo: true}))
	e.Topics.Partitions = 1
	kafkatest.Run(t, e)
	header := func(key, value string) []kgo.RecordHeader {
		return []kgo.RecordHeader{{Key: key, Value: []byte(value)}}
	}
	bad := []*kgo.Record{
		{Value: []byte("nothing")},
		{Key: []byte("o-1"), Value: []byte("{}"), Headers: header("wherry-saga-kind", "new")},
		{Key: []byte("o-1"), Value: []byte("{}"), Headers: header("kafka_correlationId", "0123456789abcdef")},
		{Key: []byte("\x00saga"), Value: []byte("{}"), Headers: header("wherry-saga-kind", "start")},
		{Key: []byte("o-1"), Value: []byte("{}"), Headers: header("wherry-saga-kind", "event")},
		{Key: []byte("o-1"), Value: []byte("{}"), Headers: append(header("wherry-saga-kind", "start"), header("wherry-saga-version", "2")...)},
		{Key: []byte("o-1"), Value: []byte("no JSON"), Headers: header("wherry-saga-kind", "start")},
		{Key: []byte("o-1"), Value: []byte("no JSON"), Headers: header("wherry-saga-kind", "verb")},
		{Value: []byte("\x09"), Headers: header("wherry-saga-kind", "sweep")},
		{Key: []byte("o-1"), Value: []byte("{}"), Headers: append(header("wherry-saga-kind", "query"), kgo.RecordHeader{})}, // asks for nothing
	}
	for _, r := range bad {
		r.Topic = "trip.saga.inbox"
		kafkatest.SendRecord(t, k, r)
	}
	require.NoError(t, e.Start(t.Context(), "o-2", order{}))
	await(t, "the saga ends", func() bool { return e.Status().Ended == 1 })
	await(t, "the letters", func() bool { return len(letters(t, k)) == 8 })
	all := letters(t, k)
	for _, letter := range all { // some were handled side by side
		r := bad[letter.Offset]
		require.Equal(t, r.Value, letter.Value)
		require.Equal(t, r.Key, letter.Key)
		require.Equal(t, r.Headers, letter.Headers)
		require.Equal(t, "trip.saga.inbox", letter.Topic)
		if letter.Cause != wherry.CauseUndecodable {
			require.Contains(t, letter.Error, "of version 2")
		}
	}
	sagas := lastOf(t, k, "trip")
	require.Len(t, sagas, 2)
	require.Equal(t, saga.Quarantined, sagas["o-1"].Phase, "it was started, with a state that does not decode")
	require.Contains(t, sagas["o-1"].Why, "trip.saga.inbox/0@6")
}

// A panic, a reply that does not decode and a state that is too large hold one
// saga and name the input; the others go on.
func TestS26_AFaultHoldsItsSagaAlone(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "ask")
	var l diary
	question := reqreply.Method[order, order]{Topic: "ask"}
	def := trip(
		l.step("first"),
		saga.Step[order]{Name: "ask", Do: saga.Call(question, func(o order) order {
			if o.Total == 1 {
				panic("building")
			}
			return o
		}, func(o *order, r order) {
			if o.Total == 2 {
				panic("applying")
			}
		}), Undo: l.undo("ask"), Timeout: time.Hour},
		saga.Step[order]{Name: "local", Undo: l.undo("local"), Do: saga.Local(func(_ context.Context, o order) (int, error) {
			if o.Total == 3 {
				panic(errors.New("doing"))
			}
			return o.Total, nil
		}, func(o *order, n int) {
			if n == 4 {
				o.Pad = strings.Repeat("x", 2<<20)
			}
		})},
		saga.Step[order]{Name: "last", Do: l.do("last"), NoUndo: true},
	)
	e := engine(t, k, def)
	e.Topics.Partitions = 1
	kafkatest.Run(t, e)
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "asked", Handlers: []wherry.Route{
		question.Handler(func(_ context.Context, o order) (order, error) { return o, nil }),
	}})
	for i := range 6 {
		require.NoError(t, e.Start(t.Context(), strconv.Itoa(i), order{Total: i}))
	}
	var all map[string]saga.Snapshot
	await(t, "all are settled", func() bool {
		all = lastOf(t, k, "trip")
		n := 0
		for _, s := range all {
			if s.Phase.Ended() || s.Phase == saga.Quarantined {
				n++
			}
		}
		return n == 6
	})
	for i, want := range map[int]string{1: "building", 2: "applying", 3: "doing", 4: "MESSAGE_TOO_LARGE"} {
		s := all[strconv.Itoa(i)]
		require.Equal(t, saga.Quarantined, s.Phase, i)
		require.Equal(t, saga.Running, s.Before, i)
		require.Contains(t, s.Why, want)
		require.Contains(t, s.Why, "trip.saga.inbox/0@", "it names the input")
		require.Less(t, len(s.Raw), 100, i)
	}
	for _, i := range []int{0, 5} {
		require.Equal(t, saga.Done, all[strconv.Itoa(i)].Phase, i)
	}
	noLetters(t, k)
	// An operator mends it.
	by := saga.By{Actor: "ann", Reason: "it was told by hand"}
	require.NoError(t, e.Resume(t.Context(), "4", by))
}

// A broker that refuses what a saga sends, which only it can know.
func TestS26_WhatABrokerRefusesHoldsTheSaga(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "told")
	missing := wherry.Event[order]{Topic: "missing"}
	var l diary
	e := engine(t, k, trip(
		l.step("a"),
		saga.Step[order]{Name: "b", Do: l.do("b"), Undo: l.undo("b"), Durable: true},
		saga.Step[order]{Name: "tell", NoUndo: true, Do: saga.Emit(missing, func(o order) order { return o })},
	))
	e.Topics.Partitions = 1
	kafkatest.Run(t, e)
	require.NoError(t, e.Start(t.Context(), "o-1", order{}))
	s := phaseOf(t, k, "o-1", saga.Quarantined)
	require.Contains(t, s.Why, "output to missing")
	require.Equal(t, saga.Running, s.Before)
	noLetters(t, k)
}

func TestS27_AVersionWithoutCodeParksItsSagasUntilItIsBack(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, payingTopics...)
	var l diary
	v1 := paying(&l)
	v2 := trip(saga.Step[order]{Name: "other", Do: l.do("other"), NoUndo: true})
	v2.Version = 2
	v2.Start = v1.Start
	e := engine(t, k, v1)
	stop := kafkatest.Run(t, e)
	for i := range 3 {
		require.NoError(t, e.Start(t.Context(), fmt.Sprint("old-", i), order{Total: i}))
		kafkatest.Next(t, k, orderMade)
	}
	require.NoError(t, stop())

	e = engine(t, k, v2)
	stop = kafkatest.Run(t, e)
	// Nobody reads its topics now but what was routed, and signals, come.
	require.NoError(t, e.Start(t.Context(), "new", order{}))
	await(t, "the new one ends", func() bool { return e.Status().Ended == 1 })
	require.Equal(t, []string{"other"}, l.of("new"))
	kafkatest.SendRecord(t, k, signalRecord("old-0", "paid", `{}`))
	s := phaseOf(t, k, "old-0", saga.Parked)
	require.Contains(t, s.Why, "no code for version 1")
	require.NoError(t, stop())

	e = engine(t, k, v1, v2)
	kafkatest.Run(t, e)
	await(t, "what came meanwhile counts", func() bool { return lastOf(t, k, "trip")["old-0"].Phase == saga.Done })
	for i := range 2 {
		kafkatest.Send(t, k, wasPaid, fmt.Sprint("old-", i+1), payment{})
	}
	require.NoError(t, e.Start(t.Context(), "new-2", order{}))
	await(t, "all end", func() bool { return e.Status().Ended == 5 })
	all := lastOf(t, k, "trip")
	require.Equal(t, 1, all["old-1"].Version)
	require.Equal(t, 2, all["new-2"].Version, "new ones begin with the highest")
	noLetters(t, k)
}

// signalRecord is an event that was routed to a saga.
func signalRecord(id, topic, value string) *kgo.Record {
	r := &kgo.Record{Topic: "trip.saga.inbox", Key: []byte(id), Value: []byte(value)}
	for key, value := range map[string]string{"wherry-saga-kind": "event", "wherry-saga-topic": topic, "wherry-saga-partition": "0", "wherry-saga-offset": "77"} {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
	}
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: "wherry-saga-key", Value: []byte(id)})
	return r
}
