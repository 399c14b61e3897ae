package wherry_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/txn"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
)

// Members come, go and crash under load: each order is counted once, in order.
func TestExactBreak_MembersComeAndGo(t *testing.T) {
	t.Parallel()
	balancers := map[string]kgo.Opt{
		"cooperative": kgo.Balancers(kgo.CooperativeStickyBalancer()),
		"range":       kgo.Balancers(kgo.RangeBalancer()),
		"server":      kgo.ServerSideBalancer(),
	}
	for name, balancer := range balancers {
		for seed := range uint64(6) {
			t.Run(fmt.Sprint(name, " ", seed), func(t *testing.T) {
				t.Parallel()
				kafkatest.Test(t, exactTopics, func(t *testing.T, k *kafkatest.Cluster) {
					k.WallLimit(2 * time.Minute)
					comeAndGo(t, k, seed, func(name string) *wherry.Consumer {
						c := counting(t, k, name, wherry.Order(seed%2))
						c.Opts = append(c.Opts, balancer)
						c.Drain = []time.Duration{100 * time.Millisecond, time.Second}[seed/2%2]
						return c
					}, func() { sendRounds(t, k, 8, 1, 0) })
					k.Sleep(t, 2*time.Minute)
					n := len(readAll(t, k, "order.placed"))
					require.EqualValues(t, n, sum(committed(t, k, "g", "order.placed")))
					requireCounts(t, k, 8, n/8)
				})
			})
		}
	}
}

// comeAndGo sends sixty rounds, and some, while members come, stop and crash.
func comeAndGo(t *testing.T, k *kafkatest.Cluster, seed uint64, member func(name string) *wherry.Consumer, send func()) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 7))
	type running struct {
		name string
		stop func() error
	}
	var all []running
	begin := func(i int) {
		name := fmt.Sprint("m", i)
		c := member(name)
		ctx, cancel := context.WithCancel(context.Background())
		end := make(chan error, 1)
		go func() { end <- c.Run(ctx) }()
		var err error
		over := false
		stop := func() error {
			if cancel(); !over {
				over, err = true, <-end
			}
			return err
		}
		t.Cleanup(func() { _ = stop() })
		all = append(all, running{name, stop})
	}
	begin(0)
	for i := range 60 {
		send()
		k.Sleep(t, time.Duration(rng.IntN(900))*time.Millisecond)
		switch dice := rng.IntN(12); {
		case dice < 3 && len(all) < 4 || len(all) == 0:
			begin(i + 1)
		case dice < 4 && len(all) > 1:
			at := rng.IntN(len(all))
			require.NoError(t, all[at].stop())
			all = append(all[:at], all[at+1:]...)
		case dice < 5 && len(all) > 0:
			// Not while the group is being made: kfake may wait for ever for a
			// member that is gone by then.
			k.Sleep(t, 10*time.Second)
			send()
			k.Sleep(t, time.Duration(rng.IntN(60))*time.Millisecond)
			at := rng.IntN(len(all))
			k.Crash(t, kafkatest.Requests{Client: all[at].name})
			k.Sleep(t, 50*time.Millisecond)
			_ = all[at].stop()
			all = append(all[:at], all[at+1:]...)
		}
	}
	if len(all) == 0 {
		begin(100)
	}
}

var (
	placedToo = wherry.Event[order]{Topic: "order.placed.too"}
	errOften  = errors.New("not yet")
)

// Two topics, and the delay topics of both, share their part of a table.
func TestExactBreak_MembersComeAndGoWithHopsAndTables(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, []string{"order.placed:3", "order.placed.too:3", "counted:2"}, func(t *testing.T, k *kafkatest.Cluster) {
				k.WallLimit(2 * time.Minute)
				comeAndGo(t, k, seed, func(name string) *wherry.Consumer {
					c := counting(t, k, name, wherry.ByPartition)
					handle := func(ctx context.Context, o order) error {
						r := wherry.RecordFrom(ctx)
						if (o.Total+int(r.Offset))%5 == 0 && wherry.Attempt(ctx) < 3 {
							return errOften
						}
						// Hops run beside what has come behind them.
						id := fmt.Sprintf("%s-%s-%d", r.Topic, o.ID, wherry.Attempt(ctx))
						n, _, err := counts.Get(ctx, id)
						if err != nil {
							return err
						}
						n.N++
						if err := counts.Put(ctx, id, n); err != nil {
							return err
						}
						return counted.Publish(ctx, id, n)
					}
					c.Handlers = []wherry.Route{orderPlaced.Handler(handle), placedToo.Handler(handle)}
					c.Policies = []wherry.Policy{retry.Topics{Policy: retry.Policy{Attempts: 3, Initial: time.Second}, KeepOrder: true}}
					return c
				}, func() {
					sendRounds(t, k, 4, 1, 0)
					for key := range 4 {
						kafkatest.Send(t, k, placedToo, strconv.Itoa(key), order_(key))
					}
				})
				k.Sleep(t, 5*time.Minute)
				n := len(readAll(t, k, "order.placed"))
				require.EqualValues(t, n, sum(committed(t, k, "g", "order.placed")))
				require.EqualValues(t, n, sum(committed(t, k, "g", "order.placed.too")))
				seen := map[string]int{}
				for _, r := range readAll(t, k, counted.Topic) {
					v, err := counted.Decode(r)
					require.NoError(t, err)
					seen[string(r.Key)]++
					require.Equal(t, seen[string(r.Key)], v.N, "of %s", r.Key)
				}
				total := 0
				for _, n := range seen {
					total += n
				}
				require.Equal(t, 2*n, total)
			})
		})
	}
}

// Others open a producer of the owner's name, over and over: it goes on, and no
// effect is lost or doubled.
func TestExactBreak_SecondProducersOfItsName(t *testing.T) {
	t.Parallel()
	for _, by := range []wherry.Order{wherry.ByPartition, wherry.ByKey} {
		for pause := range 6 {
			t.Run(fmt.Sprint(by, " ", pause), func(t *testing.T) {
				t.Parallel()
				kafkatest.Test(t, exactTopics, func(t *testing.T, k *kafkatest.Cluster) {
					k.WallLimit(2 * time.Minute)
					stop := kafkatest.Run(t, counting(t, k, "first", by))
					begun := k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.InitProducerID}, Client: "first", Count: -1}, 0)
					// Between any two requests of a transaction.
					k.Delay(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.TxnOffsetCommit, kmsg.EndTxn}, Client: "first", Count: -1}, 3*time.Millisecond)
					cl := k.Client(t)
					for range 40 {
						sendRounds(t, k, 8, 1, time.Duration(4+3*pause)*time.Millisecond)
						w, err := txn.Open(t.Context(), cl, nil, "g/order.placed/0")
						require.NoError(t, err)
						if pause%2 == 0 { // and leaves a transaction open
							require.NoError(t, w.Begin())
							r, err := counted.Record("foreign", count{1})
							require.NoError(t, err)
							_ = w.Produce(t.Context(), []*kgo.Record{r})
						}
						w.Close()
					}
					k.Sleep(t, time.Minute)
					require.Greater(t, begun.Hits(), 5) // four without others
					require.EqualValues(t, 8*40, sum(committed(t, k, "g", "order.placed")))
					requireCounts(t, k, 8, 40)
					require.NoError(t, stop())
				})
			})
		}
	}
}
