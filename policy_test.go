package wherry_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

func TestPoliciesAndTheirOutputs(t *testing.T) {
	t.Parallel()
	call := func(n int) wherry.Policy { // calls its inner handler n times, the last result counts
		return around(func(ctx context.Context, r *kgo.Record, next wherry.Handler) (err error) {
			for i := range n {
				err = next(wherry.WithAttempt(ctx, i+1), r)
			}
			return err
		})
	}
	before := func(name string) wherry.Policy {
		return around(func(ctx context.Context, r *kgo.Record, next wherry.Handler) error {
			return errors.Join(pay(ctx, name), next(ctx, r))
		})
	}
	after := func(name string) wherry.Policy { // whatever became of the handler
		return around(func(ctx context.Context, r *kgo.Record, next wherry.Handler) error {
			return errors.Join(next(ctx, r), pay(ctx, name))
		})
	}
	attempt := func(ctx context.Context, _ *kgo.Record) error {
		return pay(ctx, map[int]string{1: "one", 2: "two", 3: "three"}[wherry.Attempt(ctx)])
	}
	fails := func(ctx context.Context, r *kgo.Record) error { return errors.Join(attempt(ctx, r), errBank) }

	tests := []struct {
		name     string
		handler  wherry.Handler
		policies []wherry.Policy
		want     []string
	}{
		{name: "no policy", handler: attempt, want: []string{"one"}},
		{name: "the handler's stand where they were staged", handler: attempt, policies: []wherry.Policy{before("a"), after("z")}, want: []string{"a", "one", "z"}},
		{name: "policies stage outermost first", handler: attempt, policies: []wherry.Policy{before("a"), before("b"), after("y"), after("x")}, want: []string{"a", "b", "one", "x", "y"}},
		{name: "a second call drops the outputs of the first", handler: attempt, policies: []wherry.Policy{call(3)}, want: []string{"three"}},
		{name: "a second call drops those of the policies inside too", handler: attempt, policies: []wherry.Policy{call(3), before("a"), after("z")}, want: []string{"a", "three", "z"}},
		{name: "each of two may call again", handler: attempt, policies: []wherry.Policy{call(2), before("a"), call(3)}, want: []string{"a", "three"}},
		{name: "what a policy staged stands though its handler failed", handler: fails, policies: []wherry.Policy{forgiving(), before("a"), after("z")}, want: []string{"a", "z"}},
		{name: "what a policy staged outside of a retry is staged once", handler: attempt, policies: []wherry.Policy{before("a"), call(3), after("z")}, want: []string{"a", "three", "z"}},
		{
			name: "a policy may stage between two calls", handler: attempt,
			policies: []wherry.Policy{around(func(ctx context.Context, r *kgo.Record, next wherry.Handler) error {
				return errors.Join(pay(ctx, "a"), next(ctx, r), pay(ctx, "b"), next(wherry.WithAttempt(ctx, 2), r), pay(ctx, "c"))
			})},
			want: []string{"a", "b", "two", "c"},
		},
		{
			name: "a policy may answer without its handler", handler: attempt,
			policies: []wherry.Policy{around(func(ctx context.Context, _ *kgo.Record, _ wherry.Handler) error { return pay(ctx, "instead") })},
			want:     []string{"instead"},
		},
		{
			name: "a policy that panics leaves what an outer one staged", handler: attempt,
			policies: []wherry.Policy{forgiving(), after("z"), around(func(ctx context.Context, r *kgo.Record, next wherry.Handler) error {
				_ = next(ctx, r)
				panic("policy")
			})},
			// The handler had returned nil, but the attempt failed after it.
			want: []string{"z"},
		},
		{
			name: "the second call fails and the first had not", handler: func(ctx context.Context, r *kgo.Record) error {
				if wherry.Attempt(ctx) == 2 {
					return errBank
				}
				return attempt(ctx, r)
			},
			policies: []wherry.Policy{forgiving(), call(2)},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, outputs(t, test.handler, test.policies...))
		})
	}
}

func TestAPolicyThatReplacesTheContextTakesItsHandlerOutOfTheRecord(t *testing.T) {
	t.Parallel()
	seen := make(chan error, 1)
	replace := around(func(_ context.Context, r *kgo.Record, next wherry.Handler) error {
		return next(context.Background(), r) //nolint:contextcheck // what is tested
	})
	require.Empty(t, outputs(t, func(ctx context.Context, _ *kgo.Record) error {
		seen <- pay(ctx, "lost")
		return nil
	}, replace))
	require.ErrorContains(t, <-seen, "outside of a handler")
}

func TestAPolicyMayHandOnACopyOfTheRecord(t *testing.T) {
	t.Parallel()
	rename := around(func(ctx context.Context, r *kgo.Record, next wherry.Handler) error {
		c := *r
		c.Key = []byte("copy")
		return next(ctx, &c)
	})
	require.Equal(t, []string{"copy", "first"}, outputs(t, func(ctx context.Context, r *kgo.Record) error {
		return errors.Join(pay(ctx, string(r.Key)), pay(ctx, string(wherry.RecordFrom(ctx).Key)))
	}, rename))
}

func TestAPolicyThatPanicsIsTheRecordsError(t *testing.T) {
	t.Parallel()
	outer := make(chan error, 1)
	watch := wherry.Middleware(func(next wherry.Handler) wherry.Handler {
		return func(ctx context.Context, r *kgo.Record) error {
			err := next(ctx, r)
			outer <- err
			return err
		}
	})
	bad := wherry.Middleware(func(wherry.Handler) wherry.Handler {
		return func(context.Context, *kgo.Record) error { panic("policy") }
	})
	e := stopsWith(t, returns(nil), watch, bad)
	require.Equal(t, wherry.CausePanic, e.Cause)
	require.Contains(t, e.Stack, "policy_test.go")
	require.ErrorContains(t, <-outer, "panic: policy", "an outer policy sees it as an error")
}

// declaring is a Preparer made from a function.
type declaring func(*wherry.Setup) error

func (declaring) Wrap(next wherry.Handler) wherry.Handler { return next }
func (d declaring) Prepare(s *wherry.Setup) error         { return d(s) }

func TestAPreparerSubscribesAndNeedsTopics(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1", "payment.made:1")
	got := newRecorder()
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "prepared",
		Handlers: []wherry.Route{orderPlaced.Handler(got.handle), paymentMade.Handler(func(context.Context, payment) error { return nil })},
		Policies: []wherry.Policy{declaring(func(s *wherry.Setup) error {
			if s.Group != "prepared" || len(s.Topics) != 2 || s.Topics[0] != "order.placed" || s.Topics[1] != "payment.made" {
				return errors.New("the Setup is not that of the Consumer")
			}
			name := s.Topics[0] + "." + s.Group + ".again"
			s.Subscribe(wherry.Hop{Topic: name, As: s.Topics[0]})
			s.Need(wherry.TopicSpec{Name: name, Partitions: 2})
			return nil
		})},
	})
	again := wherry.Event[order]{Topic: "order.placed.prepared.again"}
	kafkatest.Send(t, k, again, "", order{ID: "again"})
	require.Equal(t, "again", receive(t, got.ch, "the record of the topic that the policy subscribed"))
	kafkatest.Send(t, k, orderPlaced, "", order{ID: "first"})
	require.Equal(t, "first", receive(t, got.ch, "the record of the route's own topic"))
	topics, err := kadm.NewClient(k.Client(t)).ListTopics(t.Context(), again.Topic)
	require.NoError(t, err)
	require.Len(t, topics[again.Topic].Partitions, 2)
}

func TestFaultsOfPreparersComeAllAtOnce(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	prepared := 0
	faulty := func(text string) wherry.Policy {
		return declaring(func(s *wherry.Setup) error {
			prepared++
			s.Subscribe(wherry.Hop{Topic: text + ".topic", As: "no.route"})
			return errors.New(text)
		})
	}
	err := (&wherry.Consumer{
		Client: k.Client(t), Policies: []wherry.Policy{faulty("one"), nil, faulty("two")},
		Handlers: []wherry.Route{orderPlaced.Handler(newRecorder().handle)},
	}).Run(t.Context())
	for _, part := range []string{"no group", "one", "policy 1 is nil", "two", "subscribes to one.topic as no.route", "subscribes to two.topic as no.route"} {
		require.ErrorContains(t, err, part)
	}
	require.Equal(t, 2, prepared)
}

// A topic has one meaning: a policy must not take over a route's topic, nor
// that of another policy, without a word.
func TestASubscriptionThatContradictsAnotherIsAFault(t *testing.T) {
	t.Parallel()
	subscribe := func(topic, as string) wherry.Policy {
		return declaring(func(s *wherry.Setup) error { s.Subscribe(wherry.Hop{Topic: topic, As: as}); return nil })
	}
	tests := []struct {
		name     string
		policies []wherry.Policy
	}{
		{"with a route", []wherry.Policy{subscribe("order.placed", "payment.made")}},
		{"with another policy's", []wherry.Policy{subscribe("again", "order.placed"), subscribe("again", "payment.made")}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "order.placed:1", "payment.made:1", "again:1")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c := &wherry.Consumer{
				Client: k.Client(t), Group: "contradiction", Policies: test.policies,
				Handlers: []wherry.Route{orderPlaced.Handler(newRecorder().handle), paymentMade.Handler(func(context.Context, payment) error { return nil })},
			}
			go func() { // a Consumer that took it runs until it is told
				<-c.Ready()
				cancel()
			}()
			require.Error(t, c.Run(ctx))
		})
	}
}

func TestTwoPoliciesMayNeedTheSameTopic(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	need := declaring(func(s *wherry.Setup) error {
		s.Need(wherry.TopicSpec{Name: "shared.dlq", Partitions: 1})
		return nil
	})
	stop := kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "needs", Policies: []wherry.Policy{need, need},
		Handlers: []wherry.Route{orderPlaced.Handler(newRecorder().handle)},
	})
	require.NoError(t, stop())
}
