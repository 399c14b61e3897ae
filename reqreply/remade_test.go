package reqreply_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

// The Caller makes the topic of its replies anew, and the server goes on.
func TestAReplyTopicThatIsMadeAnewIsAnsweredTo(t *testing.T) {
	t.Parallel()
	for name, delivery := range map[string]wherry.Delivery{"at least once": wherry.AtLeastOnce, "exactly once": wherry.ExactlyOnce} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "user.getUser:1", "user.getUser.reply:1")
			_, stop := serve(t, k, &wherry.Consumer{Delivery: delivery, Policies: []wherry.Policy{reqreply.Faults{Done: true}}}, getUser.Handler(find))
			c := caller(t, k, getUser)
			_, err := getUser.Call(within(t, patience), c, "u1")
			require.NoError(t, err)
			deleteTopic(t, k, "user.getUser.reply")
			eventually(t, "calls are answered again", func() bool {
				_, err := getUser.Call(within(t, time.Second), c, "u2")
				return err == nil
			})
			require.NoError(t, stop())
		})
	}
}

// The same of a Caller that reads several reply topics: for one of several kgo may
// take the error for one that passes, and tell nobody.
func TestOneOfSeveralReplyTopicsThatIsDeletedIsMadeAnew(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1", "user.getUser.reply:1", "other:1", "other.reply:1")
	serve(t, k, &wherry.Consumer{Policies: []wherry.Policy{reqreply.Faults{Done: true}}}, getUser.Handler(find))
	c := caller(t, k, getUser)
	_, err := (reqreply.Method[string, string]{Topic: "other"}).Call(within(t, 100*time.Millisecond), c, "x")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = getUser.Call(within(t, patience), c, "u1")
	require.NoError(t, err)
	deleteTopic(t, k, "user.getUser.reply")
	eventually(t, "calls are answered again", func() bool {
		_, err := getUser.Call(within(t, time.Second), c, "u2")
		return err == nil
	})
}

// A Caller goes on where the topic of the requests is made anew.
func TestARequestTopicThatIsMadeAnewIsWrittenTo(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"silent:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		if !k.Virtual() {
			t.Skip("needs -tags synctests")
		}
		c := caller(t, k)
		silent := reqreply.Method[string, string]{Topic: "silent"}
		_, err := silent.Call(within(t, time.Second), c, "x")
		require.ErrorIs(t, err, context.DeadlineExceeded, "it was sent")
		deleteTopic(t, k, "silent")
		time.Sleep(10 * time.Second)
		k.Create(t, kafkatest.Topic{Name: "silent", Partitions: 1})
		eventually(t, "it is sent", func() bool {
			_, _ = silent.Call(within(t, time.Second), c, "again")
			cl := k.Client(t, kgo.ConsumeTopics("silent"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
			defer cl.Close()
			return !cl.PollFetches(within(t, time.Second)).Empty()
		})
	})
}
