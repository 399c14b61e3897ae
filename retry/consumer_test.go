package retry_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
)

func TestPolicy_InAConsumerTheScheduleIsExact(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		w, dead := newWorker(func(call) error { return errDown }), newLetters()
		kafkatest.Run(t, consumer(t, k, w, dead, retry.Policy{Attempts: 4, Initial: s}))
		send(t, k, "k", "v")
		calls := w.next(t, k, 4)
		require.Equal(t, []time.Duration{1 * s, 2 * s, 4 * s}, gaps(calls))
		got := dead.next(t, k)
		exhausted(t, got.err, 4, calls[0].at)
		require.Equal(t, "v", string(got.record.Value))
	})
}

func TestPolicy_ARecordThatIsMendedIsDoneAndTheNextOneFollows(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1", "done:1"}, func(t *testing.T, k *kafkatest.Cluster, unit time.Duration) {
		w := newWorker(func(c call) error {
			if c.value() == "a" && c.attempt < 3 {
				return errDown
			}
			return nil
		})
		c := consumer(t, k, w, retry.Policy{Attempts: 3, Initial: unit})
		c.Handlers[0].Handler = func(ctx context.Context, r *kgo.Record) error {
			if err := wherry.Publish(ctx, &kgo.Record{Topic: "done", Value: r.Value}); err != nil {
				return err
			}
			return w.handle(ctx, r)
		}
		kafkatest.Run(t, c)
		send(t, k, "k", "a")
		send(t, k, "k", "b")
		calls := w.next(t, k, 4)
		require.Equal(t, []string{"a", "a", "a", "b"}, values(calls))
		require.GreaterOrEqual(t, calls[1].at.Sub(calls[0].at), unit)
		require.GreaterOrEqual(t, calls[2].at.Sub(calls[1].at), 2*unit)
		require.Equal(t, "a", string(kafkatest.NextRecord(t, k, "done").Value), "a failed attempt leaves no outputs")
		require.Equal(t, "b", string(kafkatest.NextRecord(t, k, "done").Value))
	})
}

func TestPolicy_APanicIsTriedAgainUnlessARuleSaysNo(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		w, dead := newWorker(func(call) error { panic("boom") }), newLetters()
		p := retry.Policy{Rules: []retry.Rule{{If: retry.Panicked, Attempts: 2}}}
		kafkatest.Run(t, consumer(t, k, w, dead, p))
		send(t, k, "k", "v")
		got := dead.next(t, k).err
		require.Equal(t, wherry.CauseExhausted, got.Cause)
		require.Equal(t, 2, got.Attempts)
		require.ErrorContains(t, got, "boom")
		require.Contains(t, got.Stack, "TestPolicy_APanic")
	})
}

func TestPolicy_AWaitThatIsAskedForAndTooLongNamesBothErrors(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		w, dead := newWorker(func(call) error { return retry.After(errDown, time.Hour) }), newLetters()
		kafkatest.Run(t, consumer(t, k, w, dead, retry.Policy{}))
		send(t, k, "k", "v")
		got := dead.next(t, k).err
		require.Equal(t, wherry.CauseExhausted, got.Cause)
		require.ErrorIs(t, got, errDown)
		refused, ok := errors.AsType[*wherry.WaitError](got)
		require.True(t, ok)
		require.Equal(t, 5*time.Minute, refused.MaxWait)
		require.ErrorContains(t, got, "retry.Topics")
	})
}

func TestPolicy_AfterARestartTheAttemptsBeginAnew(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		w, dead := newWorker(func(call) error { return errDown }), newLetters()
		p := retry.Policy{Attempts: 2, Initial: time.Minute}
		stop := kafkatest.Run(t, consumer(t, k, w, dead, p))
		send(t, k, "k", "v")
		w.next(t, k, 1)
		k.Sleep(t, s)
		began := time.Now()
		require.NoError(t, stop())
		require.Less(t, time.Since(began), 10*s, "a wait does not hold up the end")
		require.Empty(t, dead.got, "what was cut short is not given up")

		kafkatest.Run(t, consumer(t, k, w, dead, p))
		calls := w.next(t, k, 2)
		require.Equal(t, []int{1, 2}, []int{calls[0].attempt, calls[1].attempt})
		require.Equal(t, 2, dead.next(t, k).err.Attempts)
	})
}

func TestPolicy_FaultsEndTheRunBeforeItBegins(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "orders:1")
	c := consumer(t, k, newWorker(nil), retry.Policy{Initial: time.Hour, Jitter: 2}, retry.Topics{Policy: retry.Policy{Jitter: 0.1}})
	err := c.Run(t.Context())
	require.ErrorContains(t, err, "waits 3h0m0s after attempt 1")
	require.ErrorContains(t, err, "Jitter is 2")
	require.ErrorContains(t, err, "Jitter of 0.1")
}
