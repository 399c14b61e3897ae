package billing_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/examples/shop/billing"
	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/kafkatest"
)

// What goes wrong in the NestJS system that this one takes the place of:
// docs/nestjs.md has the whole table.

var letters = wherry.Event[json.RawMessage]{Topic: events.BillingDeadLetters}

// There the group gives the member up while it waits, the order comes again and
// begins with its first attempt, and so for ever, with a dead letter each time.
func TestNestJS_ABackOffLongerThanTheSessionEndsInOneLetter(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, topics, func(t *testing.T, k *kafkatest.Cluster) {
		s := service(t, k, "fail")
		s.Client, s.RetryInitial = k.Client(t, kgo.SessionTimeout(10*time.Second)), time.Minute
		kafkatest.Run(t, s)
		adm := kadm.NewClient(k.Client(t))
		member := func() string {
			groups, err := adm.DescribeGroups(t.Context(), billing.Group)
			require.NoError(t, err)
			require.Len(t, groups[billing.Group].Members, 1)
			return groups[billing.Group].Members[0].MemberID
		}
		first, o := member(), order("99.99")
		kafkatest.Send(t, k, events.OrderCreated, o.ID, o)
		kafkatest.None(t, k, events.PaymentFailed, 7*time.Minute-time.Second)
		require.Equal(t, o.ID, kafkatest.Next(t, k, events.PaymentFailed).Order.ID)
		require.Equal(t, o.ID, string(kafkatest.NextRecord(t, k, letters.Topic).Key))
		kafkatest.None(t, k, events.PaymentFailed, time.Hour)
		kafkatest.None(t, k, letters, 0)
		require.Equal(t, first, member())
	})
}

// There a handler that never returns holds up all that its consumer reads.
func TestNestJS_AHandlerThatHangsHoldsUpItsOrderAlone(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, topics, func(t *testing.T, k *kafkatest.Cluster) {
		s := service(t, k, "ok")
		s.Payments = billing.Hanging(100)
		kafkatest.Run(t, s)
		begin := time.Now()
		dear := order("100.01")
		kafkatest.Send(t, k, events.OrderCreated, dear.ID, dear)
		for range 100 { // over all partitions, that of the first among them
			o := order("100")
			kafkatest.Send(t, k, events.OrderCreated, o.ID, o)
		}
		for range 100 {
			require.NotEqual(t, dear.ID, kafkatest.Next(t, k, events.PaymentCreated).OrderID)
		}
		require.Less(t, time.Since(begin), time.Second)
		failed := kafkatest.Next(t, k, events.PaymentFailed)
		require.Equal(t, dear.ID, failed.Order.ID)
		require.Contains(t, failed.Error, "did not answer")
		require.InDelta(t, 4*10*time.Second+7*time.Second, time.Since(begin), float64(200*time.Millisecond))
		require.Equal(t, dear.ID, string(kafkatest.NextRecord(t, k, letters.Topic).Key))
	})
}

// There nobody looks at what became of an event that was sent: the order stays
// pending, and nothing tells of it.
func TestNestJS_APublishThatFailsIsAFailedOrder(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, topics, func(t *testing.T, k *kafkatest.Cluster) {
		kafkatest.Run(t, service(t, k, "ok"))
		k.Refuse(t, kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: events.PaymentCreated.Topic, Count: -1}, kerr.TopicAuthorizationFailed)
		o := order("99.99")
		kafkatest.Send(t, k, events.OrderCreated, o.ID, o)
		failed := kafkatest.Next(t, k, events.PaymentFailed)
		require.Equal(t, o.ID, failed.Order.ID)
		r := kafkatest.NextRecord(t, k, letters.Topic)
		letter, err := dlq.Read(r)
		require.NoError(t, err)
		require.Equal(t, o.ID, string(letter.Key))
		require.Contains(t, letter.Error, "TOPIC_AUTHORIZATION_FAILED")
		kafkatest.None(t, k, events.PaymentCreated, time.Minute)
	})
}
