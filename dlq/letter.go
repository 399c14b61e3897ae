package dlq

import (
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/header"
)

// A Format says who wrote a dead letter, and how.
type Format string

// The formats that [Read] knows. The first two are those that a [Queue] writes.
const (
	// FormatWherry is the record that failed, byte for byte, with text headers
	// wherry-dlq-… after its own.
	FormatWherry Format = "wherry"
	// FormatEnvelope is a JSON document with the record in it, as services in
	// JavaScript write it who send what KafkaJS gave them and the error:
	//
	//	{"originalMessage":{"topic":"order.created","partition":0,"offset":"7",
	//	  "timestamp":"1732290169000","key":"o-1","value":{"id":"o-1"},"headers":{}},
	//	 "error":{"message":"declined","stack":"…","name":"Error"},
	//	 "failedAt":"2026-11-22T15:42:49.000Z","retryCount":3}
	FormatEnvelope Format = "envelope"
	// FormatSpring is Spring Kafka's DeadLetterPublishingRecoverer: headers
	// kafka_dlt-… (KafkaHeaders.DLT_*).
	FormatSpring Format = "spring"
	// FormatSpringRetry is Spring Kafka's retry topics and their dead-letter
	// topic: headers kafka_original-…, kafka_exception-… and retry_topic-….
	FormatSpringRetry Format = "spring-retry"
	// FormatConnect is Kafka Connect's DeadLetterQueueReporter, with
	// errors.deadletterqueue.context.headers.enable: headers __connect.errors.….
	FormatConnect Format = "connect"
	// FormatStreams is Kafka Streams (KIP-1034): headers __streams.errors.…. The
	// headers of the record that failed are not in the letter.
	FormatStreams Format = "streams"
	// FormatShareGroup is a broker that dead-letters for a share group
	// (KIP-1191): headers __dlq.errors.…. The headers of the record that failed
	// are never in the letter, and key and value only where
	// errors.deadletterqueue.copy.record.enable is set; see Letter.Missing.
	FormatShareGroup Format = "share-group"
	// FormatSpringCloudStream is Spring Cloud Stream's Kafka binder: headers
	// x-original-… and x-exception-….
	FormatSpringCloudStream Format = "spring-cloud-stream"
	// FormatSmallRye is SmallRye Reactive Messaging's KafkaDeadLetterQueue, and
	// so Quarkus: headers dead-letter-….
	FormatSmallRye Format = "smallrye"
	// FormatWatermill is Watermill's PoisonQueue: headers ending in _poisoned.
	FormatWatermill Format = "watermill"
	// FormatWolverine is Wolverine's DeadLetterQueueConstants: headers
	// exception-… and failed-at.
	FormatWolverine Format = "wolverine"
	// FormatUnknown is any other record: it is its own payload, and nothing is
	// known of where it failed.
	FormatUnknown Format = "unknown"
)

// A Letter is a dead letter, whoever wrote it: the record that failed, and what
// is known of its failure. What is not known is zero, but for Partition and
// Offset.
type Letter struct {
	// Record is the dead letter as it was read, with its own topic, partition
	// and offset. nil for a letter that has not been written yet.
	Record *kgo.Record
	// Format says who wrote it.
	Format Format

	// Topic, Partition, Offset and Timestamp are those of the record that
	// failed. Partition and Offset are -1 where they are not known, Topic is
	// empty then.
	Topic     string
	Partition int32
	Offset    int64
	Timestamp time.Time
	// Group is the consumer group in which it failed, of Kafka Connect the
	// group of the connector.
	Group string

	// Key, Value and Headers are those of the record that failed, byte for
	// byte; nil and empty differ. Headers are without those that tell of the
	// failure. (In a letter of FormatWherry that was sent under wherry.Telemetry,
	// traceparent and tracestate are those of its sending.)
	Key, Value []byte
	Headers    []kgo.RecordHeader

	// Cause says in one word why it failed. Of letters that others wrote it is
	// wherry.CauseFailed unless they tell more.
	Cause wherry.Cause
	// Error is the error's text, ErrorType its type: a Go type ("*net.OpError"),
	// a Java or .NET class, the name of a JavaScript Error.
	Error, ErrorType string
	// Stack is a stack trace, or the beginning of it.
	Stack string
	// Attempts is how often the record was tried, 0 where that is not known.
	Attempts int
	// FirstFailed is when it failed first, Failed when it failed at last. Of
	// letters whose writer does not say, Failed is the letter's own timestamp
	// where that is the time of writing.
	FirstFailed, Failed time.Time
	// Replays is how often the record was replayed before it failed again.
	Replays int
	// Missing says that key and value are not in the letter and have to be
	// fetched from Topic, Partition and Offset, if retention has left them
	// there. Only FormatShareGroup knows such letters.
	Missing bool
}

// Original returns the record to replay: a new one for l.Topic with the key,
// value and headers of the record that failed, byte for byte. It has no
// timestamp, because a broker may refuse or delete at once what is old
// (message.timestamp.before.max.ms, retention.ms), and no partition. Its
// slices of bytes are shared with l.
//
// Left out are headers that would tell the next reader something wrong: what is
// left of earlier failures (somebody replayed the record with a dead letter's
// headers on it), the failing framework's notes to itself, the trace of the
// failed attempt (traceparent, tracestate: a replay is a trace of its own,
// linked to it), and what a replicator wrote about the record's way
// (__replicator_id, Confluent Replicator's provenance.header.enable).
func (l *Letter) Original() *kgo.Record {
	headers := l.Headers
	// A letter that was dead-lettered in its turn keeps the headers of its first
	// failure: it goes back to a dead-letter topic, whose reader needs them. They
	// differ from stale ones in that they tell of another topic.
	var nested *dialect
	for range maxStale {
		d := recognize(headers)
		if d == nil {
			break
		}
		var failed Letter
		if d.read(&reading{headers: headers}, &failed); failed.Topic != l.Topic {
			nested = d
			break
		}
		headers = d.strip(headers)
	}
	headers = slices.DeleteFunc(slices.Clone(headers), func(h kgo.RecordHeader) bool {
		switch {
		case nested != nil && nested.owns(h.Key):
			return false
		case h.Key == "traceparent", h.Key == "tracestate", h.Key == "__replicator_id":
			return true
		}
		// The second are Java-serialized exceptions: SerializationUtils of Spring
		// Kafka, ErrorHandlingDeserializer.
		return strings.HasPrefix(h.Key, header.DeadPrefix) || strings.HasPrefix(h.Key, springDeserializer)
	})
	return &kgo.Record{Topic: l.Topic, Key: l.Key, Value: l.Value, Headers: headers}
}

// maxStale bounds how many failures are peeled off one record.
const maxStale = 10

const springDeserializer = "springDeserializerException"
