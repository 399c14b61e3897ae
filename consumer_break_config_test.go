package wherry_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// apart runs the test in a process of its own: what it looks for would take
// the other tests down with it.
func apart(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	if os.Getenv("WHERRY_BREAK_APART") == t.Name() {
		test(t)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), "WHERRY_BREAK_APART="+t.Name())
	out, err := cmd.CombinedOutput()
	if len(out) > 6000 {
		out = out[:6000]
	}
	require.NoError(t, err, string(out))
}

// "What the guarantees depend on (the group, topics, ...) is the Consumer's own
// and not overridden": an option that makes patterns of the topics either has
// no effect or is refused.
func TestBreak_OptsCannotMakePatternsOfTopics(t *testing.T) {
	t.Parallel()
	apart(t, func(t *testing.T) {
		c := newFaulty(t, map[string]int32{"order.placed": 1, "order-placed": 1})
		cl := c.client(t)
		require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: "order-placed", Value: []byte(`{"id":"stranger"}`)}).FirstErr())
		c.fill(t, 1, 1)
		seen := newRecorder()
		end, _ := background(t, &wherry.Consumer{Client: cl, Group: "g", Opts: []kgo.Opt{kgo.ConsumeRegex()}, Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)}})
		select {
		case err := <-end:
			require.ErrorContains(t, err, "ConsumeRegex")
		case id := <-seen.ch:
			require.Equal(t, "0-0", id)
			time.Sleep(500 * time.Millisecond)
			require.Len(t, seen.all(), 1)
		case <-time.After(patience):
			require.FailNow(t, "neither refused nor handled")
		}
	})
}

// Control records of transactions are no records of a topic's: an option must
// not bring them before handlers.
func TestBreak_OptsCannotBringControlRecordsToHandlers(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 1})
	txn := c.client(t, kgo.TransactionalID("txn"))
	require.NoError(t, txn.BeginTransaction())
	r, err := orderPlaced.Record("", order{ID: "a"})
	require.NoError(t, err)
	require.NoError(t, txn.ProduceSync(t.Context(), r).FirstErr())
	require.NoError(t, txn.EndTransaction(t.Context(), kgo.TryCommit))
	seen := newRecorder()
	end, stop := background(t, &wherry.Consumer{Client: c.client(t), Group: "g", Opts: []kgo.Opt{kgo.KeepControlRecords()}, Handlers: []wherry.Route{orderPlaced.Handler(seen.handle)}})
	require.Equal(t, "a", receive(t, seen.ch, "the record"))
	time.Sleep(300 * time.Millisecond)
	stop()
	require.NoError(t, receive(t, end, "the end"))
}

// Options that take the ground from under the guarantees are refused at once,
// with an error that names them, rather than at the first record.
func TestBreak_OptsThatBreakTheGuaranteesAreRefused(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]kgo.Opt{
		"TransactionalID":           {kgo.TransactionalID("mine")},
		"ShareGroup":                {kgo.ShareGroup("mine")},
		"RequiredAcks":              {kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.NoAck())},
		"DefaultProduceTopicAlways": {kgo.DefaultProduceTopic("elsewhere"), kgo.DefaultProduceTopicAlways()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newFaulty(t, map[string]int32{"order.placed": 1, "payment.made": 1, "elsewhere": 1})
			c.fill(t, 1, 1)
			began := make(chan string, 10)
			end, _ := background(t, &wherry.Consumer{Client: c.client(t), Group: "g", Opts: opts, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
				began <- o.ID
				return paymentMade.Publish(ctx, o.ID, payment{OrderID: o.ID})
			})}})
			select {
			case err := <-end:
				require.ErrorContains(t, err, name)
			case <-began:
				select {
				case err := <-end:
					require.FailNow(t, "found out at the first record", err)
				case <-time.After(300 * time.Millisecond):
					require.FailNow(t, "accepted")
				}
			}
		})
	}
}

// What the Consumer depends on wins over the same option in Opts.
func TestBreak_OptsDoNotOverrideWhatIsTheConsumersOwn(t *testing.T) {
	t.Parallel()
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	c := newFaulty(t, map[string]int32{"order.placed": 1, "payment.made": 1, "other": 1})
	c.fill(t, 1, 50)
	seen := newRecorder()
	consumer := &wherry.Consumer{
		Client: c.client(t), Group: "g",
		Opts: []kgo.Opt{
			kgo.ConsumerGroup("another"), kgo.ConsumeTopics("other"), kgo.WithContext(gone),
			kgo.AutoCommitInterval(100 * time.Millisecond), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()), kgo.ConsumeStartOffset(kgo.NewOffset().AtEnd()),
			kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { t.Error("theirs was called") }),
			kgo.OnPartitionsRevoked(func(context.Context, *kgo.Client, map[string][]int32) { t.Error("theirs was called") }),
			kgo.OnPartitionsLost(func(context.Context, *kgo.Client, map[string][]int32) { t.Error("theirs was called") }),
			kgo.AdjustFetchOffsetsFn(func(context.Context, map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
				return nil, errors.New("theirs was called")
			}),
			kgo.SessionTimeout(time.Second), kgo.HeartbeatInterval(100 * time.Millisecond),
			kgo.FetchMaxBytes(1), kgo.FetchMaxPartitionBytes(1), kgo.MaxBufferedRecords(1), kgo.ProducerLinger(5 * time.Millisecond), kgo.MaxConcurrentFetches(1),
			kgo.RecordRetries(1), kgo.RecordDeliveryTimeout(10 * time.Second), kgo.AllowAutoTopicCreation(), kgo.DisableFetchSessions(),
		},
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
			for range 3 {
				if err := paymentMade.Publish(ctx, o.ID, payment{OrderID: o.ID}); err != nil {
					return err
				}
			}
			return seen.handle(ctx, o)
		})},
	}
	end, stop := background(t, consumer)
	receive(t, consumer.Ready(), "ready")
	for range 50 {
		receive(t, seen.ch, "all records")
	}
	require.Eventually(t, func() bool { return c.committed("g", "order.placed", 0) == 50 }, patience, 5*time.Millisecond)
	stop()
	require.NoError(t, receive(t, end, "the end"))
	got := c.outcomes(t)
	require.Len(t, got, 50)
	for id, n := range got {
		require.Equal(t, 3, n, id)
	}
}

// A policy that is a nil function is a fault of the configuration.
func TestBreak_ANilMiddlewareIsAFault(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 1})
	consumer := &wherry.Consumer{Client: c.client(t), Group: "g", Policies: []wherry.Policy{wherry.Middleware(nil)}, Handlers: []wherry.Route{orderPlaced.Handler(newRecorder().handle)}}
	require.NotPanics(t, func() { require.ErrorContains(t, consumer.Run(t.Context()), "policy 0 is nil") })
}
