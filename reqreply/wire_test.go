package reqreply_test

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

func TestOtherProfilesBothWays(t *testing.T) {
	t.Parallel()
	for name, profile := range map[string]reqreply.Profile{
		"Spring":    reqreply.Spring(),
		"own names": {CorrelationID: "corr", ReplyTopic: "to", ReplyPartition: "at", Error: "err", End: "last"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, topics...)
			m := getUser
			m.Profile, m.Codec = profile, wherry.JSON{}
			serve(t, k, &wherry.Consumer{}, m.Handler(find))
			c := caller(t, k, m)
			u, err := m.Call(within(t, patience), c, "u1")
			require.NoError(t, err)
			require.Equal(t, "Ada", u.Name)
			_, err = m.Call(within(t, patience), c, "refused")
			require.ErrorContains(t, err, "not for you")
			request, reply := kafkatest.NextRecord(t, k, "user.getUser"), kafkatest.NextRecord(t, k, "user.getUser.reply")
			require.JSONEq(t, `"u1"`, string(request.Value))
			if name == "Spring" {
				require.Len(t, headerOf(request, "kafka_correlationId"), 16)
				p := headerOf(request, "kafka_replyPartition")
				require.Len(t, p, 4)
				require.EqualValues(t, reply.Partition, binary.BigEndian.Uint32([]byte(p)))
				return
			}
			require.NotEmpty(t, headerOf(request, "corr"))
			require.Equal(t, headerOf(request, "corr"), headerOf(reply, "corr"))
			require.Empty(t, headerOf(request, "kafka_correlationId"))
			require.Equal(t, "\x00", headerOf(reply, "last"))
		})
	}
}

func TestOneReplyTopicForMethodsOfOneProfile(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "a:1", "b:1", "c:1", "shared.reply:2")
	a := reqreply.Method[string, string]{Topic: "a", ReplyTopic: "shared.reply"}
	b := reqreply.Method[string, int]{Topic: "b", ReplyTopic: "shared.reply", Profile: reqreply.Spring()}
	c := reqreply.Method[string, int]{Topic: "c", ReplyTopic: "shared.reply", Profile: reqreply.Profile{CorrelationID: "corr"}}
	serve(t, k, &wherry.Consumer{}, a.Handler(func(_ context.Context, s string) (string, error) { return s + s, nil }),
		b.Handler(func(_ context.Context, s string) (int, error) { return len(s), nil }))
	from := caller(t, k, a)
	s, err := a.Call(within(t, patience), from, "x")
	require.NoError(t, err)
	require.Equal(t, "xx", s)
	n, err := b.Call(within(t, patience), from, "x")
	require.NoError(t, err)
	require.Equal(t, 1, n)
	_, err = c.Call(within(t, patience), from, "x")
	require.ErrorContains(t, err, "another Profile")
}

// What a hostile or broken server may answer.
func TestHostileReplies(t *testing.T) {
	t.Parallel()
	header := func(key, value string) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: []byte(value)} }
	tests := map[string]struct {
		reply []kgo.RecordHeader
		want  string
	}{
		"a huge error":     {[]kgo.RecordHeader{header("kafka_nest-err", strings.Repeat("x", 900_000))}, "xxx"},
		"a null error":     {[]kgo.RecordHeader{{Key: "kafka_nest-err"}}, "count"},
		"many headers":     {append(slicesOf(header("h", "v"), 50_000), header("kafka_nest-err", "no")), "no"},
		"several errors":   {[]kgo.RecordHeader{header("kafka_nest-err", "first"), header("kafka_nest-err", "last")}, "last"},
		"an odd number":    {[]kgo.RecordHeader{header("wherry-reply-seq", "x"), header("kafka_nest-err", "no")}, "no"},
		"no text at all":   {[]kgo.RecordHeader{header("kafka_nest-err", "\xff\xfe")}, "\uFFFD"},
		"JSON of any kind": {[]kgo.RecordHeader{header("kafka_nest-err", `{"message":{"a":[1]},"code":[2]}`)}, `{"a":[1]}`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "count:1", "count.reply:1")
			c := caller(t, k, count)
			byHand(t, k, test.reply)
			_, err := count.Call(within(t, patience), c, 1)
			var answer *reqreply.Error
			require.ErrorAs(t, err, &answer)
			require.ErrorContains(t, err, test.want)
			require.Less(t, len(answer.Error()), 20_000)
		})
	}
}

func slicesOf(h kgo.RecordHeader, n int) (all []kgo.RecordHeader) {
	for range n {
		all = append(all, h)
	}
	return all
}

func TestAReplyThatDoesNotDecodeIsARecordError(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, topics...)
	serve(t, k, &wherry.Consumer{}, getUser.Handler(find))
	c := caller(t, k)
	for id, want := range map[string]string{"u1": "undecodable", "nobody": "null"} {
		_, err := reqreply.Method[string, int]{Topic: "user.getUser"}.Call(within(t, patience), c, id)
		var bad *wherry.RecordError
		require.ErrorAs(t, err, &bad)
		require.Equal(t, wherry.CauseUndecodable, bad.Cause)
		require.Equal(t, "user.getUser.reply", bad.Topic)
		require.ErrorContains(t, err, want)
	}
}

type even int

func (n even) Validate() error {
	if n%2 != 0 {
		return errors.New("odd")
	}
	return nil
}

func TestValidateIsAskedOnBothSides(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "half:1", "half.reply:1")
	half := reqreply.Method[even, even]{Topic: "half"}
	serve(t, k, &wherry.Consumer{Policies: []wherry.Policy{reqreply.Faults{Done: true}}}, half.Handler(func(_ context.Context, n even) (even, error) { return n / 2, nil }))
	c := caller(t, k, half)
	n, err := half.Call(within(t, patience), c, 4)
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	_, err = half.Call(within(t, patience), c, 3)
	require.ErrorContains(t, err, "odd")
	require.EqualValues(t, 1, c.Status().Sent, "what is invalid is not sent")
	_, err = half.Call(within(t, patience), c, 2) // the answer, 1, is invalid
	var answer *reqreply.Error
	require.ErrorAs(t, err, &answer)
	_, err = reqreply.Method[int, int]{Topic: "half"}.Call(within(t, patience), c, 3)
	require.ErrorAs(t, err, &answer)
	require.Equal(t, "undecodable", answer.Code)
}
