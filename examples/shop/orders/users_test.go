package orders_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/examples/shop/orders"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

// answering is who answers in the place of auth, in a group.
func answering(cl *kgo.Client, group string, answer func(context.Context, string) (*events.User, error)) *wherry.Consumer {
	return &wherry.Consumer{
		Client: cl, Group: group, Handlers: []wherry.Route{events.GetUser.Handler(answer)},
		Policies: []wherry.Policy{reqreply.Faults{Done: true}}, Logger: slog.New(slog.DiscardHandler),
	}
}

func TestUserIsAskedForAsRawText(t *testing.T) {
	t.Parallel()
	k := onACluster(t)
	s := service(k.Client(t))
	kafkatest.Run(t, s)
	place(t, s)
	r := kafkatest.NextRecord(t, k, "user.getUser")
	require.Equal(t, "user1", string(r.Value))
	headers := map[string]string{}
	for _, h := range r.Headers {
		headers[h.Key] = string(h.Value)
	}
	require.Equal(t, "user.getUser.reply", headers["kafka_replyTopic"])
	require.NotEmpty(t, headers["kafka_correlationId"])
}

func TestOrderIsRefusedWhereNobodyTellsOfItsUser(t *testing.T) {
	t.Parallel()
	somebody := func(context.Context, string) (*events.User, error) { return &events.User{ID: "user1"}, nil }
	for name, test := range map[string]struct {
		answers func(*kgo.Client) *wherry.Consumer
		group   string // that orders looks for
		want    string
	}{
		"there is none": {nil, "auth-server", "The auth service is not there: nobody answers user.getUser"},
		"it is in another group": {
			func(cl *kgo.Client) *wherry.Consumer { return answering(cl, "nest-server", somebody) },
			"auth-server", "The auth service is not there: nobody answers user.getUser",
		},
		"nobody looks whether there is one": {nil, "", "The auth service did not answer user.getUser within 5s"},
		"it does not answer": {func(cl *kgo.Client) *wherry.Consumer {
			return answering(cl, "auth-server", func(ctx context.Context, _ string) (*events.User, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
		}, "auth-server", "The auth service did not answer user.getUser within 5s"},
		"it answers with an error": {func(cl *kgo.Client) *wherry.Consumer {
			return answering(cl, "auth-server", func(context.Context, string) (*events.User, error) { return nil, errors.New("a fault") })
		}, "auth-server", "The auth service could not answer user.getUser"},
		"its user is none": {func(cl *kgo.Client) *wherry.Consumer {
			return &wherry.Consumer{Client: cl, Group: "auth-server", Logger: slog.New(slog.DiscardHandler), Handlers: []wherry.Route{
				reqreply.Method[string, string]{Topic: "user.getUser"}.Handler(func(context.Context, string) (string, error) { return "Ada", nil }),
			}}
		}, "auth-server", "The auth service could not be asked for the user"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, names(), func(t *testing.T, k *kafkatest.Cluster) {
				require.NoError(t, wherry.EnsureTopics(t.Context(), k.Client(t), events.Topics()...))
				if test.answers != nil {
					kafkatest.Run(t, test.answers(k.Client(t)))
				}
				s := service(k.Client(t))
				s.AuthGroup = test.group
				kafkatest.Run(t, s)
				_, err := s.Place(t.Context(), newOrder, "")
				var unanswered *orders.UnansweredError
				require.ErrorAs(t, err, &unanswered)
				require.EqualError(t, err, test.want)
				kafkatest.None(t, k, events.OrderCreated, 0)
				all, err := s.List(t.Context())
				require.NoError(t, err)
				require.Empty(t, all)
			})
		})
	}
}

// As when a NestJS service whose groupId is "nest" answers, and -auth-group names it.
func TestOrderIsPlacedWhereAuthIsInAnotherGroup(t *testing.T) {
	t.Parallel()
	for name, group := range map[string]string{"which is named": "nest-server", "and nobody is looked for": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, names()...)
			require.NoError(t, wherry.EnsureTopics(t.Context(), k.Client(t), events.Topics()...))
			kafkatest.Run(t, answering(k.Client(t), "nest-server", func(_ context.Context, id string) (*events.User, error) { return &events.User{ID: id}, nil }))
			s := service(k.Client(t))
			s.AuthGroup = group
			kafkatest.Run(t, s)
			place(t, s)
		})
	}
}

func TestAuthThatComesLaterIsFound(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, names()...)
	require.NoError(t, wherry.EnsureTopics(t.Context(), k.Client(t), events.Topics()...))
	s := service(k.Client(t))
	kafkatest.Run(t, s)
	_, err := s.Place(t.Context(), newOrder, "")
	require.ErrorIs(t, err, reqreply.ErrNoResponder)
	stop := kafkatest.Run(t, directory(k.Client(t)))
	require.Eventually(t, func() bool {
		_, err := s.Place(t.Context(), newOrder, "")
		return err == nil
	}, wait, tick)
	require.NoError(t, stop())
	require.Eventually(t, func() bool {
		_, err := s.Place(t.Context(), newOrder, "")
		return errors.Is(err, reqreply.ErrNoResponder)
	}, wait, tick)
}
