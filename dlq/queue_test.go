package dlq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
)

var errBank = errors.New("card declined")

type queueOrder struct{ ID string }

var queueOrders = wherry.Event[queueOrder]{Topic: "orders"}

// queueHandler is a route of topic orders.
func queueHandler(h wherry.Handler) []wherry.Route {
	return []wherry.Route{{Topic: "orders", Handler: h}}
}

// queueFails is a handler that fails with err for the keys given, for all if
// none is.
func queueFails(err error, keys ...string) wherry.Handler {
	return func(_ context.Context, r *kgo.Record) error {
		if len(keys) == 0 || slices.Contains(keys, string(r.Key)) {
			return err
		}
		return nil
	}
}

// queueWraps is a policy that sees what the handler returned.
func queueWraps(f func(context.Context, error) error) wherry.Policy {
	return wherry.Middleware(func(next wherry.Handler) wherry.Handler {
		return func(ctx context.Context, r *kgo.Record) error { return f(ctx, next(ctx, r)) }
	})
}

// queueLetter awaits the next dead letter.
func queueLetter(t *testing.T, k *kafkatest.Cluster, topic string) *dlq.Letter {
	t.Helper()
	l, err := dlq.Read(kafkatest.NextRecord(t, k, topic))
	require.NoError(t, err)
	return l
}

// queueCommitted returns what the group of a Consumer that has ended committed.
func queueCommitted(t *testing.T, k *kafkatest.Cluster, group string) int64 {
	t.Helper()
	all, err := kadm.NewClient(k.Client(t)).FetchOffsets(t.Context(), group)
	require.NoError(t, err)
	o, ok := all.Lookup("orders", 0)
	if !ok {
		return -1
	}
	return o.At
}

func TestARecordThatFailsBecomesADeadLetterAndTheNextIsHandled(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:1", "done:1")
	done := wherry.Event[string]{Topic: "done"}
	stop := kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "billing", Policies: []wherry.Policy{&dlq.Queue{Topic: "billing.dlq"}},
		Handlers: queueHandler(func(ctx context.Context, r *kgo.Record) error {
			err := done.Publish(ctx, string(r.Key), "paid")
			if string(r.Key) == "bad" {
				return fmt.Errorf("paying: %w", errors.Join(err, errBank))
			}
			return err
		}),
	})
	sent := kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders", Key: []byte("bad"), Value: []byte("{"), Headers: textHeaders("tenant:a")})
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders", Key: []byte("good")})

	require.Equal(t, "good", string(kafkatest.NextRecord(t, k, "done").Key), "what the handler staged for the letter is dropped")
	l := queueLetter(t, k, "billing.dlq")
	require.Equal(t, dlq.FormatWherry, l.Format)
	require.Equal(t, []any{"orders", int32(0), sent.Offset, "billing"}, []any{l.Topic, l.Partition, l.Offset, l.Group})
	require.WithinDuration(t, sent.Timestamp, l.Timestamp, time.Millisecond)
	require.Equal(t, []any{[]byte("bad"), []byte("{"), sent.Headers}, []any{l.Key, l.Value, l.Headers})
	require.Equal(t, []any{wherry.CauseFailed, "paying: card declined", 1, 0}, []any{l.Cause, l.Error, l.Attempts, l.Replays})
	require.False(t, l.Failed.Before(l.FirstFailed))
	require.WithinDuration(t, time.Now(), l.Failed, time.Minute)
	require.Equal(t, "bad", string(l.Record.Key))
	require.NoError(t, stop())
	require.EqualValues(t, 2, queueCommitted(t, k, "billing"))
}

func TestTheLetterTellsTheCause(t *testing.T) {
	t.Parallel()
	first := time.Now().Add(-time.Hour).UTC()
	tests := []struct {
		name    string
		handler wherry.Handler
		policy  wherry.Policy
		check   func(t *testing.T, l *dlq.Letter)
	}{
		{name: "failed", handler: queueFails(fmt.Errorf("a: %w", fmt.Errorf("b: %w", errBank))), check: func(t *testing.T, l *dlq.Letter) {
			require.Equal(t, []any{wherry.CauseFailed, "a: b: card declined", "*errors.errorString"}, []any{l.Cause, l.Error, l.ErrorType})
		}},
		{name: "permanent", handler: queueFails(wherry.Permanent(&wherry.TopicError{Topic: "x", Err: errBank})), check: func(t *testing.T, l *dlq.Letter) {
			require.Equal(t, []any{wherry.CausePermanent, "topic x: card declined", "*wherry.TopicError"}, []any{l.Cause, l.Error, l.ErrorType})
		}},
		{name: "undecodable", handler: queueOrders.Handler(func(context.Context, queueOrder) error { return nil }).Handler, check: func(t *testing.T, l *dlq.Letter) {
			require.Equal(t, wherry.CauseUndecodable, l.Cause)
			require.Equal(t, "not json", string(l.Value))
			require.NotContains(t, l.Error, "orders/0@0", "the letter says so elsewhere")
		}},
		{name: "panic", handler: func(context.Context, *kgo.Record) error { panic(errBank) }, check: func(t *testing.T, l *dlq.Letter) {
			require.Equal(t, []any{wherry.CausePanic, "panic: card declined"}, []any{l.Cause, l.Error})
			require.Contains(t, l.Stack, "queue_test.go")
		}},
		{
			name: "exhausted", handler: queueFails(errBank),
			policy: queueWraps(func(_ context.Context, err error) error {
				return &wherry.RecordError{Cause: wherry.CauseExhausted, Attempts: 4, First: first, Err: err}
			}),
			check: func(t *testing.T, l *dlq.Letter) {
				require.Equal(t, []any{wherry.CauseExhausted, "card declined", 4, "*errors.errorString"}, []any{l.Cause, l.Error, l.Attempts, l.ErrorType})
				require.True(t, l.FirstFailed.Equal(first))
				require.True(t, l.Failed.After(first))
			},
		},
		{
			name: "expired", handler: queueFails(&wherry.RecordError{Cause: wherry.CauseExpired, Err: errBank}),
			check: func(t *testing.T, l *dlq.Letter) { require.Equal(t, wherry.CauseExpired, l.Cause) },
		},
		{
			name: "an Error method that panics", handler: queueFails(&queueBadError{}),
			check: func(t *testing.T, l *dlq.Letter) {
				require.Equal(t, "(the Error method of *dlq_test.queueBadError panicked)", l.Error)
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "orders:1")
			policies := []wherry.Policy{&dlq.Queue{Topic: "billing.dlq"}}
			if test.policy != nil {
				policies = append(policies, test.policy)
			}
			kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "billing", Policies: policies, Handlers: queueHandler(test.handler)})
			kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders", Key: []byte("o-1"), Value: []byte("not json")})
			test.check(t, queueLetter(t, k, "billing.dlq"))
		})
	}
}

type queueBadError struct{ text *string }

func (e *queueBadError) Error() string { return *e.text }

// Poison: bytes that do not decode go to the dead letters unchanged.
func TestBytesOfARecordAreKept(t *testing.T) {
	t.Parallel()
	for _, format := range letterFormats {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "orders:1", "billing.dlq:1")
			kafkatest.Run(t, &wherry.Consumer{
				Client: k.Client(t), Group: "billing", Policies: []wherry.Policy{&dlq.Queue{Topic: "billing.dlq", Format: format}},
				Handlers: []wherry.Route{queueOrders.Handler(func(context.Context, queueOrder) error { return nil })},
			})
			poison := []*kgo.Record{
				{},
				{Key: []byte{}, Value: []byte{}},
				{Key: []byte{0xff, 0}, Value: []byte{0xc3, 0x28}, Headers: []kgo.RecordHeader{{Key: "a", Value: nil}, {Key: "b", Value: []byte{}}, {Key: "a", Value: []byte{0xff}}}},
				{Key: []byte("k"), Value: []byte(` {"ID": 5, "ID": "x" }`)},
			}
			for _, r := range poison {
				sent := *r
				sent.Topic = "orders"
				kafkatest.SendRecord(t, k, &sent)
			}
			for _, r := range poison {
				l := queueLetter(t, k, "billing.dlq")
				require.Equal(t, format, l.Format)
				require.Equal(t, wherry.CauseUndecodable, l.Cause)
				again := l.Original()
				require.Equal(t, r.Key, again.Key)
				require.Equal(t, r.Value, again.Value)
				requireHeaders(t, r.Headers, again.Headers)
			}
		})
	}
}

// A letter has what was read, not what a policy outside made of it, nor what a
// handler did to the record in order to forward it.
func TestTheLetterIsOfTheRecordAsItWasRead(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:1")
	decrypts := wherry.Middleware(func(next wherry.Handler) wherry.Handler {
		return func(ctx context.Context, r *kgo.Record) error {
			plain := *r
			plain.Value = []byte("plain")
			return next(ctx, &plain)
		}
	})
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "billing", Policies: []wherry.Policy{decrypts, &dlq.Queue{Topic: "billing.dlq"}},
		Handlers: queueHandler(func(ctx context.Context, _ *kgo.Record) error {
			wherry.RecordFrom(ctx).Topic = "elsewhere"
			return errBank
		}),
	})
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders", Value: []byte("secret")})
	l := queueLetter(t, k, "billing.dlq")
	require.Equal(t, []string{"orders", "secret"}, []string{l.Topic, string(l.Value)})
}

func TestARecordThatWasReplayedKeepsItsCount(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:1", "billing.dlq:1")
	kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "billing", Policies: []wherry.Policy{&dlq.Queue{Topic: "billing.dlq"}}, Handlers: queueHandler(queueFails(errBank))})
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders", Headers: textHeaders("a:1", "wherry-dlq-replays:2", "b:2")})
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders", Headers: textHeaders("a:1", "wherry-dlq-topic:orders", "wherry-dlq-error:before", "wherry-dlq-stack:before", "wherry-dlq-replays:5")})
	l := queueLetter(t, k, "billing.dlq")
	require.Equal(t, 2, l.Replays)
	require.Equal(t, textHeaders("a:1", "b:2"), l.Headers)
	l = queueLetter(t, k, "billing.dlq")
	require.Equal(t, 5, l.Replays)
	require.Equal(t, textHeaders("a:1"), l.Headers)
	require.Empty(t, l.Stack)
	require.Len(t, slices.DeleteFunc(l.Record.Headers, func(h kgo.RecordHeader) bool { return h.Key != "wherry-dlq-error" }), 1, "stale ones are replaced")
}

// A Consumer that reads dead letters may dead-letter them in its turn.
func TestADeadLetterThatFailsInItsTurnKeepsWhatItTells(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "billing.dlq:1")
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "repair", Policies: []wherry.Policy{&dlq.Queue{Topic: "repair.dlq"}},
		Handlers: []wherry.Route{{Topic: "billing.dlq", Handler: queueFails(errBank)}},
	})
	first, err := letterOf(dlq.FormatWherry).Encode("billing.dlq")
	require.NoError(t, err)
	kafkatest.SendRecord(t, k, first)
	l := queueLetter(t, k, "repair.dlq")
	require.Equal(t, "billing.dlq", l.Topic)
	inner, err := dlq.Read(l.Original())
	require.NoError(t, err)
	require.Equal(t, []any{"order.created", int64(42), "card declined", "goroutine 1"}, []any{inner.Topic, inner.Offset, inner.Error, inner.Stack})
}

// Work that was cut short is not dead-lettered, and comes again.
func TestWorkCutShortIsNotDeadLettered(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:1", "billing.dlq:1")
	began := make(chan struct{}, 1)
	consumer := func(h wherry.Handler) *wherry.Consumer {
		return &wherry.Consumer{Client: k.Client(t), Group: "billing", Drain: 50 * time.Millisecond, Policies: []wherry.Policy{&dlq.Queue{Topic: "billing.dlq"}}, Handlers: queueHandler(h)}
	}
	stop := kafkatest.Run(t, consumer(func(ctx context.Context, _ *kgo.Record) error {
		began <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}))
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders", Key: []byte("o-1")})
	<-began
	require.NoError(t, stop())

	kafkatest.Run(t, consumer(queueFails(errBank)))
	require.Equal(t, "card declined", queueLetter(t, k, "billing.dlq").Error)
}

func TestFaultsOfAQueueComeAllAtOnce(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:1")
	run := func(q *dlq.Queue) error {
		return (&wherry.Consumer{Client: k.Client(t), Policies: []wherry.Policy{q}, Handlers: queueHandler(queueFails(nil))}).Run(t.Context())
	}
	err := run(&dlq.Queue{Format: "xml", Gate: dlq.Gate{Probe: -time.Second, MaxProbe: time.Second}})
	for _, part := range []string{"no group", "set Queue.Topic", `Queue.Format is "xml"`, "must not be negative"} {
		require.ErrorContains(t, err, part)
	}
	require.ErrorContains(t, run(&dlq.Queue{Topic: "orders"}), "never go into their own source")
	require.ErrorContains(t, run(&dlq.Queue{Topic: "billing.dlq", Gate: dlq.Gate{MaxProbe: time.Second}}), "shorter than Gate.Probe, 5s")
}

// queueHop is a policy that has its Consumer read another topic as orders.
type queueHop struct{ topic string }

func (queueHop) Wrap(next wherry.Handler) wherry.Handler { return next }
func (h queueHop) Prepare(s *wherry.Setup) error {
	s.Subscribe(wherry.Hop{Topic: h.topic, As: "orders", Origin: func(r *kgo.Record) (*kgo.Record, error) {
		return &kgo.Record{Topic: "orders", Partition: 7, Offset: 70, Key: r.Key, Value: []byte("origin"), Timestamp: time.UnixMilli(1000)}, nil
	}})
	return nil
}

func TestTheLetterOfAHopIsThatOfItsOrigin(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:1", "orders.later:1")
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "billing", Policies: []wherry.Policy{&dlq.Queue{Topic: "billing.dlq"}, queueHop{"orders.later"}},
		Handlers: queueHandler(queueFails(errBank)),
	})
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders.later", Key: []byte("o-1"), Value: []byte("hop")})
	l := queueLetter(t, k, "billing.dlq")
	require.Equal(t, []any{"orders", int32(7), int64(70), "origin", int64(1000)}, []any{l.Topic, l.Partition, l.Offset, string(l.Value), l.Timestamp.UnixMilli()})
}

// Another policy may subscribe to the dead-letter topic after the Queue was
// asked: its letters would come round for ever.
func TestLettersNeverGoIntoTheirOwnSource(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:1", "billing.dlq:1")
	c := &wherry.Consumer{
		Client: k.Client(t), Group: "billing", Policies: []wherry.Policy{&dlq.Queue{Topic: "billing.dlq"}, queueHop{"billing.dlq"}},
		Handlers: queueHandler(queueFails(errBank)),
	}
	end := make(chan error, 1)
	go func() { end <- c.Run(t.Context()) }()
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "billing.dlq", Key: []byte("o-1")})
	select {
	case err := <-end:
		require.ErrorContains(t, err, "never go into their own source")
	case <-time.After(k.Timeout):
		require.Fail(t, "the Consumer goes on")
	}
}

func TestAQueueServesSeveralConsumersAtOnce(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:1", "billing.dlq:1")
	q := &dlq.Queue{Topic: "billing.dlq"}
	for _, group := range []string{"a", "b"} {
		kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: group, Policies: []wherry.Policy{q}, Handlers: queueHandler(queueFails(errBank))})
	}
	kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders"})
	groups := []string{queueLetter(t, k, "billing.dlq").Group, queueLetter(t, k, "billing.dlq").Group}
	slices.Sort(groups)
	require.Equal(t, "a b", strings.Join(groups, " "))
}
