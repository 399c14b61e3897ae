package reqreply_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

var charge = reqreply.Method[order, receipt]{
	Topic: "charge",
	Key:   func(o order) string { return o.ID },
	ID:    func(o order) string { return o.ID },
}

type order struct {
	ID    string `json:"id"`
	Cents int    `json:"cents"`
}

type receipt struct {
	Order string `json:"order"`
	No    int64  `json:"no"`
}

var charged = wherry.Event[receipt]{Topic: "charged"}

// charging publishes an event with each answer, and numbers them.
func charging(n *atomic.Int64) func(context.Context, order) (receipt, error) {
	return func(ctx context.Context, o order) (receipt, error) {
		if o.Cents < 0 {
			return receipt{}, &reqreply.Error{Code: "negative", Message: fmt.Sprint("attempt ", n.Add(1))}
		}
		rc := receipt{Order: o.ID, No: n.Add(1)}
		return rc, charged.Publish(ctx, o.ID, rc)
	}
}

var chargeTopics = []string{"charge:2", "charge.reply:2", "charged:2"}

func TestExactlyOnceTheAnswerIsInTheTransaction(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, chargeTopics...)
	var n atomic.Int64
	serve(t, k, &wherry.Consumer{Delivery: wherry.ExactlyOnce, Order: wherry.ByKey}, charge.Handler(charging(&n)))
	c := caller(t, k, charge)
	for i := range 20 {
		rc, err := charge.Call(within(t, patience), c, order{ID: fmt.Sprint("o-", i)})
		require.NoError(t, err)
		require.EqualValues(t, i+1, rc.No)
	}
	kafkatest.ExactlyOnce(t, k, kafkatest.Effects{Inputs: []string{"charge"}, Outputs: []string{"charged"}, Group: "users"})
	require.Zero(t, c.Status().Late)
}

// The process of the server dies between handler and answer, and its successor
// answers: twice where the first answer was out already, once exactly once.
func TestTheServerCrashesBetweenHandlerAndAnswer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		delivery wherry.Delivery
		at       kmsg.Key
		after    bool
		answers  uint64
	}{
		{"at least once, before the answer", wherry.AtLeastOnce, kmsg.Produce, false, 1},
		{"at least once, after the answer and before the offset", wherry.AtLeastOnce, kmsg.OffsetCommit, false, 2},
		{"exactly once, before the answer", wherry.ExactlyOnce, kmsg.Produce, false, 1},
		{"exactly once, before the end of the transaction", wherry.ExactlyOnce, kmsg.EndTxn, false, 1},
		{"exactly once, after it", wherry.ExactlyOnce, kmsg.EndTxn, true, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, []string{"charge:1", "charge.reply:1", "charged:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				if !k.Virtual() {
					t.Skip("needs -tags synctests")
				}
				var n atomic.Int64
				server := func() *wherry.Consumer { return &wherry.Consumer{Delivery: test.delivery} }
				_, stop := serve(t, k, server(), charge.Handler(charging(&n)))
				first := k.Client(t) // another process than the server
				c := &reqreply.Caller{Client: first}
				kafkatest.Run(t, c)
				arm := k.Crash
				if test.after {
					arm = k.CrashAfter
				}
				requests := kafkatest.Requests{Keys: []kmsg.Key{test.at}, Topic: "charge.reply"}
				switch test.at { //nolint:exhaustive // the others of the table
				case kmsg.OffsetCommit:
					requests = kafkatest.Requests{Keys: []kmsg.Key{test.at}, Group: "users"}
				case kmsg.EndTxn:
					requests = kafkatest.Requests{Keys: []kmsg.Key{test.at}}
				}
				crash := arm(t, requests)
				answered := make(chan receipt, 1)
				go func() {
					m := charge
					m.Timeout = patience * 100
					rc, err := m.Call(context.Background(), c, order{ID: "o-1"})
					if err != nil {
						t.Error(err)
					}
					answered <- rc
				}()
				crash.Wait(t, 1)
				_ = stop()
				serve(t, k, server(), charge.Handler(charging(&n)))
				rc := <-answered
				require.Equal(t, "o-1", rc.Order)
				if test.delivery == wherry.ExactlyOnce {
					kafkatest.ExactlyOnce(t, k, kafkatest.Effects{Inputs: []string{"charge"}, Outputs: []string{"charged"}, Group: "users"})
				}
				// One more goes through, and all answers before it have come.
				_, err := charge.Call(within(t, patience), c, order{ID: "o-2"})
				require.NoError(t, err)
				s := c.Status()
				require.EqualValues(t, 2, s.Answered)
				require.Equal(t, test.answers-1, s.Late)
			})
		})
	}
}

func TestDedupeAnswersARequestThatComesAgainAsTheFirstTime(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, chargeTopics...)
	answers := &wherry.OwnedTable[reqreply.Answered]{Topic: "charge.answers"}
	m := charge
	m.Dedupe = answers
	var n atomic.Int64
	server := func() *wherry.Consumer {
		return &wherry.Consumer{Delivery: wherry.ExactlyOnce, Order: wherry.ByKey, Tables: []wherry.Owned{answers}}
	}
	counts, stop := serve(t, k, server(), m.Handler(charging(&n)))
	c := caller(t, k, m)
	first, err := m.Call(within(t, patience), c, order{ID: "o-1"})
	require.NoError(t, err)
	again, err := m.Call(within(t, patience), c, order{ID: "o-1"})
	require.NoError(t, err)
	require.Equal(t, first, again)
	for range 2 { // errors that are answers are kept too
		_, err = m.Call(within(t, patience), c, order{ID: "o-2", Cents: -1})
		require.ErrorContains(t, err, "attempt 2")
	}
	require.EqualValues(t, 2, counts().Repeated)
	require.EqualValues(t, 2, n.Load())
	require.NoError(t, stop())

	serve(t, k, server(), m.Handler(charging(&n))) // a successor knows them
	again, err = m.Call(within(t, patience), c, order{ID: "o-1"})
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.EqualValues(t, 2, n.Load())
	require.Equal(t, first, kafkatest.Next(t, k, charged))

	err = (&wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: []wherry.Route{m.Handler(charging(&n))}}).Run(t.Context())
	require.ErrorContains(t, err, "Dedupe needs")
}

func TestDedupeForgetsWhatIsOld(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"charge:1", "charge.reply:1", "charged:1", "nothing:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		if !k.Virtual() {
			t.Skip("needs -tags synctests")
		}
		answers := &wherry.OwnedTable[reqreply.Answered]{Topic: "charge.answers"}
		m := charge
		m.Dedupe, m.Keep = answers, time.Minute
		var n atomic.Int64
		serve(t, k, &wherry.Consumer{Delivery: wherry.ExactlyOnce, Tables: []wherry.Owned{answers}}, m.Handler(charging(&n)))
		c := caller(t, k, m)
		for i := range 255 {
			_, err := m.Call(context.Background(), c, order{ID: fmt.Sprint("o-", i)})
			require.NoError(t, err)
		}
		kafkatest.None(t, k, wherry.Event[string]{Topic: "nothing"}, 59*time.Second)
		_, err := m.Call(context.Background(), c, order{ID: "o-0"})
		require.NoError(t, err)
		require.EqualValues(t, 255, n.Load(), "it is kept")

		kafkatest.None(t, k, wherry.Event[string]{Topic: "nothing"}, 2*time.Minute)
		_, err = m.Call(context.Background(), c, order{ID: "o-0"})
		require.NoError(t, err)
		require.EqualValues(t, 256, n.Load(), "it is not, after Keep")
		sets, deletes := 0, 0
		for range 256 + 254 {
			if r := kafkatest.NextRecord(t, k, "charge.answers"); r.Value == nil {
				deletes++
			} else {
				sets++
			}
		}
		require.Equal(t, 256, sets)
		require.Equal(t, 254, deletes, "the table does not grow without end")
	})
}
