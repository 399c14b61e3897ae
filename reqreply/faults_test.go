package reqreply_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

// A server without dead letters goes on where outputs of a request are refused
// and there is nobody, any more, who could be told.
func TestFaultsWithDoneBearsWhatNobodyCanBeToldOf(t *testing.T) {
	t.Parallel()
	for name, handle := range map[string]func(context.Context, *testing.T, *kafkatest.Cluster) error{
		"the reply topic is gone, and that is known": func(ctx context.Context, t *testing.T, k *kafkatest.Cluster) error {
			_, err := kadm.NewClient(k.Client(t)).DeleteTopic(ctx, "gone.reply")
			time.Sleep(10 * time.Second)
			return err
		},
		"the deadline has passed": func(ctx context.Context, _ *testing.T, _ *kafkatest.Cluster) error {
			<-ctx.Done()
			return wherry.Event[string]{Topic: "payments"}.Publish(ctx, "", "x")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, []string{"user.getUser:1", "user.getUser.reply:1", "gone.reply:1", "payments:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				if !k.Virtual() {
					t.Skip("needs -tags synctests")
				}
				k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "payments"}, kerr.TopicAuthorizationFailed)
				counts, stop := serve(t, k, &wherry.Consumer{Policies: []wherry.Policy{reqreply.Faults{Done: true}}},
					getUser.Handler(func(ctx context.Context, id string) (*user, error) {
						if id == "last" {
							return &user{ID: id}, nil
						}
						return &user{ID: id}, handle(ctx, t, k)
					}))
				first := asked("first", "id", "gone.reply", "0")
				first.Headers = append(first.Headers, kgo.RecordHeader{Key: "wherry-deadline", Value: time.Now().Add(20*time.Second).AppendFormat(nil, time.RFC3339Nano)})
				kafkatest.SendRecord(t, k, first)
				_, err := getUser.Call(within(t, time.Hour), caller(t, k), "last")
				require.NoError(t, err)
				require.EqualValues(t, 2, counts().Answered, "the first in vain")
				require.NoError(t, stop())
			})
		})
	}
}
