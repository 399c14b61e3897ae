package retry_test

import (
	"context"
	"crypto/rand"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// When is a record done that came back from a delay topic? When its outputs are
// acknowledged, or committed with it: a1 comes before a2 in the topic done, which
// have one key, whatever holds up a1 between its handler and that.
func ordered(t *testing.T, deliveries map[string]wherry.Delivery, f func(t *testing.T, k *kafkatest.Cluster, start func(name string, handler wherry.Handler, outside ...wherry.Policy))) {
	t.Helper()
	for name, delivery := range deliveries {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			virtual(t, []string{"orders:1", "done:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				f(t, k, func(name string, handler wherry.Handler, outside ...wherry.Policy) {
					kafkatest.Run(t, &wherry.Consumer{
						Client: k.Client(t, kgo.ClientID(name)), Group: "billing", Order: wherry.ByKey, Delivery: delivery,
						// Of two members each has one of the topic and its first delay topic.
						Opts:     []kgo.Opt{kgo.Balancers(kgo.RoundRobinBalancer())},
						Policies: append(outside, inOrder(s)),
						Handlers: []wherry.Route{{Topic: "orders", Handler: handler}},
					})
				})
			})
		})
	}
}

var (
	once      = map[string]wherry.Delivery{"exactly once": wherry.ExactlyOnce}
	delivered = map[string]wherry.Delivery{"at least once": wherry.AtLeastOnce, "exactly once": wherry.ExactlyOnce}
)

// finish is a handler of which a1 fails at first, and all else is done.
func finish(ctx context.Context, r *kgo.Record) error {
	if string(r.Value) == "a1" && wherry.Attempt(ctx) == 1 {
		return errDown
	}
	return wherry.Publish(ctx, &kgo.Record{Topic: "done", Key: r.Key, Value: r.Value})
}

// overtakes sends a1, and a2 three seconds later: a1 was tried again one second
// after it failed.
func overtakes(t *testing.T, k *kafkatest.Cluster, first string) {
	t.Helper()
	send(t, k, "a", "a1")
	k.Sleep(t, 3*s)
	send(t, k, "a", "a2")
	require.Equal(t, first, string(kafkatest.NextRecord(t, k, "done").Value))
	require.Equal(t, "a2", string(kafkatest.NextRecord(t, k, "done").Value))
}

// apart makes a node lead a topic, and another one the keys topic: what holds up
// the one does not hold up the other.
func apart(t *testing.T, k *kafkatest.Cluster, topic string) {
	t.Helper()
	const keys = "orders.billing.retry.keys"
	require.NoError(t, wherry.EnsureTopics(t.Context(), k.Client(t), wherry.TopicSpec{Name: keys, Partitions: 1, Changelog: true}))
	slow := k.AddNode(t)
	k.MoveLeader(t, topic, 0, slow)
	k.MoveLeader(t, keys, 0, 1-slow)
}

// A policy outside takes its time with a1, and nothing of it is out meanwhile.
func TestKeepOrder_ARecordIsNotOverBeforeItsPoliciesAre(t *testing.T) {
	t.Parallel()
	ordered(t, delivered, func(t *testing.T, k *kafkatest.Cluster, start func(string, wherry.Handler, ...wherry.Policy)) {
		start("one", finish, wherry.Middleware(func(next wherry.Handler) wherry.Handler {
			return func(ctx context.Context, r *kgo.Record) error {
				err := next(ctx, r)
				if wherry.HopFrom(ctx) != nil && string(r.Value) == "a1" {
					time.Sleep(5 * s)
				}
				return err
			}
		}))
		overtakes(t, k, "a1")
	})
}

// The output of a1 is slow on its way, and what says that a1 is done would not be.
// Another process reads a2.
func TestKeepOrder_ARecordIsNotOverBeforeItsOutputsAreAcknowledged(t *testing.T) {
	t.Parallel()
	ordered(t, delivered, func(t *testing.T, k *kafkatest.Cluster, start func(string, wherry.Handler, ...wherry.Policy)) {
		apart(t, k, "done")
		var (
			mu sync.Mutex
			by []string // who handles a1
		)
		for _, name := range []string{"one", "two"} {
			start(name, func(ctx context.Context, r *kgo.Record) error {
				if string(r.Value) == "a1" {
					mu.Lock()
					by = append(by, name)
					mu.Unlock()
				}
				return finish(ctx, r)
			})
		}
		k.Sleep(t, 10*s) // until each has its share
		fault := k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "done"}, 5*s)
		overtakes(t, k, "a1")
		require.Equal(t, 1, fault.Hits())
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, by, 2)
		require.NotEqual(t, by[0], by[1], "one process has both topics")
	})
}

// Brokers refuse an output of a1, late: it is given up, and a2 comes then. At least
// once this is not so, with or without a delay topic: a lane goes on while outputs
// are on their way, and what is refused is dealt with afterwards.
func TestKeepOrder_ARecordIsNotOverBeforeItsRefusedOutputsAreDealtWith(t *testing.T) {
	t.Parallel()
	ordered(t, once, func(t *testing.T, k *kafkatest.Cluster, start func(string, wherry.Handler, ...wherry.Policy)) {
		k.Create(t, kafkatest.Topic{Name: "small", Partitions: 1, Config: map[string]string{"max.message.bytes": "1000"}})
		apart(t, k, "small")
		grave := wherry.Middleware(func(next wherry.Handler) wherry.Handler {
			return func(ctx context.Context, r *kgo.Record) error {
				err := next(ctx, r)
				if err == nil || wherry.Interrupted(ctx) {
					return err
				}
				return wherry.Publish(ctx, &kgo.Record{Topic: "done", Key: r.Key, Value: []byte("dead " + string(r.Value))})
			}
		})
		start("one", func(ctx context.Context, r *kgo.Record) error {
			if string(r.Value) == "a1" && wherry.Attempt(ctx) == 2 {
				return wherry.Publish(ctx, &kgo.Record{Topic: "small", Value: noise(2000)})
			}
			return finish(ctx, r)
		}, grave)
		fault := k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "small"}, 5*s)
		overtakes(t, k, "dead a1")
		require.Positive(t, fault.Hits())
	})
}

// noise are bytes that no compression makes less.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}
