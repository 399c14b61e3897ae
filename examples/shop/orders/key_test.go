package orders_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/examples/shop/orders"
	"github.com/wherry-go/wherry/kafkatest"
)

// How long a test waits for what has to happen.
const (
	wait = 60 * time.Second
	tick = 20 * time.Millisecond
)

const key = "8e03978e-40d5-43e8-bc93-6894a57f9324"

// told returns how often order.created was told, by order.
func told(t *testing.T, k *kafkatest.Cluster) map[string]int {
	t.Helper()
	topic := events.OrderCreated.Topic
	cl := k.Client(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	ends, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), topic)
	require.NoError(t, err)
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	all := map[string]int{}
	for len(left) > 0 {
		fetches := cl.PollFetches(t.Context())
		require.NoError(t, fetches.Err())
		for r := range fetches.RecordsAll() {
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			if !r.Attrs.IsControl() {
				all[string(r.Key)]++
			}
		}
	}
	return all
}

func keyed(t *testing.T, s *orders.Service, n orders.NewOrder, key string) events.Order {
	t.Helper()
	o, err := s.Place(t.Context(), n, key)
	require.NoError(t, err)
	return o
}

func TestKeyPlacesOneOrderAndGetsTheSameAnswerEachTime(t *testing.T) {
	t.Parallel()
	k := onACluster(t)
	s := service(k.Client(t))
	stop := kafkatest.Run(t, s)
	o := keyed(t, s, newOrder, key)
	require.NoError(t, uuid.Validate(o.ID))
	require.Equal(t, o, keyed(t, s, newOrder, key))
	require.NotEqual(t, o.ID, keyed(t, s, newOrder, "another").ID)
	without, another := place(t, s), place(t, s)
	require.NotEqual(t, without.ID, another.ID, "without a key each is an order")
	// Whatever has become of it.
	kafkatest.SendRecord(t, k, payment(t, o))
	becomes(t, s, o.ID, events.Paid)
	require.Equal(t, o, keyed(t, s, newOrder, key))
	// In another process, after this one.
	require.NoError(t, stop())
	s = service(k.Client(t))
	kafkatest.Run(t, s)
	require.Equal(t, o, keyed(t, s, newOrder, key))
	settled(t, k)
	require.Equal(t, events.Paid, becomes(t, s, o.ID, events.Paid).Status)
	all := told(t, k)
	require.Len(t, all, 4)
	require.Equal(t, 1, all[o.ID])
}

// The first answer is given again though nobody could place an order now.
func TestAnswerOfAKeyNeedsNoAuth(t *testing.T) {
	t.Parallel()
	_, cl := cluster(t)
	s := service(cl)
	kafkatest.Run(t, s)
	o := keyed(t, s, newOrder, key)
	s.AuthGroup = "nobody"
	_, err := s.Place(t.Context(), newOrder, "")
	var unanswered *orders.UnansweredError
	require.ErrorAs(t, err, &unanswered)
	require.Equal(t, o, keyed(t, s, newOrder, key))
}

func TestKeyThatIsReusedForAnotherOrder(t *testing.T) {
	t.Parallel()
	k := onACluster(t)
	s := service(k.Client(t))
	kafkatest.Run(t, s)
	o := keyed(t, s, newOrder, key)
	other := newOrder
	other.TotalAmount = "100"
	_, err := s.Place(t.Context(), other, key)
	var reused *orders.ReusedKeyError
	require.ErrorAs(t, err, &reused)
	require.Equal(t, o.ID, reused.OrderID)
	settled(t, k)
	require.Equal(t, map[string]int{o.ID: 1}, told(t, k))
}

func TestKeyOfARefusedOrderIsFree(t *testing.T) {
	t.Parallel()
	_, cl := cluster(t)
	s := service(cl)
	kafkatest.Run(t, s)
	s.AuthGroup = "nobody"
	_, err := s.Place(t.Context(), newOrder, key)
	require.Error(t, err)
	s.AuthGroup = events.GetUser.Group
	other := newOrder
	other.TotalAmount = "1"
	require.Equal(t, "1", keyed(t, s, other, key).TotalAmount)
}

// Two processes and one key at once: one order, one answer. Where the orders differ,
// one is placed and the others are told so.
func TestKeyPlacesOneOrderInTwoProcessesAtOnce(t *testing.T) {
	t.Parallel()
	k := onACluster(t)
	services := []*orders.Service{service(k.Client(t)), service(k.Client(t))}
	for _, s := range services {
		kafkatest.Run(t, s)
	}
	for round := range 8 {
		key := key + strconv.Itoa(round)
		var group sync.WaitGroup
		placed, errs := make([]events.Order, 8), make([]error, 8)
		for i := range placed {
			n := newOrder
			if round%2 == 1 {
				n.TotalAmount = strconv.Itoa(1 + i/4)
			}
			group.Go(func() { placed[i], errs[i] = services[i%2].Place(t.Context(), n, key) })
		}
		group.Wait()
		var won events.Order
		ok := 0
		for i, err := range errs {
			if err == nil {
				won = placed[i]
				ok++
			}
		}
		want := 8
		if round%2 == 1 {
			want = 4
		}
		require.Equal(t, want, ok, "%v", errs)
		for i, err := range errs {
			if err == nil {
				require.Equal(t, won, placed[i])
				continue
			}
			var reused *orders.ReusedKeyError
			require.ErrorAs(t, err, &reused)
			require.Equal(t, won.ID, reused.OrderID)
		}
	}
	settled(t, k)
	all := told(t, k)
	require.Len(t, all, 8)
	for id, n := range all {
		require.Equal(t, 1, n, id)
	}
}

// The process dies at each step of an order, before and after the brokers have done
// what it asked them to; its client tries again elsewhere.
func TestKeyPlacesOneOrderWhereverTheProcessDies(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]kafkatest.Requests{
		"the user":       {Keys: []kmsg.Key{kmsg.Produce}, Topic: events.GetUser.Topic},
		"into the inbox": {Keys: []kmsg.Key{kmsg.Produce}, Topic: events.OrdersInbox},
		"the event":      {Keys: []kmsg.Key{kmsg.Produce}, Topic: events.OrderCreated.Topic},
		"the row":        {Keys: []kmsg.Key{kmsg.Produce}, Topic: events.OrdersTable},
		"the offsets":    {Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Group: orders.DecidingGroup},
		"its end":        {Keys: []kmsg.Key{kmsg.EndTxn}},
	} {
		for _, after := range []bool{false, true} {
			t.Run(name+", answered "+strconv.FormatBool(after), func(t *testing.T) {
				t.Parallel()
				kafkatest.Test(t, names(), func(t *testing.T, k *kafkatest.Cluster) {
					ensure(t, k)
					first := service(k.Client(t))
					stop := kafkatest.Run(t, first)
					crash := k.Crash
					if after {
						crash = k.CrashAfter
					}
					dead := crash(t, step)
					gaveUp := make(chan struct{})
					go func() {
						defer close(gaveUp)
						_, _ = first.Place(context.Background(), newOrder, key)
					}()
					dead.Wait(t, 1)
					go func() { _ = stop() }() // it cannot leave its groups any more

					second := service(k.Client(t))
					kafkatest.Run(t, second)
					k.Sleep(t, time.Minute) // until the first one is missed
					o := keyed(t, second, newOrder, key)
					<-gaveUp
					require.Equal(t, o, keyed(t, second, newOrder, key))
					k.Sleep(t, 2*time.Minute)
					require.Equal(t, map[string]int{o.ID: 1}, told(t, k))
					all, err := second.List(t.Context())
					require.NoError(t, err)
					require.Equal(t, []events.Order{o}, all)
				})
			})
		}
	}
}

// 503: the client does not know whether there is an order, and asks again with the
// same key.
func TestKeyPlacesOneOrderThoughTheFirstAnswerWasThatItIsNotKnown(t *testing.T) {
	t.Parallel()
	for name, dead := range map[string]kafkatest.Requests{
		"it is not decided in time": {Keys: []kmsg.Key{kmsg.EndTxn}, Count: -1},
		"it is not in the inbox":    {Keys: []kmsg.Key{kmsg.Produce}, Topic: events.OrdersInbox, Count: -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, names(), func(t *testing.T, k *kafkatest.Cluster) {
				ensure(t, k)
				s := service(k.Client(t))
				kafkatest.Run(t, s)
				fault := k.Refuse(t, dead, kerr.CoordinatorLoadInProgress)
				if dead.Topic != "" {
					fault.Remove()
					fault = k.Drop(t, dead)
				}
				_, err := s.Place(t.Context(), newOrder, key)
				var unconfirmed *orders.UnconfirmedError
				require.ErrorAs(t, err, &unconfirmed)
				fault.Remove()
				o := keyed(t, s, newOrder, key)
				require.Equal(t, unconfirmed.OrderID, o.ID)
				k.Sleep(t, 2*time.Minute)
				require.Equal(t, map[string]int{o.ID: 1}, told(t, k))
			})
		})
	}
}

// The brokers refuse the row: the order is a dead letter, and no order. The same key
// places it then, and the letter's replay does not do it again.
func TestKeyOfADeadLetterPlacesItsOrder(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, names(), func(t *testing.T, k *kafkatest.Cluster) {
		ensure(t, k)
		s := service(k.Client(t))
		kafkatest.Run(t, s)
		k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: events.OrdersTable}, kerr.TopicAuthorizationFailed)
		_, err := s.Place(t.Context(), newOrder, key)
		var unconfirmed *orders.UnconfirmedError
		require.ErrorAs(t, err, &unconfirmed)
		letter := kafkatest.NextRecord(t, k, orders.DeadLetters)
		o := keyed(t, s, newOrder, key)
		require.Equal(t, unconfirmed.OrderID, o.ID)
		kafkatest.SendRecord(t, k, &kgo.Record{Topic: events.OrdersInbox, Key: letter.Key, Value: letter.Value})
		k.Sleep(t, time.Minute)
		require.Equal(t, map[string]int{o.ID: 1}, told(t, k))
		require.Equal(t, o, becomes(t, s, o.ID, events.Pending))
	})
}
