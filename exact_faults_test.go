package wherry_test

import (
	"context"
	"fmt"
	"hash/crc32"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/raced"
	"github.com/wherry-go/wherry/kafkatest"
)

var exactTopics = []string{"order.placed:3", "counted:2"}

const exactKeys, exactRounds = 8, 12

// exactWorkload runs the workload in virtual time: rounds of orders, a little
// apart, so that there are many transactions; strike is called before the first
// order, with the options of the process's client.
func exactWorkload(t *testing.T, by wherry.Order, strike func(k *kafkatest.Cluster) *kafkatest.Fault, crashes bool) {
	t.Helper()
	kafkatest.Test(t, exactTopics, func(t *testing.T, k *kafkatest.Cluster) {
		k.WallLimit(2 * time.Minute)
		consumer := func(name string) *wherry.Consumer {
			c := exactly(k.Client(t, kgo.ClientID(name)), by)
			c.Logger = quiet
			c.Handlers = []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
				// Long and short, so that records finish out of order.
				time.Sleep(time.Duration(crc32.ChecksumIEEE(wherry.RecordFrom(ctx).Key)%7) * 9 * time.Millisecond)
				return countOrders(ctx, o)
			})}
			c.Opts = []kgo.Opt{kgo.SessionTimeout(6 * time.Second), kgo.HeartbeatInterval(time.Second)}
			return c
		}
		fault := strike(k)
		stop := kafkatest.Run(t, kafkatest.RunFunc(consumer("first").Run))
		for range exactRounds {
			for key := range exactKeys {
				kafkatest.Send(t, k, orderPlaced, strconv.Itoa(key), order_(key))
			}
			k.Sleep(t, 20*time.Millisecond)
		}
		k.Sleep(t, 30*time.Second)
		if fault != nil && fault.Hits() == 0 {
			t.Fatal("the fault never hit")
		}
		if crashes {
			go func() { _ = stop() }()
			stop = kafkatest.Run(t, consumer("successor"))
			k.Sleep(t, 30*time.Second)
		}
		requireCounts(t, k, exactKeys, exactRounds)
		require.EqualValues(t, exactKeys*exactRounds, sum(committed(t, k, "g", "order.placed")))
		require.NoError(t, stop())
	})
}

func order_(n int) order { return order{ID: strconv.Itoa(n)} }

func TestExactlyOnce_RequestsAndAnswersThatAreLost(t *testing.T) {
	t.Parallel()
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn, kmsg.InitProducerID, kmsg.OffsetFetch} {
		for skip := range 4 {
			if skip > 0 && key == kmsg.OffsetFetch {
				continue // there is one
			}
			for name, strike := range map[string]func(*kafkatest.Cluster, testing.TB, kafkatest.Requests) *kafkatest.Fault{
				"request": (*kafkatest.Cluster).Drop, "answer": (*kafkatest.Cluster).DropAfter,
			} {
				t.Run(fmt.Sprintf("%s %d of %s", name, skip, key.Name()), func(t *testing.T) {
					t.Parallel()
					exactWorkload(t, wherry.Order(skip%2), func(k *kafkatest.Cluster) *kafkatest.Fault {
						return strike(k, t, kafkatest.Requests{Keys: []kmsg.Key{key}, Client: "first", Skip: skip})
					}, false)
				})
			}
		}
	}
}

func TestExactlyOnce_CrashesAtEveryRequest(t *testing.T) {
	t.Parallel()
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn, kmsg.InitProducerID, kmsg.Heartbeat} {
		for skip := range 5 {
			if skip > 3 && key == kmsg.InitProducerID {
				continue // there are four: a claim of each partition, and the writer
			}
			for name, strike := range map[string]func(*kafkatest.Cluster, testing.TB, kafkatest.Requests) *kafkatest.Fault{
				"at": (*kafkatest.Cluster).Crash, "after": (*kafkatest.Cluster).CrashAfter,
			} {
				t.Run(fmt.Sprintf("%s %d of %s", name, skip, key.Name()), func(t *testing.T) {
					t.Parallel()
					exactWorkload(t, wherry.Order(skip%2), func(k *kafkatest.Cluster) *kafkatest.Fault {
						return strike(k, t, kafkatest.Requests{Keys: []kmsg.Key{key}, Client: "first", Skip: skip})
					}, true)
				})
			}
		}
	}
}

func TestExactlyOnce_ErrorsOfBrokers(t *testing.T) {
	t.Parallel()
	for key, errs := range map[kmsg.Key][]*kerr.Error{
		kmsg.Produce: {
			kerr.ConcurrentTransactions, kerr.UnknownServerError, kerr.InvalidProducerEpoch, kerr.ProducerFenced,
			kerr.TransactionAbortable, kerr.OutOfOrderSequenceNumber, kerr.NotLeaderForPartition, kerr.InvalidTxnState, kerr.UnknownProducerID,
		},
		kmsg.TxnOffsetCommit: {
			kerr.ConcurrentTransactions, kerr.UnknownServerError, kerr.CoordinatorLoadInProgress, kerr.NotCoordinator,
			kerr.TransactionAbortable, kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.IllegalGeneration, kerr.RebalanceInProgress, kerr.InvalidTxnState,
		},
		kmsg.EndTxn: {
			kerr.ConcurrentTransactions, kerr.UnknownServerError, kerr.CoordinatorLoadInProgress, kerr.NotCoordinator,
			kerr.TransactionAbortable, kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.InvalidTxnState,
		},
		kmsg.InitProducerID: {kerr.ConcurrentTransactions, kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.ProducerFenced},
		kmsg.OffsetFetch:    {kerr.UnstableOffsetCommit, kerr.CoordinatorLoadInProgress},
	} {
		for _, err := range errs {
			for _, skip := range []int{0, 2} {
				if skip > 0 && (key == kmsg.OffsetFetch || raced.On) {
					continue
				}
				t.Run(fmt.Sprintf("%s to %s %d", err.Message, key.Name(), skip), func(t *testing.T) {
					t.Parallel()
					exactWorkload(t, wherry.Order(skip/2), func(k *kafkatest.Cluster) *kafkatest.Fault {
						return k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{key}, Client: "first", Skip: skip}, err)
					}, false)
				})
			}
		}
	}
}

// A transaction whose answer was lost is asked for, not made again.
func TestExactlyOnce_ALostAnswerToACommitIsAskedFor(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1", "counted:1")
	lost := k.DropAfter(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.EndTxn}, Client: "first", Count: 3})
	c := exactly(k.Client(t, kgo.ClientID("first")), wherry.ByPartition)
	c.Logger = quiet
	stop := kafkatest.Run(t, c)
	for range 3 {
		kafkatest.Send(t, k, orderPlaced, "a", order{ID: "a"})
	}
	require.Eventually(t, func() bool { return sum(committed(t, k, "g", "order.placed")) == 3 }, patience, 10*time.Millisecond)
	require.NotZero(t, lost.Hits())
	require.NoError(t, stop())
	requireCounts(t, k, 1, 3)
}
