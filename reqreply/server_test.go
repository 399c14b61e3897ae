package reqreply_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/retry"
)

// handled counts the calls of find.
func handled(n *atomic.Int64) func(context.Context, string) (*user, error) {
	return func(ctx context.Context, id string) (*user, error) {
		n.Add(1)
		return find(ctx, id)
	}
}

func TestAnEventIsHandledAndNotAnswered(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1", "user.getUser.reply:1")
	counts, _ := serve(t, k, &wherry.Consumer{}, getUser.Handler(find))
	kafkatest.SendRecord(t, k, asked("u1", "", "user.getUser.reply", "0"))
	kafkatest.SendRecord(t, k, asked("u2", "id", "", "0"))
	null := asked("u3", "id", "", "")
	null.Headers = append(null.Headers, kgo.RecordHeader{Key: "kafka_replyTopic"})
	kafkatest.SendRecord(t, k, null)
	kafkatest.SendRecord(t, k, asked("u4", "the-id", "user.getUser.reply", ""))
	reply := kafkatest.NextRecord(t, k, "user.getUser.reply")
	require.Equal(t, "the-id", headerOf(reply, "kafka_correlationId"), "the one that asked")
	s := counts()
	require.EqualValues(t, 3, s.Events)
	require.EqualValues(t, 1, s.Requests)
	require.EqualValues(t, 4, s.Calls)
}

func TestAnErrorOfAnEventGoesToThePolicies(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1", "user.getUser.reply:1")
	var calls atomic.Int64
	serve(t, k, &wherry.Consumer{Policies: []wherry.Policy{&dlq.Queue{Topic: "users.dlq"}, reqreply.Faults{}, retry.Policy{Initial: 1}}}, getUser.Handler(handled(&calls)))
	kafkatest.SendRecord(t, k, asked("refused", "", "", ""))
	l, err := dlq.Read(kafkatest.NextRecord(t, k, "users.dlq"))
	require.NoError(t, err)
	require.Equal(t, wherry.CausePermanent, l.Cause)
	require.EqualValues(t, 1, calls.Load(), "an Error is permanent")
}

// Nobody may have a server write to where it pleases, nor stop it.
func TestHostileRequestsAreRefusedAndTheServerGoesOn(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1", "user.getUser.reply:1", "payments:1", "user.getUser.saga.inbox:1")
	var calls atomic.Int64
	counts, stop := serve(t, k, &wherry.Consumer{}, getUser.Handler(handled(&calls)))
	hostile := map[string]*kgo.Record{
		"a topic that is not allowed":        asked("u1", "id", "payments", "0"),
		"the topic of the requests":          asked("u1", "id", "user.getUser", "0"),
		"a topic that does not exist":        asked("u1", "id", "nowhere.reply", "0"),
		"a topic with an impossible name":    asked("u1", "id", "no such/topic.reply", "0"),
		"a name of a megabyte":               asked("u1", "id", strings.Repeat("x", 900_000)+".reply", "0"),
		"a correlation id of a megabyte":     asked("u1", strings.Repeat("x", 900_000), "user.getUser.reply", "0"),
		"a partition that there is not":      asked("u1", "id", "user.getUser.reply", "1"),
		"a negative partition":               asked("u1", "id", "user.getUser.reply", "-1"),
		"a negative partition of four bytes": asked("u1", "id", "user.getUser.reply", "\xff\xff\xff\xff"),
		"no partition":                       asked("u1", "id", "user.getUser.reply", "zero"),
		"a partition beyond all":             asked("u1", "id", "user.getUser.reply", "99999999999999999999"),
	}
	for name, r := range hostile {
		t.Log(name)
		kafkatest.SendRecord(t, k, r)
	}
	many := asked("u1", "id", "payments", "0") // of several the last counts
	for i := range 10_000 {
		many.Headers = append(many.Headers, kgo.RecordHeader{Key: fmt.Sprint("h", i%7), Value: bytes.Repeat([]byte{0}, 40)})
	}
	many.Headers = append(many.Headers, kgo.RecordHeader{Key: "kafka_replyTopic", Value: []byte("user.getUser.reply")},
		kgo.RecordHeader{Key: "kafka_replyPartition", Value: []byte{0, 0, 0, 0}}, kgo.RecordHeader{Key: "kafka_correlationId", Value: []byte("last")})
	kafkatest.SendRecord(t, k, many)

	reply := kafkatest.NextRecord(t, k, "user.getUser.reply")
	require.Equal(t, "last", headerOf(reply, "kafka_correlationId"))
	require.EqualValues(t, len(hostile), counts().Refused)
	require.EqualValues(t, 1, calls.Load(), "what is refused is not handled")

	kafkatest.SendRecord(t, k, asked("u1", "saga", "user.getUser.saga.inbox", "0"))
	kafkatest.NextRecord(t, k, "user.getUser.saga.inbox")
	kafkatest.None(t, k, wherry.Event[string]{Topic: "payments"}, 50*time.Millisecond)
	require.NoError(t, stop())
}

func TestAllowIsSettable(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1", "user.getUser.reply:1", "answers:1")
	m := getUser
	m.Allow = func(topic string) bool { return topic == "answers" }
	m.ReplyTopic = "answers"
	counts, _ := serve(t, k, &wherry.Consumer{}, m.Handler(find))
	kafkatest.SendRecord(t, k, asked("u1", "id", "user.getUser.reply", "0"))
	_, err := m.Call(within(t, patience), caller(t, k, m), "u1")
	require.NoError(t, err)
	require.EqualValues(t, 1, counts().Refused)
}

func TestWhatNobodyAwaitsIsSkippedAndCounted(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1", "user.getUser.reply:1")
	var calls atomic.Int64
	counts, _ := serve(t, k, &wherry.Consumer{}, getUser.Handler(handled(&calls)))
	late := asked("u1", "late", "user.getUser.reply", "0")
	late.Headers = append(late.Headers, kgo.RecordHeader{Key: "wherry-deadline", Value: []byte(time.Now().Add(-time.Millisecond).UTC().Format(time.RFC3339Nano))})
	kafkatest.SendRecord(t, k, late)
	odd := asked("u2", "odd", "user.getUser.reply", "0")
	odd.Headers = append(odd.Headers, kgo.RecordHeader{Key: "wherry-deadline", Value: []byte("tomorrow")})
	kafkatest.SendRecord(t, k, odd)
	require.Equal(t, "odd", headerOf(kafkatest.NextRecord(t, k, "user.getUser.reply"), "kafka_correlationId"))
	require.EqualValues(t, 1, counts().Expired)
	require.EqualValues(t, 1, calls.Load())
}

func TestTheDeadlineEndsTheHandlersContextAndNobodyTriesAgain(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1", "user.getUser.reply:1", "effects:1")
	var calls atomic.Int64
	effects := wherry.Event[string]{Topic: "effects"}
	counts, stop := serve(t, k, &wherry.Consumer{Policies: []wherry.Policy{retry.Policy{Initial: 1}}}, getUser.Handler(func(ctx context.Context, id string) (*user, error) {
		if id == "quick" {
			return find(ctx, id)
		}
		calls.Add(1)
		if err := effects.Publish(ctx, "", "half"); err != nil {
			return nil, err
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	c := caller(t, k, getUser)
	_, err := getUser.Call(within(t, 200*time.Millisecond), c, "slow")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = getUser.Call(within(t, patience), c, "quick")
	require.NoError(t, err)
	require.EqualValues(t, 1, calls.Load())
	require.EqualValues(t, 1, counts().Expired)
	kafkatest.None(t, k, effects, 20*time.Millisecond)
	require.NoError(t, stop())
}

func TestWhatFailedPublishesNothingButItsAnswer(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1", "user.getUser.reply:1", "effects:1")
	effects := wherry.Event[string]{Topic: "effects"}
	serve(t, k, &wherry.Consumer{}, getUser.Handler(func(ctx context.Context, id string) (*user, error) {
		if err := effects.Publish(ctx, "", id); err != nil {
			return nil, err
		}
		if id == "final" {
			return nil, wherry.Permanent(errors.New("no such tariff"))
		}
		return find(ctx, id)
	}))
	c := caller(t, k, getUser)
	var answer *reqreply.Error
	_, err := getUser.Call(within(t, patience), c, "refused")
	require.ErrorAs(t, err, &answer)
	_, err = getUser.Call(within(t, patience), c, "final")
	require.ErrorAs(t, err, &answer)
	require.Equal(t, "permanent", answer.Code)
	require.Equal(t, "no such tariff", answer.Message)
	_, err = getUser.Call(within(t, patience), c, "u1")
	require.NoError(t, err)
	require.Equal(t, "u1", kafkatest.Next(t, k, effects), "that of the one that succeeded, and no other")
	kafkatest.None(t, k, effects, 20*time.Millisecond)
}

func TestFaultsAnswersWhenAllAttemptsFailedAndTheDeadLetterIsWritten(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1", "user.getUser.reply:1")
	var calls atomic.Int64
	serve(t, k, &wherry.Consumer{Policies: []wherry.Policy{
		&dlq.Queue{Topic: "users.dlq"}, reqreply.Faults{}, retry.Policy{Attempts: 3, Initial: time.Millisecond},
	}}, getUser.Handler(func(_ context.Context, id string) (*user, error) {
		if calls.Add(1); id == "panic" {
			panic("the password is secret")
		}
		return nil, errors.New("the database at 10.0.0.1 is down")
	}))
	c := caller(t, k, getUser)
	for id, code := range map[string]string{"u1": "exhausted", "panic": "exhausted"} {
		calls.Store(0)
		_, err := getUser.Call(within(t, patience), c, id)
		var answer *reqreply.Error
		require.ErrorAs(t, err, &answer)
		require.Equal(t, code, answer.Code)
		require.NotContains(t, answer.Message, "10.0.0.1", "what goes on inside is not told")
		require.NotContains(t, answer.Message, "secret")
		require.EqualValues(t, 3, calls.Load())
		l, err := dlq.Read(kafkatest.NextRecord(t, k, "users.dlq"))
		require.NoError(t, err)
		require.Equal(t, id, string(l.Value))
		require.Equal(t, 3, l.Attempts)
	}
}

func TestFaultsAnswersOnceWithAttemptsOverDelayTopics(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1", "user.getUser.reply:1")
	serve(t, k, &wherry.Consumer{Policies: []wherry.Policy{
		&dlq.Queue{Topic: "users.dlq"}, reqreply.Faults{}, retry.Topics{Policy: retry.Policy{Attempts: 2, Initial: 20 * time.Millisecond}},
	}}, getUser.Handler(func(context.Context, string) (*user, error) { return nil, errors.New("down") }))
	c := caller(t, k, getUser)
	_, err := getUser.Call(within(t, patience), c, "u1")
	var answer *reqreply.Error
	require.ErrorAs(t, err, &answer)
	require.Equal(t, "exhausted", answer.Code)
	kafkatest.NextRecord(t, k, "users.dlq")
	require.Zero(t, c.Status().Late, "one answer")
}

func TestARequestThatDoesNotDecode(t *testing.T) {
	t.Parallel()
	sum := reqreply.Method[[]int, int]{Topic: "sum"}
	bad := reqreply.Method[string, int]{Topic: "sum"} // the same topic, as another program may see it
	k := kafkatest.NewCluster(t, "sum:1", "sum.reply:1")
	handler := sum.Handler(func(_ context.Context, ns []int) (n int, _ error) {
		for _, i := range ns {
			n += i
		}
		return n, nil
	})
	_, stop := serve(t, k, &wherry.Consumer{Policies: []wherry.Policy{&dlq.Queue{Topic: "sum.dlq"}, reqreply.Faults{}}}, handler)
	c := caller(t, k, sum)
	_, err := bad.Call(within(t, patience), c, "one and two")
	var answer *reqreply.Error
	require.ErrorAs(t, err, &answer)
	require.Equal(t, "undecodable", answer.Code)
	require.ErrorContains(t, err, "could not be read")
	l, err := dlq.Read(kafkatest.NextRecord(t, k, "sum.dlq"))
	require.NoError(t, err)
	require.Equal(t, wherry.CauseUndecodable, l.Cause)
	n, err := sum.Call(within(t, patience), c, []int{1, 2})
	require.NoError(t, err)
	require.Equal(t, 3, n)
	require.NoError(t, stop())

	// Without dead letters: Done makes the answer the end of it.
	serve(t, k, &wherry.Consumer{Policies: []wherry.Policy{reqreply.Faults{Done: true, Error: func(error) *reqreply.Error {
		return &reqreply.Error{Code: "400", Message: "Bad Request"}
	}}}}, handler)
	_, err = bad.Call(within(t, patience), c, "one and two")
	require.ErrorAs(t, err, &answer)
	require.Equal(t, "400", answer.Code)
	_, err = sum.Call(within(t, patience), c, []int{1})
	require.NoError(t, err)
}

func TestAnAnswerThatIsTooLargeIsAnErrorToTheCaller(t *testing.T) {
	t.Parallel()
	big := reqreply.Method[int, string]{Topic: "big"}
	handler := big.Handler(func(_ context.Context, n int) (string, error) {
		noise := make([]byte, n/2) // brokers measure what was compressed
		_, _ = rand.Read(noise)
		return hex.EncodeToString(noise), nil
	})
	for name, config := range map[string]map[string]string{"for the client": nil, "for the topic": {"max.message.bytes": "10000"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "big:1")
			k.Create(t, kafkatest.Topic{Name: "big.reply", Partitions: 1, Config: config})
			serve(t, k, &wherry.Consumer{Policies: []wherry.Policy{&dlq.Queue{Topic: "big.dlq"}, reqreply.Faults{}}}, handler)
			c := caller(t, k, big)
			_, err := big.Call(within(t, patience), c, map[bool]int{true: 1_100_000, false: 50_000}[config == nil])
			var answer *reqreply.Error
			require.ErrorAs(t, err, &answer)
			require.Equal(t, reqreply.CodeTooLarge, answer.Code)
			s, err := big.Call(within(t, patience), c, 10)
			require.NoError(t, err)
			require.Len(t, s, 10)
		})
	}
}
