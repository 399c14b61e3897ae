package dlq_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/retry"
)

// A record that was retried, in place or by delay topics, tells how often, from
// when on, and of the record that failed at first.
func TestTheLetterOfARecordThatWasRetried(t *testing.T) {
	t.Parallel()
	again := retry.Policy{Attempts: 3, Initial: time.Second}
	for name, policy := range map[string]wherry.Policy{"in place": again, "by delay topics": retry.Topics{Policy: again}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kafkatest.Test(t, []string{"orders:1", "billing.dlq:1"}, func(t *testing.T, k *kafkatest.Cluster) {
				kafkatest.Run(t, &wherry.Consumer{
					Client: k.Client(t), Group: "billing", Policies: []wherry.Policy{&dlq.Queue{Topic: "billing.dlq"}, policy}, Handlers: queueHandler(queueFails(errBank)),
				})
				sent := kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders", Key: []byte("o-1"), Value: []byte("v"), Headers: textHeaders("tenant:a")})
				l := queueLetter(t, k, "billing.dlq")
				require.Equal(t, []any{wherry.CauseExhausted, "card declined", "*errors.errorString", 3}, []any{l.Cause, l.Error, l.ErrorType, l.Attempts})
				require.Equal(t, []any{"orders", int32(0), sent.Offset, sent.Headers}, []any{l.Topic, l.Partition, l.Offset, l.Headers})
				require.WithinDuration(t, sent.Timestamp, l.Timestamp, time.Millisecond)
				require.Equal(t, 3*time.Second, l.Failed.Sub(l.FirstFailed).Round(100*time.Millisecond))
			})
		})
	}
}

// While the gate is shut a probe is all attempts of the policies inside.
func TestAttemptsOfProbesAreAddedUp(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"orders:1", "billing.dlq:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		kafkatest.Run(t, &wherry.Consumer{
			Client: k.Client(t), Group: "billing", Handlers: queueHandler(queueFails(errBank)),
			Policies: []wherry.Policy{&dlq.Queue{Topic: "billing.dlq", Gate: dlq.Gate{After: 1, Probes: 2}}, retry.Policy{Attempts: 3, Initial: time.Second}},
		})
		kafkatest.SendRecord(t, k, &kgo.Record{Topic: "orders"})
		l := queueLetter(t, k, "billing.dlq")
		require.Equal(t, 9, l.Attempts)
		require.Equal(t, 24*time.Second, l.Failed.Sub(l.FirstFailed).Round(time.Second), "three times 3 s, and probes after 5 s and 10 s")
	})
}

// Delay topics take records away with nil: the gate looks at what the handler
// said.
func TestTheGateShutsWhileRecordsGoToDelayTopics(t *testing.T) {
	t.Parallel()
	kafkatest.Test(t, []string{"orders:1", "billing.dlq:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		gateFill(t, k, 1, 20)
		b := newGateBank()
		kafkatest.Run(t, &wherry.Consumer{
			Client: k.Client(t), Group: "billing", Handlers: queueHandler(b.handle),
			Policies: []wherry.Policy{&dlq.Queue{Topic: "billing.dlq", Gate: dlq.Gate{After: 3}}, retry.Topics{Policy: retry.Policy{Attempts: 3, Initial: time.Hour}}},
		})
		k.Sleep(t, 2*time.Minute)
		require.Less(t, len(b.times()), 10, "some are handed on, and then one at each probe")
		b.set(false)
		k.Sleep(t, 4*time.Hour)
		require.Len(t, b.keys(), 20)
		gateLetters(t, k, 0)
	})
}
