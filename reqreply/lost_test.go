package reqreply_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

// calling has n goroutines call until stop, which returns their first error.
// Each of them knows its own answers by their ids.
func calling(t *testing.T, c *reqreply.Caller, n int) (answered *atomic.Int64, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	answered = &atomic.Int64{}
	m := getUser
	m.Timeout = 2 * time.Minute
	failed := make(chan error, n)
	for worker := range n {
		go func() {
			for i := 0; ; i++ {
				id := fmt.Sprint("u", worker, "-", i)
				u, err := m.Call(ctx, c, id)
				switch {
				case ctx.Err() != nil:
					failed <- nil
					return
				case err != nil || u == nil || u.ID != id:
					failed <- fmt.Errorf("%s: answer %v, error %w", id, u, err)
					return
				}
				answered.Add(1)
			}
		}()
	}
	return answered, func() (first error) {
		cancel()
		for range n {
			if err := <-failed; first == nil {
				first = err
			}
		}
		return first
	}
}

// more waits for some more answers than there are.
func more(t *testing.T, answered *atomic.Int64, n int64) {
	t.Helper()
	want := answered.Load() + n
	require.Eventually(t, func() bool { return answered.Load() >= want }, 2*time.Minute, 2*time.Millisecond, "calls go on")
}

func TestCallsSurviveMovesOfLeaders(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:2", "user.getUser.reply:2")
	if !k.Embedded() {
		t.Skip("leaders are moved on the embedded broker")
	}
	nodes := []int{0, k.AddNode(t)}
	serve(t, k, &wherry.Consumer{}, getUser.Handler(find))
	c := caller(t, k, getUser)
	answered, stop := calling(t, c, 16)
	for i := range 12 {
		more(t, answered, 100)
		for p := range int32(2) {
			k.MoveLeader(t, "user.getUser", p, nodes[i%2])
			k.MoveLeader(t, "user.getUser.reply", p, nodes[(i+1)%2])
		}
	}
	more(t, answered, 100)
	require.NoError(t, stop())
	require.Zero(t, c.Status().Unknown)
}

func TestCallsSurviveBrokenConnections(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1", "user.getUser.reply:1")
	if !k.Embedded() {
		t.Skip("connections are broken at the embedded broker")
	}
	serve(t, k, &wherry.Consumer{}, getUser.Handler(find))
	c := caller(t, k, getUser)
	for range 5 {
		k.DropAfter(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "user.getUser"})
		k.Drop(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "user.getUser.reply"})
		_, err := getUser.Call(within(t, patience), c, "u1")
		require.NoError(t, err)
	}
}

// Calls in flight go on while the one node is killed and comes back: none of
// them fails.
func TestCallsSurviveTheRestartOfABroker(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	k := kafkatest.NewApache(t, kafkatest.ApacheConfig{Topics: topics})
	serve(t, k.Cluster, &wherry.Consumer{}, getUser.Handler(find))
	c := caller(t, k.Cluster, getUser)
	answered, stop := calling(t, c, 64)
	more(t, answered, 200)
	k.Kill(t, 1)
	k.Restart(t, 1)
	more(t, answered, 200)
	require.NoError(t, stop())
	require.Zero(t, c.Status().Unknown)
}

// The leader of the partition of replies dies for good, with calls in flight.
func TestCallsSurviveTheLossOfALeader(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	k := kafkatest.NewApache(t, kafkatest.ApacheConfig{Nodes: 3, Topics: []string{"user.getUser:1", "user.getUser.reply:1"}})
	serve(t, k.Cluster, &wherry.Consumer{}, getUser.Handler(find))
	c := caller(t, k.Cluster, getUser)
	answered, stop := calling(t, c, 64)
	more(t, answered, 200)
	k.Kill(t, k.Leader(t, "user.getUser.reply", 0))
	more(t, answered, 200)
	require.NoError(t, stop())
	require.Zero(t, c.Status().Unknown)
}

// The Caller finds its topic gone, and makes it anew. (A server's client goes on
// writing to the old one: docs/traps.md.)
func TestAReplyTopicThatIsDeletedIsMadeAnew(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "user.getUser:1", "user.getUser.reply:1")
	_, stop := serve(t, k, &wherry.Consumer{}, getUser.Handler(find))
	c := caller(t, k, getUser)
	_, err := getUser.Call(within(t, patience), c, "u1")
	require.NoError(t, err)
	require.NoError(t, stop())
	deleteTopic(t, k, "user.getUser.reply")
	eventually(t, "the topic is made", func() bool {
		_, _ = getUser.Call(within(t, 100*time.Millisecond), c, "u2")
		return exists(t, k, "user.getUser.reply")
	})
	serve(t, k, &wherry.Consumer{}, getUser.Handler(find))
	eventually(t, "calls are answered again", func() bool {
		_, err := getUser.Call(within(t, time.Second), c, "u3")
		return err == nil
	})
}

// An hour of calls to nobody, and a deadline that is exact.
func TestADeadlineIsExactAndTheTimeoutIsTheDefault(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"user.getUser:1", "user.getUser.reply:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		if !k.Virtual() {
			t.Skip("needs -tags synctests")
		}
		c := &reqreply.Caller{Client: k.Client(t)}
		kafkatest.Run(t, c)
		_, err := getUser.Call(within(t, time.Minute), c, "u1")
		require.ErrorIs(t, err, context.DeadlineExceeded)

		for _, timeout := range []time.Duration{0, time.Hour} {
			m := getUser
			m.Timeout = timeout
			began := time.Now()
			_, err := m.Call(context.Background(), c, "u1")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			want := timeout
			if want == 0 {
				want = 30 * time.Second
			}
			require.Equal(t, want, time.Since(began))
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("the browser is gone")
		cancel(gone)
		_, err = getUser.Call(ctx, c, "u1")
		require.ErrorIs(t, err, gone, "the context's own error")

		// All of them wait for a server, which skips them without a call.
		var n atomic.Int64
		counts, _ := serve(t, k, &wherry.Consumer{}, getUser.Handler(handled(&n)))
		u, err := getUser.Call(context.Background(), c, "u5")
		require.NoError(t, err)
		require.Equal(t, "u5", u.ID)
		require.EqualValues(t, 1, n.Load())
		require.EqualValues(t, 3, counts().Expired)
	})
}
