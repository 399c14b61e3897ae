package reqreply_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

func TestNoResponderAtOnceWhenNoLiveMemberReadsTheTopic(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, append(topics, "other:1")...)
	m := getUser
	m.Group = "users"
	c := caller(t, k, m)
	none := func() {
		t.Helper()
		began := time.Now()
		_, err := m.Call(within(t, time.Hour), c, "u1")
		require.ErrorContains(t, err, "no responder")
		require.Less(t, time.Since(began), 10*time.Second, "at once")
	}
	none() // no such group
	require.Zero(t, c.Status().Sent)

	other := wherry.Event[string]{Topic: "other"}
	_, stopOther := serve(t, k, &wherry.Consumer{}, other.Handler(nil))
	eventually(t, "the group reads something else", func() bool { none(); return true })
	require.NoError(t, stopOther())

	_, stop := serve(t, k, &wherry.Consumer{}, m.Handler(find))
	eventually(t, "there is one", func() bool {
		_, err := m.Call(within(t, patience), c, "u1")
		return err == nil
	})
	require.NoError(t, stop())
	eventually(t, "it is gone", func() bool {
		_, err := m.Call(within(t, 200*time.Millisecond), c, "u1")
		return errors.Is(err, reqreply.ErrNoResponder)
	})
	none()
}

func TestNoResponderInAGroupOfTheNewProtocol(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, topics...)
	m := getUser
	m.Group = "next"
	c := caller(t, k, m)
	_, err := m.Call(within(t, patience), c, "u1")
	require.ErrorContains(t, err, "no responder")
	k.Client(t, kgo.ConsumerGroup("next"), kgo.ConsumeTopics("user.getUser"), kgo.ServerSideBalancer(), kgo.DisableAutoCommit())
	eventually(t, "it has a member", func() bool {
		_, err := m.Call(within(t, 100*time.Millisecond), c, "u1") // which answers nothing
		return err != nil && c.Status().Sent > 0
	})
}

func TestWhereNobodyCanBeAskedTheRequestIsSent(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, topics, func(t *testing.T, k *kafkatest.Cluster) {
		if !k.Virtual() {
			t.Skip("needs -tags synctests")
		}
		m := getUser
		m.Group = "users"
		serve(t, k, &wherry.Consumer{}, m.Handler(find))
		k.Drop(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.DescribeGroups}, Count: 1000})
		_, err := m.Call(within(t, time.Minute), caller(t, k, m), "u1")
		require.NoError(t, err)
	})
}
