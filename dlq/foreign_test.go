package dlq_test

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
)

// foreign makes a record of headers "key: text", "key= hex bytes", or "key" with
// a null value, around an application's own.
func foreign(t testing.TB, lines ...string) *kgo.Record {
	t.Helper()
	r := &kgo.Record{Topic: "some.dlq", Partition: 1, Offset: 7, Timestamp: time.UnixMilli(1732290170000), Key: []byte("o-1"), Value: []byte("body")}
	for _, line := range lines {
		i := strings.IndexAny(line, ":=")
		switch {
		case i < 0:
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: line})
		case line[i] == ':':
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: line[:i], Value: []byte(strings.TrimPrefix(line[i+1:], " "))})
		default:
			v, err := hex.DecodeString(strings.ReplaceAll(line[i+1:], " ", ""))
			require.NoError(t, err)
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: line[:i], Value: v})
		}
	}
	return r
}

func TestDeadLettersOfOthersAreRead(t *testing.T) {
	t.Parallel()
	sent, failed := time.UnixMilli(1732290169000), time.UnixMilli(1732290170000)
	tests := []struct {
		name    string
		headers []string
		want    dlq.Letter // without what all of them have
	}{
		{
			"Spring, blocking",
			[]string{
				"tenant: a", "__TypeId__: com.shop.Order",
				"kafka_dlt-original-topic: orders", "kafka_dlt-original-partition= 00000003", "kafka_dlt-original-offset= 000000000000002a",
				"kafka_dlt-original-timestamp= 00000193548a48a8", "kafka_dlt-original-timestamp-type: CreateTime", "kafka_dlt-original-consumer-group: billing",
				"kafka_dlt-exception-fqcn: org.springframework.kafka.listener.ListenerExecutionFailedException", "kafka_dlt-exception-cause-fqcn: java.lang.IllegalStateException",
				"kafka_dlt-exception-message: Listener failed", "kafka_dlt-exception-stacktrace: at com.shop.Billing.pay",
			},
			dlq.Letter{
				Format: dlq.FormatSpring, Topic: "orders", Partition: 3, Offset: 42, Timestamp: sent, Group: "billing", Cause: wherry.CauseFailed,
				ErrorType: "java.lang.IllegalStateException", Error: "Listener failed", Stack: "at com.shop.Billing.pay", Failed: failed,
				Headers: textHeaders("tenant:a", "__TypeId__:com.shop.Order"),
			},
		},
		{
			"Spring, through two dead-letter topics: the first original headers are the origin's",
			[]string{
				"kafka_dlt-original-topic: orders", "kafka_dlt-original-partition= 00000003", "kafka_dlt-original-offset= 000000000000002a",
				"kafka_dlt-original-topic: orders.DLT", "kafka_dlt-original-partition= 00000000", "kafka_dlt-original-offset= 0000000000000001",
				"kafka_dlt-exception-fqcn: First", "kafka_dlt-exception-fqcn: Second",
			},
			dlq.Letter{Format: dlq.FormatSpring, Topic: "orders", Partition: 3, Offset: 42, Cause: wherry.CauseFailed, ErrorType: "Second", Failed: failed},
		},
		{
			"Spring, a value that does not deserialize: the Java object is not looked at",
			[]string{
				"springDeserializerExceptionValue= aced00057372", "kafka_dlt-original-topic: orders", "kafka_dlt-original-partition= 00000000", "kafka_dlt-original-offset= 0000000000000000",
				"kafka_dlt-exception-fqcn: org.springframework.kafka.support.serializer.DeserializationException", "kafka_dlt-exception-cause-fqcn: com.fasterxml.jackson.core.JsonParseException",
				"kafka_dlt-exception-message",
			},
			dlq.Letter{Format: dlq.FormatSpring, Topic: "orders", Cause: wherry.CauseUndecodable, ErrorType: "com.fasterxml.jackson.core.JsonParseException", Failed: failed},
		},
		{
			"Spring, a key that does not deserialize",
			[]string{
				"kafka_dlt-original-topic: orders", "kafka_dlt-key-exception-fqcn: org.springframework.kafka.support.serializer.DeserializationException",
				"kafka_dlt-key-exception-message: bad key", "kafka_dlt-key-exception-stacktrace: at Key",
			},
			dlq.Letter{
				Format: dlq.FormatSpring, Topic: "orders", Partition: -1, Offset: -1, Cause: wherry.CauseUndecodable, Failed: failed,
				ErrorType: "org.springframework.kafka.support.serializer.DeserializationException", Error: "bad key", Stack: "at Key",
			},
		},
		{
			"Spring, a value that its converter cannot read",
			[]string{
				"kafka_dlt-original-topic: orders", "kafka_dlt-exception-fqcn: org.springframework.kafka.listener.ListenerExecutionFailedException",
				"kafka_dlt-exception-cause-fqcn: org.springframework.kafka.support.converter.ConversionException", "kafka_dlt-exception-message: Listener failed; Failed to convert from JSON",
			},
			dlq.Letter{
				Format: dlq.FormatSpring, Topic: "orders", Partition: -1, Offset: -1, Cause: wherry.CauseUndecodable, Failed: failed,
				ErrorType: "org.springframework.kafka.support.converter.ConversionException", Error: "Listener failed; Failed to convert from JSON",
			},
		},
		{
			"Spring, retry topics",
			[]string{
				"kafka_original-topic: orders", "kafka_original-partition= 00000003", "kafka_original-offset= 000000000000002a",
				"kafka_original-timestamp= 00000193548a48a8", "kafka_original-timestamp-type: CreateTime", "kafka_dlt-original-consumer-group: billing",
				"retry_topic-original-timestamp= 0193548a48a8", "retry_topic-attempts= 00000004", "retry_topic-backoff-timestamp= 0193548a4c90",
				"kafka_exception-fqcn: ListenerExecutionFailedException", "kafka_exception-cause-fqcn: BankException", "kafka_exception-message: declined", "kafka_exception-stacktrace: at Bank",
			},
			dlq.Letter{
				Format: dlq.FormatSpringRetry, Topic: "orders", Partition: 3, Offset: 42, Timestamp: sent, Group: "billing", Cause: wherry.CauseFailed,
				ErrorType: "BankException", Error: "declined", Stack: "at Bank", Attempts: 3, Failed: failed,
			},
		},
		{
			"Spring, retry topics of an early version: attempts are one byte; all values are retained",
			[]string{
				"kafka_original-topic: orders", "retry_topic-attempts= 02", "retry_topic-attempts= 03",
				"retry_topic-original-timestamp= 0193548a48a8", "kafka_exception-fqcn: E",
			},
			dlq.Letter{Format: dlq.FormatSpringRetry, Topic: "orders", Partition: -1, Offset: -1, Timestamp: sent, Cause: wherry.CauseFailed, ErrorType: "E", Attempts: 2, Failed: failed},
		},
		{
			"Kafka Connect",
			[]string{
				"__connect.errors.topic: orders", "__connect.errors.partition: 3", "__connect.errors.offset: 42", "__connect.errors.connector.name: sink", "__connect.errors.task.id: 0",
				"__connect.errors.stage: VALUE_CONVERTER", "__connect.errors.class.name: JsonConverter", "__connect.errors.exception.class.name: DataException",
				"__connect.errors.exception.message: no JSON", "__connect.errors.exception.stacktrace: at Converter", "tenant: a",
			},
			dlq.Letter{
				Format: dlq.FormatConnect, Topic: "orders", Partition: 3, Offset: 42, Timestamp: failed, Group: "connect-sink", Cause: wherry.CauseUndecodable,
				ErrorType: "DataException", Error: "no JSON", Stack: "at Converter", Headers: textHeaders("tenant:a"),
			},
		},
		{
			"Kafka Connect, a task that failed without a message",
			[]string{"__connect.errors.topic: ", "__connect.errors.partition: -1", "__connect.errors.offset: -1", "__connect.errors.stage: TASK_PUT", "__connect.errors.exception.message"},
			dlq.Letter{Format: dlq.FormatConnect, Partition: -1, Offset: -1, Timestamp: failed, Cause: wherry.CauseFailed},
		},
		{
			"Kafka Streams",
			[]string{
				"__streams.errors.exception: org.apache.kafka.common.errors.SerializationException: Size of data", "__streams.errors.message: Size of data", "__streams.errors.stacktrace: at Serde",
				"__streams.errors.topic: orders", "__streams.errors.partition: 3", "__streams.errors.offset: 42",
			},
			dlq.Letter{
				Format: dlq.FormatStreams, Topic: "orders", Partition: 3, Offset: 42, Timestamp: failed, Cause: wherry.CauseFailed,
				ErrorType: "org.apache.kafka.common.errors.SerializationException", Error: "Size of data", Stack: "at Serde",
			},
		},
		{
			"Kafka Streams, a null message",
			[]string{"__streams.errors.exception: java.lang.NullPointerException", "__streams.errors.message", "__streams.errors.topic: orders"},
			dlq.Letter{Format: dlq.FormatStreams, Topic: "orders", Partition: -1, Offset: -1, Timestamp: failed, Cause: wherry.CauseFailed, ErrorType: "java.lang.NullPointerException"},
		},
		{
			"a share group",
			[]string{
				"__dlq.errors.topic: orders", "__dlq.errors.partition: 3", "__dlq.errors.offset: 42", "__dlq.errors.group: workers", "__dlq.errors.delivery.count: 5",
				"__dlq.errors.message: Offset delivery count exceeded the threshold.",
			},
			dlq.Letter{
				Format: dlq.FormatShareGroup, Topic: "orders", Partition: 3, Offset: 42, Group: "workers", Cause: wherry.CauseExhausted, Attempts: 5,
				Error: "Offset delivery count exceeded the threshold.", Failed: failed,
			},
		},
		{
			"Spring Cloud Stream",
			[]string{
				"contentType: application/json", "x-original-topic: orders", "x-original-partition= 00000003", "x-original-offset= 000000000000002a",
				"x-original-timestamp= 00000193548a48a8", "x-original-timestamp-type: CreateTime", "x-exception-fqcn: E", "x-exception-message: no", "x-exception-stacktrace: at E",
			},
			dlq.Letter{
				Format: dlq.FormatSpringCloudStream, Topic: "orders", Partition: 3, Offset: 42, Timestamp: sent, Cause: wherry.CauseFailed,
				ErrorType: "E", Error: "no", Stack: "at E", Failed: failed, Headers: textHeaders("contentType:application/json"),
			},
		},
		{
			"SmallRye: the first values are the newest",
			[]string{
				"dead-letter-exception-class-name: java.lang.RuntimeException", "dead-letter-reason: cannot pay", "dead-letter-cause-class-name: BankException", "dead-letter-cause: declined",
				"dead-letter-topic: orders", "dead-letter-partition: 3", "dead-letter-offset: 42",
				"tenant: a", "dead-letter-reason: before", "dead-letter-topic: orders", "dead-letter-offset: 41",
			},
			dlq.Letter{
				Format: dlq.FormatSmallRye, Topic: "orders", Partition: 3, Offset: 42, Cause: wherry.CauseFailed, ErrorType: "BankException",
				Error: "cannot pay: declined", Failed: failed, Headers: textHeaders("tenant:a"),
			},
		},
		{
			"Watermill",
			[]string{"_watermill_message_uuid: 1", "reason_poisoned: declined", "topic_poisoned: orders", "handler_poisoned: pay", "subscriber_poisoned: kafka.Subscriber"},
			dlq.Letter{
				Format: dlq.FormatWatermill, Topic: "orders", Partition: -1, Offset: -1, Cause: wherry.CauseFailed, Error: "declined", Failed: failed,
				Headers: textHeaders("_watermill_message_uuid:1"),
			},
		},
		{
			"Wolverine, which does not tell from where",
			[]string{"exception-type: System.InvalidOperationException", "exception-message: no", "exception-stack: at Pay", "failed-at: 1732290169000"},
			dlq.Letter{Format: dlq.FormatWolverine, Partition: -1, Offset: -1, Cause: wherry.CauseFailed, ErrorType: "System.InvalidOperationException", Error: "no", Stack: "at Pay", Failed: sent},
		},
		{
			"Wolverine, which does",
			[]string{
				"exception-type: E", "exception-message: no", "exception-stack: ", "failed-at: 1732290169000",
				"original-destination: kafka://topic/orders", "original-partition: 3", "original-offset: 42",
			},
			dlq.Letter{Format: dlq.FormatWolverine, Topic: "orders", Partition: 3, Offset: 42, Cause: wherry.CauseFailed, ErrorType: "E", Error: "no", Failed: sent},
		},
		{
			"none that is known",
			[]string{"tenant: a", "x-original-topic: somewhere", "exception-type: mine"},
			dlq.Letter{Format: dlq.FormatUnknown, Partition: -1, Offset: -1, Headers: textHeaders("tenant:a", "x-original-topic:somewhere", "exception-type:mine")},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := foreign(t, test.headers...)
			got, err := dlq.Read(r)
			require.NoError(t, err)
			test.want.Record, test.want.Key, test.want.Value = r, r.Key, r.Value
			if len(got.Headers) == 0 {
				got.Headers = nil
			}
			require.Equal(t, &test.want, got)
			require.Equal(t, foreign(t, test.headers...), r, "the record is not changed")
		})
	}
}

func TestAShareGroupsLetterIsMissingItsRecordUnlessItWasCopied(t *testing.T) {
	t.Parallel()
	headers := []string{"__dlq.errors.topic: orders", "__dlq.errors.partition: 3", "__dlq.errors.offset: 42", "__dlq.errors.group: workers", "__dlq.errors.message: Offset rejected by client."}
	l, err := dlq.Read(foreign(t, headers...))
	require.NoError(t, err)
	require.False(t, l.Missing)
	require.Equal(t, wherry.CausePermanent, l.Cause)

	r := foreign(t, headers...)
	r.Key, r.Value = nil, nil
	l, err = dlq.Read(r)
	require.NoError(t, err)
	require.True(t, l.Missing)

	r.Value = []byte{}
	l, err = dlq.Read(r)
	require.NoError(t, err)
	require.False(t, l.Missing, "a copied record without a key, whose value is empty")
}

func TestTheLastFailureIsTheOneThatIsTold(t *testing.T) {
	t.Parallel()
	const (
		spring    = "kafka_dlt-original-topic: %s"
		ours      = "wherry-dlq-topic: %s"
		connect   = "__connect.errors.topic: %s"
		smallRye  = "dead-letter-reason: x|dead-letter-topic: %s"
		watermill = "reason_poisoned: x|topic_poisoned: %s"
	)
	of := func(pattern, topic string) []string {
		return strings.Split(strings.ReplaceAll(pattern, "%s", topic), "|")
	}
	tests := []struct {
		name          string
		first, second string
		want          dlq.Format
	}{
		{"Spring's letter failed in a Consumer of ours", spring, ours, dlq.FormatWherry},
		{"our letter failed in Spring", ours, spring, dlq.FormatSpring},
		{"Spring's letter failed in Connect", spring, connect, dlq.FormatConnect},
		{"our letter failed in ours", ours, ours, dlq.FormatWherry},
		{"SmallRye's letter failed in ours", smallRye, ours, dlq.FormatWherry},
		{"our letter failed in Watermill", ours, watermill, dlq.FormatWatermill},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			inner := of(test.first, "orders")
			l, err := dlq.Read(foreign(t, append(append([]string{}, inner...), of(test.second, "orders.dlq")...)...))
			require.NoError(t, err)
			require.Equal(t, test.want, l.Format)
			require.Equal(t, "orders.dlq", l.Topic)
			require.Equal(t, foreign(t, inner...).Headers, l.Headers, "the first failure's are its own")
			require.Equal(t, foreign(t, inner...).Headers, l.Original().Headers, "and go back to the dead-letter topic")
		})
	}
}

func TestAGarbledLetterIsAnErrorAndTellsWhatItCan(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		headers []string
		want    string
	}{
		{"a short int32", []string{"kafka_dlt-original-topic: orders", "kafka_dlt-original-partition= 0003"}, "kafka_dlt-original-partition has 2 bytes instead of 4"},
		{"a long int64", []string{"kafka_dlt-original-topic: orders", "kafka_dlt-original-offset= 000000000000000003"}, "kafka_dlt-original-offset has 9 bytes instead of 8"},
		{"text for an int32", []string{"x-original-topic: orders", "x-exception-message: no", "x-original-partition: 0"}, "x-original-partition has 1 bytes"},
		{"a BigInteger of 9 bytes", []string{"kafka_original-topic: orders", "retry_topic-original-timestamp= 010203040506070809"}, "retry_topic-original-timestamp has 9 bytes"},
		{"attempts of 3 bytes", []string{"kafka_original-topic: orders", "retry_topic-attempts= 010203"}, "retry_topic-attempts is 010203"},
		{"no number", []string{"__connect.errors.topic: orders", "__connect.errors.partition: three"}, `__connect.errors.partition is "three"`},
		{"a partition beyond int32", []string{"__streams.errors.topic: orders", "__streams.errors.partition: 4294967296"}, "__streams.errors.partition is"},
		{"a negative offset", []string{"__dlq.errors.topic: orders", "__dlq.errors.offset: -2"}, "__dlq.errors.offset is"},
		{"no time", []string{"wherry-dlq-topic: orders", "wherry-dlq-failed: yesterday"}, `wherry-dlq-failed is "yesterday"`},
		{"a format of tomorrow", []string{"wherry-dlq-topic: orders", "wherry-dlq-format: cbor"}, `wherry-dlq-format is "cbor"`},
		{"an envelope without one", []string{"wherry-dlq-topic: orders", "wherry-dlq-format: envelope"}, "the envelope"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l, err := dlq.Read(foreign(t, test.headers...))
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, "some.dlq/1@7")
			require.Equal(t, "orders", l.Topic)
			require.NotNil(t, l.Original())
		})
	}
}

// FuzzRead: whatever the bytes are, reading them ends, soon, with a letter.
func FuzzRead(f *testing.F) {
	f.Add([]byte("body"), "kafka_dlt-original-topic", []byte("orders"), "kafka_dlt-original-partition", []byte{0, 0, 0, 1}, uint16(1))
	f.Add([]byte("body"), "kafka_original-topic", []byte("orders"), "retry_topic-attempts", []byte{1}, uint16(1))
	f.Add([]byte("body"), "kafka_original-topic", []byte("orders"), "retry_topic-original-timestamp", []byte{0xff}, uint16(1))
	f.Add([]byte("body"), "__connect.errors.topic", []byte("orders"), "__connect.errors.offset", []byte("1"), uint16(1))
	f.Add([]byte("body"), "reason_poisoned", []byte("no"), "topic_poisoned", []byte("orders"), uint16(1))
	f.Add([]byte("body"), "exception-type", []byte("no"), "failed-at", []byte("0"), uint16(1))
	f.Add([]byte("body"), "wherry-dlq-topic", []byte("orders"), "wherry-dlq-topic", []byte("orders"), uint16(1000))
	f.Add([]byte(`{"originalMessage":{"headers":{"a":["b",null]}},"error":{}}`), "wherry-dlq-topic", []byte("orders"), "wherry-dlq-format", []byte("envelope"), uint16(1))
	f.Add([]byte(`{"originalMessage":{"headerList":[{"key":"a","value":"AA==","encoding":"base64"}]},"error":{}}`), "a", []byte(""), "b", []byte(nil), uint16(1))
	f.Add([]byte(`{"originalMessage":{"key":{"type":"Buffer","data":[0,255]},"value":[]},"failedAt":"x","retryCount":"9"}`), "a", []byte(""), "b", []byte(nil), uint16(0))
	f.Fuzz(func(t *testing.T, value []byte, k1 string, v1 []byte, k2 string, v2 []byte, repeat uint16) {
		r := &kgo.Record{Topic: "some.dlq", Value: value, Key: v2}
		for range repeat % 2000 {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: k1, Value: v1}, kgo.RecordHeader{Key: k2, Value: v2})
		}
		begun := time.Now()
		l, err := dlq.Read(r)
		require.NotNil(t, l)
		require.Same(t, r, l.Record)
		require.GreaterOrEqual(t, l.Partition, int32(-1))
		require.GreaterOrEqual(t, l.Offset, int64(-1))
		require.GreaterOrEqual(t, l.Attempts, 0)
		if l.Format == dlq.FormatUnknown {
			require.NoError(t, err)
		}
		require.Equal(t, l.Topic, l.Original().Topic)
		require.Less(t, time.Since(begun), 5*time.Second)
	})
}

// What Spring's JSON serializer made of the bytes that it could not read is
// undone, and nothing that only looks like it.
func TestSpringsWrappedBytesAreUnwrapped(t *testing.T) {
	t.Parallel()
	const (
		failed  = "kafka_dlt-exception-fqcn: org.springframework.kafka.support.serializer.DeserializationException"
		other   = "kafka_dlt-exception-fqcn: org.springframework.kafka.listener.ListenerExecutionFailedException"
		topic   = "kafka_dlt-original-topic: orders"
		wrapped = "__TypeId__: [B"
	)
	tests := []struct {
		name, value string
		headers     []string
		want        string
		left        []kgo.RecordHeader
	}{
		{"wrapped", `"bm8ganNvbg=="`, []string{"tenant: a", failed, topic, wrapped}, "no json", textHeaders("tenant:a")},
		{"of a record with a type", `"bm8ganNvbg=="`, []string{"__TypeId__: Order", failed, topic, wrapped}, "no json", textHeaders("__TypeId__:Order")},
		{"empty", `""`, []string{failed, topic, wrapped}, "", nil},
		{"the record's own type", `"bm8ganNvbg=="`, []string{wrapped, failed, topic}, `"bm8ganNvbg=="`, textHeaders("__TypeId__:[B")},
		{"another failure", `"bm8ganNvbg=="`, []string{other, topic, wrapped}, `"bm8ganNvbg=="`, textHeaders("__TypeId__:[B")},
		{"another type", `"bm8ganNvbg=="`, []string{failed, topic, "__TypeId__: java.lang.String"}, `"bm8ganNvbg=="`, textHeaders("__TypeId__:java.lang.String")},
		{"no base64", `"%"`, []string{failed, topic, wrapped}, `"%"`, textHeaders("__TypeId__:[B")},
		{"no string", `[1,2]`, []string{failed, topic, wrapped}, `[1,2]`, textHeaders("__TypeId__:[B")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := foreign(t, test.headers...)
			r.Value = []byte(test.value)
			l, err := dlq.Read(r)
			require.NoError(t, err)
			require.Equal(t, test.want, string(l.Value))
			require.NotNil(t, l.Value)
			require.Len(t, l.Headers, len(test.left))
			for i, h := range test.left {
				require.Equal(t, h, l.Headers[i])
			}
			require.Equal(t, test.value, string(r.Value), "the record is not changed")
			require.Equal(t, test.want, string(l.Original().Value))
		})
	}
}
