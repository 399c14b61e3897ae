package saga_test

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
	"github.com/wherry-go/wherry/saga"
)

// Starts over the limit wait in their order, and replies are handled meanwhile.
func TestS24_SagasOverTheLimitWaitInOrder(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, payingTopics...)
	var l diary
	def := paying(&l)
	e := engine(t, k, def)
	e.MaxActive, e.Topics.Partitions, e.Concurrency = 3, 1, 1 // side by side they may overtake each other
	stop := kafkatest.Run(t, e)
	const n = 20
	for i := range n {
		require.NoError(t, e.Start(t.Context(), strconv.Itoa(i), order{Total: i}))
	}
	await(t, "all are there", func() bool { st := e.Status(); return st.Active+st.Queued == n })
	require.Equal(t, 3, e.Status().Active)
	for i := range 3 {
		require.Equal(t, strconv.Itoa(i), kafkatest.Next(t, k, orderMade).ID)
	}
	kafkatest.None(t, k, orderMade, 50*time.Millisecond)
	require.Equal(t, saga.Queued, lastOf(t, k, "trip")["3"].Phase)

	for i := range 5 { // each that ends lets the next begin
		kafkatest.Send(t, k, wasPaid, strconv.Itoa(i), payment{})
		require.Equal(t, strconv.Itoa(i+3), kafkatest.Next(t, k, orderMade).ID)
	}
	require.NoError(t, stop())
	e = engine(t, k, def) // another owner
	e.MaxActive, e.Concurrency = 3, 1
	kafkatest.Run(t, e)
	for i := 5; i < n; i++ {
		kafkatest.Send(t, k, wasPaid, strconv.Itoa(i), payment{})
		if i+3 < n {
			require.Equal(t, strconv.Itoa(i+3), kafkatest.Next(t, k, orderMade).ID)
		}
	}
	await(t, "the sagas end", func() bool { return e.Status().Ended == n })
	require.Zero(t, e.Status().Queued)
}

// holding is a saga of one local step, that is held for sagas whose Total is 1, and
// makes too much of those whose Total is 2.
func holding(l *diary, hold <-chan struct{}) saga.Definition[order] {
	return trip(saga.Step[order]{Name: "a", NoUndo: true, Do: saga.Local(func(ctx context.Context, o order) (int, error) {
		l.add(ctx, "a")
		if o.Total > 0 {
			select {
			case <-hold:
			case <-ctx.Done():
			}
		}
		if o.Total == 3 { // it takes its time besides
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
		return o.Total, ctx.Err()
	}, func(o *order, total int) {
		if total == 2 {
			o.Pad = strings.Repeat("x", 2<<20)
		}
	})})
}

// A saga that begins and ends in one transaction, or comes to nothing, gives its
// place to the one that waits.
func TestS24_APlaceThatWasTakenForATransactionAloneIsGivenBack(t *testing.T) {
	t.Parallel()
	for name, total := range map[string]int{"it ends": 1, "it is a dead letter": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t)
			var l diary
			hold := make(chan struct{})
			e := engine(t, k, holding(&l, hold))
			e.MaxActive, e.Topics.Partitions = 1, 1
			kafkatest.Run(t, e)
			require.NoError(t, e.Start(t.Context(), "x", order{Total: total}))
			await(t, "it is in hand", func() bool { return len(l.of("x")) == 1 })
			require.NoError(t, e.Start(t.Context(), "y", order{}))
			await(t, "the other waits", func() bool { return e.Status().Queued == 1 })
			close(hold)
			await(t, "the other begins", func() bool { return len(l.of("y")) == 1 })
			await(t, "none is left", func() bool { st := e.Status(); return st.Active+st.Queued == 0 })
		})
	}
}

// engineOf is an engine whose requests a test can tell from those of others.
func engineOf(t *testing.T, k *kafkatest.Cluster, def saga.Definition[order]) *saga.Engine[order] {
	return &saga.Engine[order]{
		Client:      k.Client(t, kgo.ClientID("engine"), kgo.RecordDeliveryTimeout(2*time.Second)),
		Definitions: []saga.Definition[order]{def}, MaxActive: 1, Topics: wherry.TopicSpec{Partitions: 1},
	}
}

func TestS24_AnAdmissionThatIsLostComesAgain(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		var l diary
		hold := make(chan struct{})
		e := engineOf(t, k, holding(&l, hold))
		kafkatest.Run(t, e)
		require.NoError(t, e.Start(t.Context(), "x", order{Total: 1}))
		k.Sleep(t, 10*time.Second)
		require.NoError(t, e.Start(t.Context(), "y", order{}))
		k.Sleep(t, 10*time.Second)
		require.Equal(t, 1, e.Status().Queued)
		f := k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "trip.saga.inbox", Client: "engine", Count: -1}, kerr.TopicAuthorizationFailed)
		close(hold)
		k.Sleep(t, time.Minute)
		require.Positive(t, f.Hits())
		require.Empty(t, l.of("y"))
		f.Remove()
		k.Sleep(t, time.Minute)
		require.Equal(t, []string{"a"}, l.of("y"))
	})
}

func TestS24_AStartDoesNotOvertakeThoseThatWait(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		var l diary
		hold := make(chan struct{})
		def := holding(&l, hold)
		e, other := engineOf(t, k, def), engine(t, k, def)
		kafkatest.Run(t, e)
		require.NoError(t, e.Start(t.Context(), "x", order{Total: 1}))
		k.Sleep(t, 10*time.Second)
		require.NoError(t, e.Start(t.Context(), "y", order{Total: 3}))
		k.Sleep(t, 10*time.Second)
		k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "trip.saga.inbox", Client: "engine"}, 20*time.Second)
		close(hold)
		k.Sleep(t, 10*time.Second) // it has ended, and the other is to be admitted
		require.NoError(t, other.Start(t.Context(), "z", order{}))
		k.Sleep(t, time.Minute)
		y, z := l.timesOf("y"), l.timesOf("z")
		require.Len(t, y, 1)
		require.Len(t, z, 1)
		require.True(t, y[0].Before(z[0]), "y at %v, z at %v", y[0], z[0])
	})
}

// An outage of what a step calls does not undo those that come by: they wait.
func TestS24_TheGateHoldsASagasAttemptsInAnOutage(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(3 * time.Minute)
		var calls, undone atomic.Int64
		var works atomic.Bool
		def := trip(
			saga.Step[order]{
				Name: "a", Do: saga.Do(func(context.Context, order) error { return nil }),
				Undo: saga.Do(func(context.Context, order) error { undone.Add(1); return nil }),
			},
			saga.Step[order]{Name: "b", NoUndo: true, Retry: retry.Policy{Attempts: 3, Initial: 10 * time.Millisecond}, Do: saga.Do(func(context.Context, order) error {
				calls.Add(1)
				if works.Load() {
					return nil
				}
				return errFailed
			})},
		)
		e := engine(t, k, def)
		e.Concurrency = 1
		e.Gate = saga.Gate{After: 10, Probe: time.Second}
		kafkatest.Run(t, e)
		const n = 500
		for i := range n {
			require.NoError(t, e.Start(t.Context(), strconv.Itoa(i), order{}))
		}
		k.Sleep(t, time.Minute)
		before := calls.Load()
		k.Sleep(t, time.Minute)
		require.InDelta(t, 60, calls.Load()-before, 5, "it is slowed to probes")
		require.Positive(t, e.Status().Held)
		require.LessOrEqual(t, undone.Load(), int64(4), "those that failed before it shut")
		ended := e.Status().Ended
		works.Store(true)
		k.Sleep(t, 2*time.Minute)
		require.Equal(t, n, e.Status().Ended)
		require.LessOrEqual(t, ended, 4)
		require.Zero(t, e.Status().Held)
		done := 0
		for _, s := range lastOf(t, k, "trip") {
			if s.Phase == saga.Done {
				done++
			}
		}
		require.Equal(t, n-int(undone.Load()), done)
	})
}

// So long as it is known that a saga ended, a second start of it is a no-op.
func TestS25_AStartOfWhatHasEnded(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(3 * time.Minute)
		var l diary
		def := trip(saga.Step[order]{Name: "a", Do: l.do("a"), NoUndo: true})
		e := engine(t, k, def)
		e.Retention = 30 * time.Minute
		stop := kafkatest.Run(t, e)
		require.NoError(t, e.Start(t.Context(), "o-1", order{Total: 5}))
		k.Sleep(t, 10*time.Second)
		require.Equal(t, 1, e.Status().Ended)
		require.NoError(t, e.Start(t.Context(), "o-1", order{Total: 5}))
		k.Sleep(t, time.Minute)
		require.Equal(t, []string{"a"}, l.of("o-1"))
		noLetters(t, k)
		require.NoError(t, stop())

		e = engine(t, k, def) // another owner knows it too
		e.Retention = 30 * time.Minute
		kafkatest.Run(t, e)
		require.NoError(t, e.Start(t.Context(), "o-1", order{Total: 5}))
		require.NoError(t, e.Start(t.Context(), "o-1", order{Total: 6}))
		k.Sleep(t, time.Minute)
		require.Equal(t, []string{"a"}, l.of("o-1"))
		all := letters(t, k)
		require.Len(t, all, 1)
		require.Equal(t, wherry.CausePermanent, all[0].Cause)
		require.Contains(t, all[0].Error, "with another state")
		require.JSONEq(t, `{"total":6}`, string(all[0].Value))

		k.Sleep(t, 30*time.Minute)
		require.Zero(t, e.Status().Ended)
		require.Empty(t, lastOf(t, k, "trip"), "it is forgotten in the topic too")
		require.NoError(t, e.Start(t.Context(), "o-1", order{Total: 6}))
		k.Sleep(t, time.Minute)
		require.Equal(t, []string{"a", "a"}, l.of("o-1"), "it may begin anew")
	})
}

// A start with another state while the saga is under way, too.
func TestS25_AStartWithAnotherStateIsADeadLetter(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, payingTopics...)
	var l diary
	e := engine(t, k, paying(&l))
	kafkatest.Run(t, e)
	for total := range 3 {
		require.NoError(t, e.Start(t.Context(), "o-1", order{Total: total}))
	}
	require.NoError(t, e.Start(t.Context(), "o-1", order{Total: 0}))
	await(t, "the letters", func() bool { return len(letters(t, k)) == 2 })
	kafkatest.Send(t, k, wasPaid, "o-1", payment{})
	await(t, "the saga ends", func() bool { return e.Status().Ended == 1 })
	require.Len(t, letters(t, k), 2)
}
