package reqreply_test

import (
	"context"
	"errors"
	"iter"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/header"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

// reserve is a step of a saga. Its answer says who handled it.
var reserve = reqreply.Method[string, handledBy]{Topic: "reserve", Key: func(id string) string { return id }}

type handledBy string

func (h handledBy) Validate() error {
	if h == "" {
		return errors.New("nobody")
	}
	return nil
}

const inbox = "checkout.saga.inbox"

var reserveTopics = []string{"reserve:2", inbox + ":2"}

func by(name string) func(context.Context, string) (handledBy, error) {
	return func(context.Context, string) (handledBy, error) { return handledBy(name), nil }
}

// asSaga sends what a saga asks of reserve and returns the reply.
func asSaga(t *testing.T, k *kafkatest.Cluster, op header.Op, change ...func(*kgo.Record)) (handledBy, error) {
	t.Helper()
	r, err := reserve.Request(t.Context(), op.ID)
	require.NoError(t, err)
	op.Saga, op.Step = "checkout", "reserve"
	op.Attempt = max(op.Attempt, 1)
	op.AddTo(r)
	reqreply.Profile{}.Address(r, op.CorrelationID(1), inbox, 1)
	for _, f := range change {
		f(r)
	}
	kafkatest.SendRecord(t, k, r)
	return reserve.Reply(kafkatest.NextRecord(t, k, inbox))
}

func direction(value string) func(*kgo.Record) {
	return func(r *kgo.Record) { header.Set(r, header.SagaDirection, value) }
}

func requireCode(t *testing.T, code string, err error) {
	t.Helper()
	fault, ok := errors.AsType[*reqreply.Error](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, code, fault.Code, fault.Message)
}

func TestUndoGoesToTheHandlerUndo(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, reserveTopics...)
	counts, _ := serve(t, k, &wherry.Consumer{}, reserve.HandlerUndo(by("undo")), reserve.Handler(by("do")))
	do, undo := header.Op{ID: "o-1"}, header.Op{ID: "o-1", Undo: true}
	for want, op := range map[handledBy]header.Op{"do": do, "undo": undo} {
		got, err := asSaga(t, k, op)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, unknown := range []string{"UNDO", "redo", " undo", "undo\x00"} {
		_, err := asSaga(t, k, do, direction(unknown))
		requireCode(t, reqreply.CodeNoUndo, err)
	}
	got, err := asSaga(t, k, do, direction("")) // one without a value is none
	require.NoError(t, err)
	require.EqualValues(t, "do", got)
	got, err = asSaga(t, k, undo, direction("do"), direction("undo")) // the last one counts
	require.NoError(t, err)
	require.EqualValues(t, "undo", got)

	s := counts()
	require.EqualValues(t, 8, s.Requests)
	require.EqualValues(t, 4, s.Calls)
	require.EqualValues(t, 4, s.Answered)
	require.EqualValues(t, 4, s.Faults)
}

func TestAHandlerNeverTakesAnUndoForADo(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, reserveTopics...)
	counts, stop := serve(t, k, &wherry.Consumer{}, reserve.Handler(by("do")))
	_, err := asSaga(t, k, header.Op{ID: "o-1", Undo: true})
	requireCode(t, reqreply.CodeNoUndo, err)
	require.ErrorContains(t, err, "no HandlerUndo")
	require.Zero(t, counts().Calls)

	// One that nobody awaits is no answer, and an error.
	ended := make(chan error, 1)
	require.NoError(t, stop())
	c := &wherry.Consumer{Client: k.Client(t), Group: "users", Handlers: []wherry.Route{reserve.Handler(by("do"))}}
	go func() { ended <- c.Run(context.Background()) }()
	r := &kgo.Record{Topic: "reserve", Value: []byte("o-1")}
	header.Add(r, header.SagaDirection, "undo")
	kafkatest.SendRecord(t, k, r)
	requireCode(t, reqreply.CodeNoUndo, <-ended)
}

func TestAHandlerUndoNeverDoes(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, reserveTopics...)
	anything := func(*kgo.Record) bool { return true }
	counts, _ := serve(t, k, &wherry.Consumer{}, reserve.HandlerUndo(by("undo")).When(anything))
	_, err := asSaga(t, k, header.Op{ID: "o-1"})
	requireCode(t, reqreply.CodeNoUndo, err)
	require.Zero(t, counts().Calls)
}

func TestAnUndoMayBeAnsweredWithoutAValue(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, reserveTopics...)
	serve(t, k, &wherry.Consumer{}, reserve.HandlerUndo(by("")), reserve.Handler(by("do")))
	got, err := asSaga(t, k, header.Op{ID: "o-1", Undo: true})
	require.NoError(t, err, "which Validate would refuse")
	require.Empty(t, got)
}

func TestUndoWithAStreamHandlerAndFaults(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, reserveTopics...)
	broken := func(context.Context, string) (handledBy, error) { return "", errors.New("broken") }
	parts := func(context.Context, string) iter.Seq2[handledBy, error] {
		return func(yield func(handledBy, error) bool) { yield("part", nil) }
	}
	serve(t, k, &wherry.Consumer{Policies: []wherry.Policy{reqreply.Faults{Done: true}}}, reserve.HandlerUndo(broken), reserve.StreamHandler(parts))
	got, err := asSaga(t, k, header.Op{ID: "o-1"})
	require.NoError(t, err)
	require.EqualValues(t, "part", got)
	_, err = asSaga(t, k, header.Op{ID: "o-1", Undo: true})
	requireCode(t, "failed", err)
}

func TestHandlerUndoIsRefusedWhereItCannotWork(t *testing.T) {
	t.Parallel()
	answers := &wherry.OwnedTable[reqreply.Answered]{Topic: "reserve.answers"}
	kept, other := reserve, reserve
	kept.Dedupe, other.Dedupe = answers, &wherry.OwnedTable[reqreply.Answered]{Topic: "others"}
	exact := func(routes ...wherry.Route) *wherry.Consumer {
		return &wherry.Consumer{Delivery: wherry.ExactlyOnce, Tables: []wherry.Owned{answers, other.Dedupe}, Handlers: routes}
	}
	unordered := exact(kept.HandlerUndo(by("")), kept.Handler(by("")))
	unordered.Order = wherry.Unordered
	k := kafkatest.NewCluster(t)
	for name, test := range map[string]struct {
		c    *wherry.Consumer
		want string
	}{
		"after the Handler":      {exact(reserve.Handler(by("")), reserve.HandlerUndo(by(""))), "put it last"},
		"only one has Dedupe":    {exact(reserve.HandlerUndo(by("")), kept.Handler(by(""))), "need the same Dedupe"},
		"the other one has it":   {exact(kept.HandlerUndo(by("")), reserve.Handler(by(""))), "need the same Dedupe"},
		"another table":          {exact(kept.HandlerUndo(by("")), other.Handler(by(""))), "need the same Dedupe"},
		"in no order":            {unordered, "ByPartition or ByKey"},
		"Dedupe without a table": {&wherry.Consumer{Handlers: []wherry.Route{kept.HandlerUndo(by(""))}}, "Dedupe needs"},
	} {
		test.c.Client, test.c.Group = k.Client(t), "users"
		require.ErrorContains(t, test.c.Run(t.Context()), test.want, name)
	}
}
