package reqreply_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

// An errgroup's context ends with the first error as its cause. What that says
// of one request must not be said of another, which was sent.
func TestTheErrorOfACallIsNotThatOfTheCallsBesideIt(t *testing.T) {
	t.Parallel()
	silent := reqreply.Method[string, string]{Topic: "silent", ReplyTopic: "user.getUser.reply"}
	for name, other := range map[string]error{
		"nobody is there": reqreply.ErrNoResponder,
		"too many":        reqreply.ErrBusy,
		"the end":         reqreply.ErrEnded,
		"an answer":       &reqreply.Error{Code: "refused", Message: "not for you"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "user.getUser.reply:1", "silent:1")
			mp, read := meter()
			c := &reqreply.Caller{Client: k.Client(t), MeterProvider: mp}
			kafkatest.Run(t, c)
			g, ctx := errgroup.WithContext(t.Context())
			sent := make(chan error, 1)
			g.Go(func() error {
				_, err := silent.Call(ctx, c, "x")
				sent <- err
				return err
			})
			kafkatest.NextRecord(t, k, "silent")
			g.Go(func() error { return other })
			require.ErrorIs(t, g.Wait(), other)
			err := <-sent
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorContains(t, err, other.Error())
			require.NotErrorIs(t, err, other)
			require.NotErrorIs(t, err, wherry.ErrPermanent)
			_, fault := errors.AsType[*reqreply.Error](err)
			require.False(t, fault)
			require.EqualValues(t, 1, read(t)["call.duration silent canceled"])
		})
	}
}

// A deadline is one whatever the context says of it.
func TestADeadlineMayHaveACauseOfItsOwn(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"silent:1", "wherry.services:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		if !k.Virtual() {
			t.Skip("needs -tags synctests")
		}
		mp, read := meter()
		c := &reqreply.Caller{Client: k.Client(t), MeterProvider: mp}
		kafkatest.Run(t, c)
		slow := errors.New("the page is slow")
		ends := func() context.Context {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, slow)
			t.Cleanup(cancel)
			return ctx
		}
		silent := reqreply.Method[string, string]{Topic: "silent"}
		_, err := silent.Call(ends(), c, "x")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, slow)
		require.EqualValues(t, 1, read(t)["call.duration silent timeout"])
		results, err := silent.Gather(ends(), c, "x", 0)
		require.NoError(t, err)
		require.Empty(t, results)
		found, err := reqreply.Services(ends(), c, reqreply.ServiceQuery{Wait: time.Hour})
		require.NoError(t, err)
		require.Empty(t, found)
	})
}
