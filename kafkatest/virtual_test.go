package kafkatest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/kafkatest"
)

// virtual is Test for a test that makes sense in virtual time only.
func virtual(t *testing.T, topics []string, f func(t *testing.T, k *kafkatest.Cluster)) {
	t.Helper()
	skipUntagged(t)
	kafkatest.Test(t, topics, func(t *testing.T, k *kafkatest.Cluster) {
		require.True(t, k.Virtual())
		f(t, k)
	})
}

// later pays each order after the given time.
func later(cl *kgo.Client, wait time.Duration) kafkatest.RunFunc {
	return func(ctx context.Context) error {
		for {
			fetches := cl.PollFetches(ctx)
			if ctx.Err() != nil {
				return nil
			}
			for r := range fetches.RecordsAll() {
				select {
				case <-time.After(wait):
				case <-ctx.Done():
					return nil
				}
				if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "order.paid", Key: r.Key, Value: r.Value}).FirstErr(); err != nil {
					return err
				}
			}
		}
	}
}

func TestAnHourPassesInMilliseconds(t *testing.T) {
	t.Parallel()
	wall := time.Now()
	virtual(t, []string{"order.placed", "order.paid:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		require.True(t, k.Embedded())
		begin := time.Now()
		kafkatest.Run(t, later(k.Client(t, kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("order.placed")), time.Hour))
		kafkatest.Send(t, k, orderPlaced, "o-1", order{ID: "o-1"})
		kafkatest.None(t, k, orderPaid, 59*time.Minute)
		require.Equal(t, "o-1", kafkatest.Next(t, k, orderPaid).ID)
		require.InDelta(t, time.Hour, time.Since(begin), float64(5*time.Second))
		kafkatest.None(t, k, orderPaid, time.Hour)
	})
	require.Less(t, time.Since(wall), 15*time.Second)
}

func TestEverythingWorksInVirtualTimeAsInRealTime(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"order.placed", "audit:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		k.Create(t, kafkatest.Topic{Name: "order.paid", Partitions: 2})
		topics, err := kadm.NewClient(k.Client(t)).ListTopics(t.Context())
		require.NoError(t, err)
		require.Len(t, topics["order.placed"].Partitions, kafkatest.Partitions)
		require.Len(t, topics["audit"].Partitions, 1)
		stop := kafkatest.Run(t, billing(k.Client(t, kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("order.placed"))))
		for _, id := range []string{"o-1", "o-2", "o-3"} {
			kafkatest.Send(t, k, orderPlaced, id, order{ID: id})
			require.Equal(t, id, kafkatest.Next(t, k, orderPaid).ID)
		}
		require.NoError(t, stop())
		kafkatest.SendRecord(t, k, &kgo.Record{Topic: "audit", Value: []byte("raw")})
		require.Equal(t, "raw", string(kafkatest.NextRecord(t, k, "audit").Value))
		kafkatest.None(t, k, orderPaid, 0)
	})
}

func TestNextInVirtualTimeThatWaitsInVainTellsWhatIsOnTheCluster(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"order.placed", "order.paid"}, func(t *testing.T, k *kafkatest.Cluster) {
		require.Equal(t, 2*time.Hour, k.Timeout)
		kafkatest.Send(t, k, orderPlaced, "o-1", order{})
		rec := record(t, func(t testing.TB) { kafkatest.Next(t, k, orderPaid) })
		require.True(t, rec.failed)
		require.Contains(t, rec.text, `no record on topic "order.paid" within 2h0m0s: time is over`)
		require.Contains(t, rec.text, "order.placed 1")
		require.NotContains(t, rec.text, "synctests")
	})
}

func TestSleepReturnsWhenWhatWasDueIsDone(t *testing.T) {
	t.Parallel()
	virtual(t, nil, func(t *testing.T, k *kafkatest.Cluster) {
		var done bool
		go func() {
			time.Sleep(time.Hour)
			done = true
		}()
		begin := time.Now()
		k.Sleep(t, time.Hour)
		require.True(t, done)
		require.Equal(t, time.Hour, time.Since(begin))
	})
}

func TestAClientThatWasLeftOpenIsClosed(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"order.placed"}, func(t *testing.T, k *kafkatest.Cluster) {
		for _, opts := range [][]kgo.Opt{
			nil,
			{kgo.ConsumeTopics("order.placed")},
			{kgo.ConsumeTopics("order.placed"), kgo.ConsumerGroup("billing"), kgo.BlockRebalanceOnPoll()},
		} {
			lent := k.Client(t)
			cl, err := kgo.NewClient(append(append([]kgo.Opt{}, lent.Opts()...), opts...)...) // as one who is lent a client does
			require.NoError(t, err)
			require.NoError(t, cl.Ping(t.Context()))
			if len(opts) > 0 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				cl.PollFetches(ctx)
			}
		}
	})
}

func TestRunnersOfABubbleEndInItInOrder(t *testing.T) {
	t.Parallel()
	var order []string
	virtual(t, nil, func(t *testing.T, _ *kafkatest.Cluster) {
		t.Cleanup(func() { order = append(order, "cleanup") })
		for _, name := range []string{"first", "second"} {
			kafkatest.Run(t, kafkatest.RunFunc(func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(30 * time.Second) // a drain
				order = append(order, name)
				return nil
			}))
		}
	})
	require.Equal(t, []string{"second", "first", "cleanup"}, order)
}

func TestARunnerThatFailsEndsANextThatWaitsInItsBubbleOnly(t *testing.T) {
	t.Parallel()
	skipUntagged(t)
	fail := make(chan struct{})
	outer := record(t, func(rt testing.TB) {
		kafkatest.Run(rt, kafkatest.RunFunc(func(context.Context) error { <-fail; return errors.New("outside") }))
		virtual(t, []string{"order.placed"}, func(t *testing.T, k *kafkatest.Cluster) {
			rec := record(t, func(t testing.TB) {
				go func() {
					time.Sleep(time.Minute)
					close(fail) // of a channel from outside: allowed, and must not wake who waits here
				}()
				kafkatest.Run(t, kafkatest.RunFunc(func(context.Context) error {
					time.Sleep(time.Hour)
					return errors.New("inside")
				}))
				kafkatest.Next(t, k, orderPlaced)
			})
			require.True(t, rec.failed)
			require.Contains(t, rec.text, "RunFunc ended with an error: inside")
			require.NotContains(t, rec.text, "outside")
		})
	})
	require.Contains(t, outer.text, "ended with an error: outside")
}

func TestTheExampleOfVirtualTimeHolds(t *testing.T) {
	t.Parallel()
	skipUntagged(t)
	paidAfterAnHour(t)
}
