package dlq

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// What Spring writes. Topics, groups, classes and texts are UTF-8, partitions
// int32, offsets and timestamps int64, both big-endian: maybeAddOriginalHeaders
// and addExceptionInfoHeaders of
// org.springframework.kafka.listener.DeadLetterPublishingRecoverer, whose
// default names are in KafkaHeaders (DLT_*) and, with retry topics, those of
// DeadLetterPublishingRecovererFactory. There setAppendOriginalHeaders(true),
// the default, adds the original-… headers once for each failure, so the first
// is the origin; of the exception's only the last one is left unless
// setStripPreviousExceptionHeaders(false).
var (
	springDialect = dialect{
		format: FormatSpring,
		owns:   springOwns("kafka_dlt-"),
		marks:  [][]string{{"kafka_dlt-original-topic"}, {"kafka_dlt-exception-fqcn"}, {"kafka_dlt-key-exception-fqcn"}},
		read:   func(in *reading, l *Letter) { readSpring(in, l, "kafka_dlt-") },
	}
	springRetryDialect = dialect{
		format: FormatSpringRetry,
		owns:   springOwns("kafka_original-", "kafka_exception-", "kafka_key-exception-", "retry_topic-", springGroup),
		marks:  [][]string{{"kafka_original-topic"}, {"kafka_exception-fqcn"}, {"kafka_key-exception-fqcn"}},
		read: func(in *reading, l *Letter) {
			readSpring(in, l, "kafka_")
			// The topic of the record's next failure gets one more than there
			// were attempts: addHeaders of DeadLetterPublishingRecovererFactory.
			// It was one byte before Spring Kafka read four.
			if n := in.attempts("retry_topic-attempts"); n > 0 {
				l.Attempts = max(n-1, 1)
			}
			if l.Timestamp.IsZero() {
				l.Timestamp = unixMilli(in.bigInteger("retry_topic-original-timestamp"))
			}
		},
	}
	// springCloudDialect is the binder's: getDlqSender and handleRecord of
	// KafkaMessageChannelBinder. It appends to what is there.
	springCloudDialect = dialect{
		format: FormatSpringCloudStream,
		owns:   prefix("x-original-", "x-exception-"),
		marks: [][]string{
			{"x-original-topic", "x-exception-message"},
			{"x-original-topic", "x-exception-fqcn"},
			{"x-original-topic", "x-exception-stacktrace"},
		},
		read: func(in *reading, l *Letter) {
			origin := reading{headers: in.headers, oldest: true}
			readOrigin(&origin, l, "x-original-")
			in.faults = append(in.faults, origin.faults...)
			l.ErrorType = in.text("x-exception-fqcn")
			l.Error, l.Stack = in.text("x-exception-message"), in.text("x-exception-stacktrace")
			l.Failed = written(l.Record)
		},
	}
)

const springGroup = "kafka_dlt-original-consumer-group" // with retry topics too

// springDeserialization is thrown by ErrorHandlingDeserializer, the others by
// converters: of a record, and of a listener's parameter.
const springDeserialization = "org.springframework.kafka.support.serializer.DeserializationException"

var springUndecodable = []string{
	springDeserialization,
	"org.springframework.kafka.support.converter.ConversionException",
	"org.springframework.messaging.converter.MessageConversionException",
}

func springOwns(prefixes ...string) func(string) bool {
	return prefix(append(prefixes, springDeserializer)...)
}

func readSpring(in *reading, l *Letter, pre string) {
	origin := reading{headers: in.headers, oldest: true}
	readOrigin(&origin, l, pre+"original-")
	l.Group = origin.text(springGroup)
	in.faults = append(in.faults, origin.faults...)
	// The exception itself is nearly always ListenerExecutionFailedException.
	l.ErrorType = in.text(pre+"exception-cause-fqcn", pre+"exception-fqcn", pre+"key-exception-fqcn")
	l.Error = in.text(pre+"exception-message", pre+"key-exception-message")
	l.Stack = in.text(pre+"exception-stacktrace", pre+"key-exception-stacktrace")
	value, key := in.text(pre+"exception-fqcn"), in.text(pre+"key-exception-fqcn")
	for _, class := range []string{value, key, l.ErrorType} {
		if slices.Contains(springUndecodable, class) {
			l.Cause = wherry.CauseUndecodable
		}
	}
	if value == springDeserialization {
		unwrapSpring(in, l)
	}
	l.Failed = written(l.Record)
}

// unwrapSpring takes the bytes that could not be deserialized out of what
// Spring's JSON serializer makes of them, a string of base64, where the template
// of the recoverer has no other serializer for bytes. That serializer appends
// its header __TypeId__ after all others.
func unwrapSpring(in *reading, l *Letter) {
	n := len(in.headers) - 1
	if l.Record == nil || n < 0 || in.headers[n].Key != springType || string(in.headers[n].Value) != "[B" {
		return
	}
	var b []byte
	if len(l.Value) > 0 && l.Value[0] == '"' && json.Unmarshal(l.Value, &b) == nil {
		l.Value, l.Headers = b, l.Headers[:len(l.Headers)-1]
	}
}

const springType = "__TypeId__"

func readOrigin(in *reading, l *Letter, pre string) {
	l.Topic = in.text(pre + "topic")
	l.Partition, l.Offset = in.int32(pre+"partition"), in.int64(pre+"offset")
	l.Timestamp = unixMilli(in.int64(pre + "timestamp"))
	if strings.HasPrefix(in.text(pre+"timestamp-type"), "NoTimestamp") {
		l.Timestamp = unixMilli(-1)
	}
}

// written is when a letter was written whose writer does not keep the failed
// record's timestamp.
func written(r *kgo.Record) (at time.Time) {
	if r != nil && r.Timestamp.UnixMilli() > 0 {
		at = r.Timestamp
	}
	return at
}
