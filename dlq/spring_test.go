package dlq_test

import (
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/internal/interop"
	"github.com/wherry-go/wherry/kafkatest"
)

// How the Spring application has its values: text and a converter, or JSON by
// its serializers.
var (
	springConv = map[string]string{"converter": "true"}
	springJSON = map[string]string{
		"spring.kafka.producer.value-serializer":                                    "org.springframework.kafka.support.serializer.JacksonJsonSerializer",
		"spring.kafka.consumer.value-deserializer":                                  "org.springframework.kafka.support.serializer.ErrorHandlingDeserializer",
		"spring.kafka.consumer.properties.spring.deserializer.value.delegate.class": "org.springframework.kafka.support.serializer.JacksonJsonDeserializer",
		"spring.kafka.consumer.properties.spring.json.value.default.type":           "wherry.Peer$User",
	}
)

// springLetters runs the Spring application that fails, on topics that begin
// with prefix.
func springLetters(t *testing.T, prefix string, values map[string]string) (*kafkatest.Cluster, *interop.Spring) {
	t.Helper()
	p := prefix + "."
	k := kafkatest.NewCluster(t, p+"pay:2", p+"pay-dlt:2", p+"ship:2", p+"ship-retry:2", p+"ship-dlt:2")
	values = maps.Clone(values)
	values["prefix"] = prefix
	return k, interop.OpenSpring(t, "Letters", k.Brokers(), values)
}

func sendSpring(t *testing.T, k *kafkatest.Cluster, topic, value string) *kgo.Record {
	t.Helper()
	r := &kgo.Record{
		Topic: topic, Key: []byte("k1"), Value: []byte(value),
		Headers: textHeaders("tenant:t1", "traceparent:00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
	}
	require.NoError(t, k.Client(t).ProduceSync(t.Context(), r).FirstErr())
	return r
}

func replay(t *testing.T, k *kafkatest.Cluster, topic string) dlq.Report {
	t.Helper()
	report, err := (&dlq.Replayer{Client: k.Client(t), Topic: topic}).Run(t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Failures)
	return report
}

// The dead letters of a DeadLetterPublishingRecoverer and of @RetryableTopic,
// read, replayed, failed again, and replayed once more when the listener works.
func TestSpringsDeadLettersAreReadAndReplayed(t *testing.T) {
	t.Parallel()
	k, app := springLetters(t, "l1", springConv)
	const order = `{ "id": "o-1", "name": "Ada" }` // whose whitespace a converter leaves as it is
	for topic, want := range map[string]dlq.Letter{
		"l1.pay":  {Format: dlq.FormatSpring, Group: "l1.billing", Attempts: 0, Error: "Listener method 'void wherry.Letters.pay(wherry.Peer$User,java.util.Map<java.lang.String, java.lang.Object>)' threw exception; declined: o-1"},
		"l1.ship": {Format: dlq.FormatSpringRetry, Group: "l1.shipping", Attempts: 3, Error: "Listener failed; declined: o-1"},
	} {
		sent := sendSpring(t, k, topic, order)
		check := func(l *dlq.Letter, err error) {
			t.Helper()
			require.NoError(t, err)
			require.Equal(t, []any{want.Format, topic, want.Group, want.Attempts, want.Error}, []any{l.Format, l.Topic, l.Group, l.Attempts, l.Error})
			require.Equal(t, []any{sent.Partition, wherry.CauseFailed, "java.lang.IllegalArgumentException"}, []any{l.Partition, l.Cause, l.ErrorType})
			require.Equal(t, []string{"k1", order}, []string{string(l.Key), string(l.Value)})
			require.Contains(t, l.Stack, "\tat org.springframework.kafka.listener.")
			require.False(t, l.Failed.Before(l.Timestamp))
		}
		for range 3 {
			require.JSONEq(t, order, string(app.Heard(t).Value))
		}
		l, err := dlq.Read(kafkatest.NextRecord(t, k, topic+"-dlt"))
		check(l, err)
		require.Equal(t, sent.Offset, l.Offset)
		require.WithinDuration(t, sent.Timestamp, l.Timestamp, time.Millisecond)
		require.Equal(t, sent.Headers, l.Headers)

		require.Equal(t, 1, replay(t, k, topic+"-dlt").Replayed)
		again := app.Heard(t)
		require.Equal(t, []string{"t1", "1"}, []string{again.Headers["tenant"], again.Headers["wherry-dlq-replays"]})
		for key := range again.Headers {
			require.NotContains(t, key, "dlt")
			require.NotContains(t, key, "exception")
			require.NotContains(t, key, "original")
			require.NotContains(t, key, "retry_topic")
			require.NotEqual(t, "traceparent", key)
		}
		for range 2 { // it has all its attempts again
			require.JSONEq(t, order, string(app.Heard(t).Value))
		}
		second, err := dlq.Read(kafkatest.NextRecord(t, k, topic+"-dlt"))
		check(second, err)
		require.Greater(t, second.Offset, l.Offset)
	}
	app.Do(t, "heal", nil)
	for _, topic := range []string{"l1.pay", "l1.ship"} {
		require.Equal(t, 1, replay(t, k, topic+"-dlt").Replayed) // the second letter: the first is decided
		h := app.Heard(t)
		require.JSONEq(t, order, string(h.Value))
		require.Equal(t, []string{topic, "2"}, []string{h.Headers["kafka_receivedTopic"], h.Headers["wherry-dlq-replays"]})
	}
}

// Bytes that are not what Spring expects are dead-lettered without an attempt,
// and come back as they were.
func TestWhatSpringCannotReadIsReplayedAsItWas(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		prefix    string
		values    map[string]string
		errorType string
	}{
		"a converter":                       {"l2", springConv, "org.springframework.kafka.support.converter.ConversionException"},
		"serializers, which wrap the bytes": {"l3", springJSON, "org.springframework.kafka.support.serializer.DeserializationException"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, _ := springLetters(t, test.prefix, test.values)
			for _, topic := range []string{test.prefix + ".pay", test.prefix + ".ship"} {
				sent := sendSpring(t, k, topic, "no json")
				record := kafkatest.NextRecord(t, k, topic+"-dlt")
				l, err := dlq.Read(record)
				require.NoError(t, err)
				require.Equal(t, []any{topic, sent.Partition, sent.Offset}, []any{l.Topic, l.Partition, l.Offset})
				require.Equal(t, []any{wherry.CauseUndecodable, test.errorType}, []any{l.Cause, l.ErrorType}, l.Stack)
				require.Equal(t, "no json", string(l.Value), "%q", record.Value)
				require.Equal(t, sent.Headers, l.Headers)
			}
		})
	}
}

// JSON serializers write what they read: the letter has the application's
// object, not the bytes that were sent.
func TestSpringsSerializersWriteALetterAnew(t *testing.T) {
	t.Parallel()
	k, app := springLetters(t, "l4", springJSON)
	sendSpring(t, k, "l4.pay", `{ "name": "Ada", "id": "o-1", "unknown": 1 }`)
	app.Heard(t)
	l, err := dlq.Read(kafkatest.NextRecord(t, k, "l4.pay-dlt"))
	require.NoError(t, err)
	require.JSONEq(t, `{"id":"o-1","name":"Ada"}`, string(l.Value))
	require.Equal(t, "wherry.Peer$User", string(l.Headers[len(l.Headers)-1].Value), "its __TypeId__")
}
