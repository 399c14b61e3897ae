package retry_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
)

var _ wherry.Preparer = retry.Topics{}

func four(unit time.Duration) retry.Topics {
	return retry.Topics{Policy: retry.Policy{Attempts: 4, Initial: unit}}
}

func TestTopics_InVirtualTimeTheScheduleIsExact(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		w, dead := newWorker(func(call) error { return errDown }), newLetters()
		kafkatest.Run(t, consumer(t, k, w, dead, four(s)))
		send(t, k, "k", "v")
		calls := w.next(t, k, 4)
		require.Equal(t, []time.Duration{1 * s, 2 * s, 4 * s}, gaps(calls))
		for i, hop := range []string{"", "orders.billing.retry.1s", "orders.billing.retry.2s", "orders.billing.retry.4s"} {
			require.Equal(t, hop, calls[i].hop)
			require.Equal(t, i+1, calls[i].attempt)
		}
		exhausted(t, dead.next(t, k).err, 4, calls[0].at)
	})
}

func TestTopics_TheRecordIsHandledAsTheOneThatItWas(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:4"}, func(t *testing.T, k *kafkatest.Cluster, unit time.Duration) {
		w, dead := newWorker(func(call) error { return errDown }), newLetters()
		kafkatest.Run(t, consumer(t, k, w, dead, four(unit)))
		send(t, k, "k", "first")
		sent := kafkatest.SendRecord(t, k, &kgo.Record{
			Topic: "orders", Key: []byte("k"), Value: []byte("v"), Timestamp: time.UnixMilli(1_700_000_000_123),
			Headers: []kgo.RecordHeader{{Key: "app", Value: []byte("1")}, {Key: "app", Value: []byte("2")}},
		})
		same := func(r kgo.Record) {
			require.Equal(t, "orders", r.Topic)
			require.Equal(t, sent.Partition, r.Partition)
			require.Equal(t, sent.Offset, r.Offset)
			require.True(t, sent.Timestamp.Equal(r.Timestamp))
			require.Equal(t, "k", string(r.Key))
			require.Equal(t, sent.Headers, r.Headers)
		}
		seen := 0
		for _, c := range w.next(t, k, 8) {
			if c.value() == "v" {
				seen++
				require.Equal(t, seen, c.attempt)
				same(c.record)
			}
		}
		require.Equal(t, 4, seen)
		for range 2 {
			if got := dead.next(t, k); string(got.record.Value) == "v" {
				same(got.record)
				require.Equal(t, 4, got.err.Attempts)
				require.False(t, got.err.First.IsZero())
			}
		}
	})
}

func TestTopics_ARecordIsNeverEarlyAndOthersFlowOn(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster, unit time.Duration) {
		failed := map[string]time.Time{} // of the last failure; one partition, one handler at a time and topic
		w := newWorker(func(c call) error {
			if c.attempt < 4 && strings.HasPrefix(c.value(), "bad") {
				return errDown
			}
			return nil
		})
		kafkatest.Run(t, consumer(t, k, w, four(unit)))
		for i := range 20 {
			send(t, k, "k", fmt.Sprintf("bad%d", i))
			send(t, k, "k", fmt.Sprintf("good%d", i))
		}
		calls := w.next(t, k, 20+20*4)
		for _, c := range calls {
			if before, ok := failed[c.value()]; ok {
				require.GreaterOrEqual(t, c.at.Sub(before), unit<<(c.attempt-2))
			}
			failed[c.value()] = c.at
		}
	})
}

func TestTopics_HeadersAreReplacedNotAdded(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster, unit time.Duration) {
		long := strings.Repeat("é", 3000)
		w, dead := newWorker(func(call) error { return fmt.Errorf("%s: %w", long, errDown) }), newLetters()
		kafkatest.Run(t, consumer(t, k, w, dead, four(unit)))
		kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders", Value: []byte("v"), Headers: []kgo.RecordHeader{
			{Key: "app", Value: []byte("1")},
			{Key: "wherry-retry-attempts", Value: []byte("99")}, // of a copy that somebody made
		}})
		require.Equal(t, 4, dead.next(t, k).err.Attempts)
		for i, delay := range []time.Duration{unit, 2 * unit, 4 * unit} {
			hop := kafkatest.NextRecord(t, k, "orders.billing.retry."+delay.String())
			seen := map[string]string{}
			for _, h := range hop.Headers {
				require.NotContains(t, seen, h.Key)
				seen[h.Key] = string(h.Value)
			}
			require.Equal(t, "1", seen["app"])
			require.Equal(t, strconv.Itoa(i+1), seen["wherry-retry-attempts"])
			require.Equal(t, long[:1024], seen["wherry-retry-error"])
			require.Equal(t, "billing", seen["wherry-retry-group"])
		}
	})
}

func TestTopics_ARestartGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		w, dead := newWorker(func(call) error { return errDown }), newLetters()
		p := retry.Topics{Policy: retry.Policy{Attempts: 3, Initial: time.Hour, Within: 4 * time.Hour}}
		stop := kafkatest.Run(t, consumer(t, k, w, dead, p))
		send(t, k, "k", "v")
		calls := w.next(t, k, 1)
		k.Sleep(t, 10*time.Minute)
		require.NoError(t, stop())

		stop = kafkatest.Run(t, consumer(t, k, w, dead, p))
		calls = append(calls, w.next(t, k, 1)...)
		require.Equal(t, []time.Duration{time.Hour}, gaps(calls))
		k.Sleep(t, time.Minute)
		require.NoError(t, stop())

		k.Sleep(t, 150*time.Minute) // it is overdue, and the time of all attempts not over
		kafkatest.Run(t, consumer(t, k, w, dead, p))
		calls = append(calls, w.next(t, k, 1)...)
		require.Equal(t, 3, calls[2].attempt)
		exhausted(t, dead.next(t, k).err, 3, calls[0].at)
	})
}

func TestTopics_WhatComesAfterItsTimeIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		w, dead := newWorker(func(call) error { return errDown }), newLetters()
		p := retry.Topics{Policy: retry.Policy{Attempts: 9, Initial: time.Minute, Within: time.Hour}}
		stop := kafkatest.Run(t, consumer(t, k, w, dead, p))
		send(t, k, "k", "v")
		first := w.next(t, k, 2)[0].at
		k.Sleep(t, s)
		require.NoError(t, stop())
		k.Sleep(t, time.Hour)
		kafkatest.Run(t, consumer(t, k, w, dead, p))
		got := dead.next(t, k).err
		require.Equal(t, wherry.CauseExpired, got.Cause)
		require.Equal(t, 2, got.Attempts)
		require.True(t, first.Equal(got.First))
		require.ErrorContains(t, got, errDown.Error())
		require.Len(t, w.all(), 2)
	})
}

func TestTopics_AroundAPolicyCountTheCallsOfTheHandler(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		w, dead := newWorker(func(call) error { return errDown }), newLetters()
		again := retry.Policy{Attempts: 2, Initial: s}
		tiers := retry.Topics{Policy: retry.Policy{Attempts: 3, Initial: time.Minute}}
		kafkatest.Run(t, consumer(t, k, w, dead, tiers, again))
		send(t, k, "k", "v")
		calls := w.next(t, k, 6)
		require.Equal(t, []time.Duration{s, time.Minute, s, 2 * time.Minute, s}, gaps(calls))
		for i, c := range calls {
			require.Equal(t, i+1, c.attempt)
		}
		exhausted(t, dead.next(t, k).err, 6, calls[0].at)
	})
}

func TestTopics_EqualWaitsShareATopic(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		w := newWorker(func(call) error { return errDown })
		p := retry.Topics{Policy: retry.Policy{Attempts: retry.Forever, Initial: s, Max: 3 * s}}
		kafkatest.Run(t, consumer(t, k, w, p))
		send(t, k, "k", "v")
		calls := w.next(t, k, 20)
		require.Equal(t, []time.Duration{1 * s, 2 * s, 3 * s, 3 * s, 3 * s}, gaps(calls)[:5])
		require.Equal(t, "orders.billing.retry.3s", calls[3].hop)
		require.Equal(t, "orders.billing.retry.3s", calls[19].hop)
	})
}

func TestTopics_AWaitThatIsAskedForIsMadeUpOfTheDelays(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		for _, wait := range []time.Duration{0, 400 * ms, s, 1500 * ms, 7 * s, 75 * s, 75*s + 300*ms} {
			group := "g" + wait.String()
			w := newWorker(func(c call) error {
				if c.attempt == 1 {
					return retry.After(errDown, wait)
				}
				return nil
			})
			c := consumer(t, k, w, retry.Topics{Policy: retry.Policy{Attempts: 4, Initial: s, Multiplier: 10}})
			c.Group = strings.ReplaceAll(group, ".", "_")
			stop := kafkatest.Run(t, c)
			send(t, k, "k", "v")
			var mine []call
			for len(mine) < 2 {
				for _, c := range w.next(t, k, 1) {
					if c.record.Offset == 0 {
						mine = append(mine, c)
					}
				}
			}
			if wait == 0 { // a client's first record to a topic takes a moment
				require.Less(t, gaps(mine)[0], 50*ms)
			} else {
				require.Equal(t, []time.Duration{wait}, gaps(mine))
			}
			require.Equal(t, 2, mine[1].attempt)
			require.NoError(t, stop())
		}
	})
}

func TestTopics_ARuleHasTopicsOfItsOwn(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		w, dead := newWorker(func(c call) error {
			if c.attempt == 2 {
				return errors.New("something else")
			}
			return errDown
		}), newLetters()
		p := retry.Policy{Attempts: 3, Initial: s, Rules: []retry.Rule{{If: retry.Is(errDown), Initial: 90 * s, Multiplier: 1}}}
		kafkatest.Run(t, consumer(t, k, w, dead, retry.Topics{Policy: p}))
		send(t, k, "k", "v")
		calls := w.next(t, k, 3)
		require.Equal(t, []time.Duration{90 * s, 2 * s}, gaps(calls))
		require.Equal(t, "orders.billing.retry.1m30s", calls[1].hop)
		require.Equal(t, wherry.CauseExhausted, dead.next(t, k).err.Cause)
	})
}

func TestTopics_GroupsAreApart(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:2"}, func(t *testing.T, k *kafkatest.Cluster, unit time.Duration) {
		bad, dead := newWorker(func(call) error { return errDown }), newLetters()
		good := newWorker(nil)
		kafkatest.Run(t, consumer(t, k, bad, dead, four(unit)))
		other := consumer(t, k, good, four(unit))
		other.Group = "audit"
		kafkatest.Run(t, other)
		send(t, k, "k", "v")
		dead.next(t, k)
		require.Len(t, bad.all(), 4)
		good.next(t, k, 1)
		require.Len(t, good.all(), 1)
	})
}

func TestTopics_GroupsWhoseDelayTopicsHaveOneNameAreApart(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1", "orders.eu:1"}, func(t *testing.T, k *kafkatest.Cluster, unit time.Duration) {
		one, oneDead := newWorker(func(call) error { return errDown }), newLetters()
		c := consumer(t, k, one, oneDead, four(unit))
		c.Group = "eu.billing"
		kafkatest.Run(t, c)
		two, twoDead := newWorker(func(call) error { return errDown }), newLetters()
		c = consumer(t, k, two, twoDead, four(unit))
		c.Handlers[0].Topic = "orders.eu"
		kafkatest.Run(t, c)

		send(t, k, "k", "one")
		kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders.eu", Value: []byte("two")})
		require.Equal(t, []string{"one", "one", "one", "one"}, values(one.next(t, k, 4)))
		require.Equal(t, []string{"two", "two", "two", "two"}, values(two.next(t, k, 4)))
		require.Equal(t, wherry.CauseExhausted, oneDead.next(t, k).err.Cause)
		require.Equal(t, wherry.CauseExhausted, twoDead.next(t, k).err.Cause)
	})
}

func TestTopics_FormerDelaysAreStillRead(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		w := newWorker(func(c call) error {
			if c.attempt == 1 {
				return errDown
			}
			return nil
		})
		stop := kafkatest.Run(t, consumer(t, k, w, four(time.Hour)))
		send(t, k, "k", "v")
		calls := w.next(t, k, 1)
		k.Sleep(t, s)
		require.NoError(t, stop())
		p := four(s)
		p.Former = []time.Duration{time.Hour}
		kafkatest.Run(t, consumer(t, k, w, p))
		calls = append(calls, w.next(t, k, 1)...)
		require.Equal(t, []time.Duration{time.Hour}, gaps(calls))
		require.Equal(t, 2, calls[1].attempt)
	})
}

func TestTopics_TheCopyIsStagedAndWhatTheHandlerStagedIsNot(t *testing.T) {
	t.Parallel()
	both(t, []string{"orders:1", "done:1"}, func(t *testing.T, k *kafkatest.Cluster, unit time.Duration) {
		w := newWorker(func(c call) error {
			if c.attempt < 3 {
				return errDown
			}
			return nil
		})
		c := consumer(t, k, w, four(unit))
		c.Handlers[0].Handler = func(ctx context.Context, r *kgo.Record) error {
			if err := wherry.Publish(ctx, &kgo.Record{Topic: "done", Value: fmt.Append(nil, wherry.Attempt(ctx))}); err != nil {
				return err
			}
			return w.handle(ctx, r)
		}
		kafkatest.Run(t, c)
		send(t, k, "k", "v")
		require.Equal(t, "3", string(kafkatest.NextRecord(t, k, "done").Value))
	})
}

func TestTopics_ACopyThatIsTooLargeIsGivenUp(t *testing.T) {
	t.Parallel()
	virtual(t, []string{"orders:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		w, dead := newWorker(func(call) error { return errDown }), newLetters()
		c := consumer(t, k, w, dead, four(s))
		c.Client = k.Client(t, kgo.ProducerBatchMaxBytes(3000))
		kafkatest.Run(t, c)
		send(t, k, "k", strings.Repeat("v", 2900))
		got := dead.next(t, k).err
		require.Equal(t, wherry.CauseRejected, got.Cause)
		require.ErrorIs(t, got, errDown)
		require.ErrorContains(t, got, "orders.billing.retry.1s")
	})
}
