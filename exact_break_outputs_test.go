package wherry_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
)

// refusers returns a Consumer that publishes each order to counted, and some
// also to a topic that is not there, takes no such record, or is forbidden.
func refusers(cl *kgo.Client, by wherry.Order) *wherry.Consumer {
	return &wherry.Consumer{
		Client: cl, Group: "g", Order: by, Delivery: wherry.ExactlyOnce, Logger: quiet,
		Policies: []wherry.Policy{&dlq.Queue{Topic: "dead"}},
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
			if err := counted.Publish(ctx, o.ID, count{o.Total}); err != nil {
				return err
			}
			switch o.Total % 10 {
			case 3:
				return wherry.Publish(ctx, &kgo.Record{Topic: "small", Key: []byte(o.ID), Value: noise(2000)})
			case 5:
				return wherry.Publish(ctx, &kgo.Record{Topic: "missing", Key: []byte(o.ID)})
			case 7:
				return wherry.Publish(ctx, &kgo.Record{Topic: "forbidden", Key: []byte(o.ID)})
			}
			return nil
		})},
	}
}

func createRefusing(t *testing.T, k *kafkatest.Cluster) {
	t.Helper()
	k.Create(t, kafkatest.Topic{Name: "small", Partitions: 1, Config: map[string]string{"max.message.bytes": "1000"}}, kafkatest.Topic{Name: "forbidden", Partitions: 1})
}

func forbid(t *testing.T, k *kafkatest.Cluster) *kafkatest.Fault {
	t.Helper()
	return k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "forbidden", Count: -1}, kerr.TopicAuthorizationFailed)
}

// Many outputs that are refused, for different reasons, among many that are
// not: each order has its effects or its letter, once.
func TestExactBreak_RefusedOutputsAmongOthers(t *testing.T) {
	t.Parallel()
	for _, by := range []wherry.Order{wherry.ByPartition, wherry.ByKey, wherry.Unordered} {
		t.Run(strconv.Itoa(int(by)), func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, []string{"order.placed:3", "counted:2"}, func(t *testing.T, k *kafkatest.Cluster) {
				createRefusing(t, k)
				denied := forbid(t, k)
				const n = 120
				for i := range n {
					kafkatest.Send(t, k, orderPlaced, strconv.Itoa(i), order{ID: strconv.Itoa(i), Total: i})
				}
				stop := kafkatest.Run(t, refusers(k.Client(t), by))
				k.Sleep(t, time.Minute)
				require.NotZero(t, denied.Hits())
				require.EqualValues(t, n, sum(committed(t, k, "g", "order.placed")))
				require.NoError(t, stop())
				kafkatest.ExactlyOnce(t, k, kafkatest.Effects{
					Inputs: []string{"order.placed"}, Outputs: []string{"counted"}, Instead: []string{"dead"}, Group: "g",
				})
				require.Len(t, readAll(t, k, "dead"), n*3/10)
			})
		})
	}
}

// The letter of a refused record is in one transaction with its offset: whenever
// the process dies, its successor finds both or neither.
func TestExactBreak_CrashesAroundALetter(t *testing.T) {
	t.Parallel()
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn} {
		for skip := range 6 {
			for name, crash := range map[string]func(*kafkatest.Cluster, testing.TB, kafkatest.Requests) *kafkatest.Fault{
				"at": (*kafkatest.Cluster).Crash, "after": (*kafkatest.Cluster).CrashAfter,
			} {
				t.Run(fmt.Sprintf("%s %d of %s", name, skip, key.Name()), func(t *testing.T) {
					t.Parallel()
					kafkatest.Test(t, []string{"order.placed:1", "counted:1"}, func(t *testing.T, k *kafkatest.Cluster) {
						createRefusing(t, k)
						by := wherry.Order(skip % 2)
						const n = 9
						f := crash(k, t, kafkatest.Requests{Keys: []kmsg.Key{key}, Client: "first", Skip: skip})
						first := refusers(k.Client(t, kgo.ClientID("first")), by)
						first.Opts = []kgo.Opt{kgo.SessionTimeout(6 * time.Second), kgo.HeartbeatInterval(time.Second)}
						ctx, cancel := context.WithCancel(context.Background())
						end := make(chan error, 1)
						go func() { end <- first.Run(ctx) }()
						t.Cleanup(func() { cancel(); <-end })
						for i := range n {
							kafkatest.Send(t, k, orderPlaced, strconv.Itoa(i), order{ID: strconv.Itoa(i), Total: i % 6}) // none forbidden
							k.Sleep(t, 7*time.Millisecond)
						}
						k.Sleep(t, 20*time.Second)
						stop := kafkatest.Run(t, refusers(k.Client(t), by))
						k.Sleep(t, 30*time.Second)
						require.EqualValues(t, n, sum(committed(t, k, "g", "order.placed")))
						kafkatest.ExactlyOnce(t, k, kafkatest.Effects{
							Inputs: []string{"order.placed"}, Outputs: []string{"counted"}, Instead: []string{"dead"}, Group: "g",
						})
						require.Len(t, readAll(t, k, "dead"), 2)
						require.NoError(t, stop())
						require.NotZero(t, f.Hits())
					})
				})
			}
		}
	}
}

// An error that tells nothing counts against a record when it comes again and
// again for it alone.
func TestExactBreak_AnErrorThatTellsNothing(t *testing.T) {
	t.Parallel()
	for _, times := range []int{1, 2, -1} {
		t.Run(strconv.Itoa(times), func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, []string{"order.placed:2", "counted:2"}, func(t *testing.T, k *kafkatest.Cluster) {
				createRefusing(t, k)
				k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "forbidden", Count: times}, kerr.UnknownServerError)
				for i := range 30 {
					total := 0
					if i%10 == 7 {
						total = 7
					}
					kafkatest.Send(t, k, orderPlaced, strconv.Itoa(i), order{ID: strconv.Itoa(i), Total: total})
				}
				stop := kafkatest.Run(t, refusers(k.Client(t), wherry.ByKey))
				k.Sleep(t, time.Minute)
				require.EqualValues(t, 30, sum(committed(t, k, "g", "order.placed")))
				require.NoError(t, stop())
				dead := 0
				if times < 0 {
					dead = 3
				}
				require.Len(t, readAll(t, k, "forbidden"), 3-dead)
				require.Len(t, readAll(t, k, "counted"), 30-dead)
				require.Len(t, readAll(t, k, "dead"), dead)
			})
		})
	}
}

// A letter that is refused, too, stops the Consumer, and nothing of the record
// is committed, nor lost of its neighbours.
func TestExactBreak_ALetterThatIsRefused(t *testing.T) {
	t.Parallel()
	for _, by := range []wherry.Order{wherry.ByPartition, wherry.ByKey} {
		t.Run(strconv.Itoa(int(by)), func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, []string{"order.placed:1", "counted:1", "dead:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				createRefusing(t, k)
				denied := k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "dead", Count: -1}, kerr.TopicAuthorizationFailed)
				for i := range 10 {
					kafkatest.Send(t, k, orderPlaced, strconv.Itoa(i), order{ID: strconv.Itoa(i), Total: i % 6})
				}
				err := refusers(k.Client(t), by).Run(t.Context())
				var found *wherry.RecordError
				require.ErrorAs(t, err, &found)
				require.Equal(t, wherry.CauseRejected, found.Cause)
				require.Contains(t, []int64{3, 5, 9}, found.Offset)
				require.ErrorIs(t, err, kerr.TopicAuthorizationFailed)
				require.Empty(t, readAll(t, k, "dead"))
				require.LessOrEqual(t, sum(committed(t, k, "g", "order.placed")), int64(9))

				denied.Remove()
				stop := kafkatest.Run(t, refusers(k.Client(t), by))
				k.Sleep(t, time.Minute)
				kafkatest.ExactlyOnce(t, k, kafkatest.Effects{
					Inputs: []string{"order.placed"}, Outputs: []string{"counted"}, Instead: []string{"dead"}, Group: "g",
				})
				require.Len(t, readAll(t, k, "dead"), 3)
				require.NoError(t, stop())
			})
		})
	}
}
