package reqreply_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

func TestARequestWhoseReplyComesElsewhere(t *testing.T) {
	t.Parallel()
	for name, profile := range map[string]reqreply.Profile{
		"NestJS": {},
		"Spring": reqreply.Spring(),
		"own names": {
			CorrelationID: "x-id", ReplyTopic: "x-topic", ReplyPartition: "x-partition", Error: "x-error", End: "x-end",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "user.getUser:2", "elsewhere.reply:3")
			m := getUser
			m.Profile = profile
			m.Key = func(id string) string { return id }
			m.Headers = func(context.Context, string) []kgo.RecordHeader {
				return []kgo.RecordHeader{{Key: "x-tenant", Value: []byte("7")}}
			}
			ids := make(chan string, 10)
			serve(t, k, &wherry.Consumer{}, m.Handler(func(ctx context.Context, id string) (*user, error) {
				ids <- reqreply.CorrelationID(ctx)
				return find(ctx, id)
			}))
			ask := func(req, id string) *kgo.Record {
				r, err := m.Request(t.Context(), req)
				require.NoError(t, err)
				require.Equal(t, req, string(r.Key))
				require.Equal(t, "7", headerOf(r, "x-tenant"))
				require.Empty(t, headerOf(r, "wherry-deadline"))
				profile.Address(r, id, "elsewhere.reply", 2)
				kafkatest.SendRecord(t, k, r)
				reply := kafkatest.NextRecord(t, k, "elsewhere.reply")
				require.EqualValues(t, 2, reply.Partition)
				require.Equal(t, id, profile.ReplyTo(reply))
				require.Equal(t, id, <-ids)
				return reply
			}
			u, err := m.Reply(ask("ada", "by0x.pay.d.1.2"))
			require.NoError(t, err)
			require.Equal(t, &user{ID: "ada", Name: "Ada"}, u)

			u, err = m.Reply(ask("nobody", "0123456789abcdef")) // 16 bytes, as Spring's own
			require.NoError(t, err)
			require.Nil(t, u)

			_, err = m.Reply(ask("refused", "x"))
			fault, ok := errors.AsType[*reqreply.Error](err)
			require.True(t, ok)
			require.Equal(t, "refused", fault.Code)
			require.Equal(t, "user.getUser", fault.Topic)
		})
	}
}

func TestARecordThatIsNoReply(t *testing.T) {
	t.Parallel()
	require.Empty(t, reqreply.Profile{}.ReplyTo(&kgo.Record{}))
	require.Empty(t, reqreply.Spring().ReplyTo(&kgo.Record{Headers: []kgo.RecordHeader{{Key: "kafka_correlationId"}}}))
	_, err := charge.Reply(&kgo.Record{Topic: "charge.reply", Partition: 1, Offset: 7, Value: []byte("{")})
	found, ok := errors.AsType[*wherry.RecordError](err)
	require.True(t, ok)
	require.Equal(t, wherry.CauseUndecodable, found.Cause)
	require.EqualValues(t, 7, found.Offset)
	_, err = charge.Reply(&kgo.Record{Topic: "charge.reply"})
	require.ErrorContains(t, err, "null")
	_, err = charge.Reply(&kgo.Record{Headers: []kgo.RecordHeader{{Key: "kafka_nest-err"}}})
	require.Error(t, err, "present, even empty, means error")
	require.Empty(t, reqreply.CorrelationID(t.Context()))
}

func TestARequestThatCannotBeMade(t *testing.T) {
	t.Parallel()
	m := reqreply.Method[func(), string]{Topic: "m"}
	_, err := m.Request(t.Context(), func() {})
	require.ErrorContains(t, err, "event m: encoding func()")
}
