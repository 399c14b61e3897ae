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

// Faults answers a request that no handler saw by the headers of its topic, so
// these must be the same.
func TestMethodsOfOneTopicWithDifferentProfilesAreRefused(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, topics...)
	other := getUser
	other.Profile.Error = "my-error"
	spring := getUser
	spring.Profile = reqreply.Spring() // other forms, which are understood, of the same headers
	old := wherry.HasHeader("version", "1")
	run := func(last reqreply.Method[string, *user]) error {
		return (&wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: []wherry.Route{getUser.Handler(find).When(old), last.Handler(find)}}).Run(t.Context())
	}
	err := run(other)
	require.ErrorContains(t, err, `method "user.getUser"`)
	require.ErrorContains(t, err, "different Profiles")
	serve(t, k, &wherry.Consumer{}, getUser.Handler(find).When(old), spring.Handler(find))
}

func TestFaultsAnswersWhatAnyMethodOfTheTopicAllows(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1", "user.getUser.reply:1", "old.answers:1")
	down := func(context.Context, string) (*user, error) { return nil, errors.New("down") }
	first, last := getUser, getUser
	first.Allow = func(topic string) bool { return topic == "old.answers" }
	serve(t, k, &wherry.Consumer{Policies: []wherry.Policy{reqreply.Faults{Done: true}}},
		first.Handler(down).When(wherry.HasHeader("version", "1")), last.Handler(down))
	for _, topic := range []string{"old.answers", "user.getUser.reply"} {
		r := asked("u1", "id", topic, "0")
		if topic == "old.answers" {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: "version", Value: []byte("1")})
		}
		kafkatest.SendRecord(t, k, r)
		require.Contains(t, headerOf(kafkatest.NextRecord(t, k, topic), "kafka_nest-err"), "failed")
	}
}
