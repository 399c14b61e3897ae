package dlq_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
)

// A run that cannot reach the ledger for a while, as one that is frozen, is
// taken over, and learns it when it can again.
func TestReplayOnce_TakenOver(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		lost  kafkatest.Requests // for as long as it is away
		delay kafkatest.Requests // one that arrives when the other is at work
	}{
		"before its marks": {lost: kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "dead.ledger", Skip: 3}},
		"before its commit": {
			lost:  kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "dead.ledger", Skip: 4},
			delay: kafkatest.Requests{Keys: []kmsg.Key{kmsg.EndTxn}, Skip: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, deskTopics, func(t *testing.T, k *kafkatest.Cluster) {
				d := newDesk(t, k)
				row.lost.Client, row.lost.Count = "first", -1
				lost := k.Drop(t, row.lost)
				if row.delay.Keys != nil {
					row.delay.Client = "first"
					k.Delay(t, row.delay, 9*time.Second)
				}
				first := d.process(t, "first").begin(t, slowly)
				lost.Wait(t, 1)
				report := d.process(t, "second").run(t, slowly)
				require.Positive(t, report.Replayed)
				require.Positive(t, report.Decided)
				lost.Remove()
				taken, err := first(false)
				require.ErrorIs(t, err, dlq.ErrTakenOver)
				require.EqualError(t, err, "dead letters of dead: another run has taken over")
				require.Zero(t, taken.Unsettled)
				require.Equal(t, deskLetters-deskLetters/10, taken.Replayed+taken.Parked+report.Replayed+report.Parked)
				d.check(t)
			})
		})
	}
}

func TestReplayOnce_WhatAnAbortLeavesIsNotThereForReadersOfWhatIsCommitted(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, deskTopics, func(t *testing.T, k *kafkatest.Cluster) {
		d := newDesk(t, k)
		k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.EndTxn}, Client: "first"}, kerr.TransactionAbortable)
		d.process(t, "first").run(t, slowly)
		d.check(t)
		in := k.Client(t, kgo.ConsumeTopics("orders"), kgo.FetchIsolationLevel(kgo.ReadUncommitted()))
		seen := 0
		for ctx, cancel := context.WithTimeout(t.Context(), time.Second); ; {
			fetches := in.PollFetches(ctx)
			if ctx.Err() != nil {
				cancel()
				break
			}
			seen += fetches.NumRecords()
		}
		require.Greater(t, seen, len(d.content(t, "orders")))
	})
}

func TestReplayOnce_WithoutARightToTheTransactionalIDItSaysWhatToGrant(t *testing.T) {
	t.Parallel()
	for _, key := range []kmsg.Key{kmsg.InitProducerID, kmsg.Produce, kmsg.EndTxn} {
		t.Run(key.Name(), func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, deskTopics, func(t *testing.T, k *kafkatest.Cluster) {
				d := newDesk(t, k)
				denied := k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{key}, Txn: dlq.ReplayID("dead"), Client: "first", Count: -1}, kerr.TransactionalIDAuthorizationFailed)
				report, err := d.process(t, "first").replayer().Run(t.Context())
				require.ErrorIs(t, err, kerr.TransactionalIDAuthorizationFailed)
				require.ErrorContains(t, err, "grant WRITE and DESCRIBE on the transactional id dead.replay")
				require.Zero(t, report.Replayed)
				require.Empty(t, d.content(t, "orders"))
				denied.Remove()
				d.process(t, "second").run(t)
				d.check(t)
			})
		})
	}
}

func TestReplayOnce_OtherUsersOfTheTransactionalIDDoNotDouble(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, deskTopics, func(t *testing.T, k *kafkatest.Cluster) {
		d := newDesk(t, k)
		first := d.process(t, "first").begin(t, slowly)
		for range 5 {
			other := k.Client(t, kgo.TransactionalID(dlq.ReplayID("dead")))
			_, _, err := other.ProducerID(t.Context())
			require.NoError(t, err)
			other.Close()
			k.Sleep(t, 70*time.Millisecond)
		}
		_, err := first(false)
		require.NoError(t, err)
		d.check(t)
	})
}
