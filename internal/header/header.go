// Package header has the names of all headers that wherry puts on the wire,
// in one place, and reads and writes their values as text.
//
// Where a key is there more than once, the last one counts.
package header

import (
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Only on a record names the one consumer group that it is for: the Consumers
// of other groups pass it by.
const Only = "wherry-only-group"

// A record of a delay topic: where it came from, what became of it, and when
// it is due. See package retry.
const (
	RetryTopic     = "wherry-retry-topic"
	RetryPartition = "wherry-retry-partition"
	RetryOffset    = "wherry-retry-offset"
	RetryTimestamp = "wherry-retry-timestamp" // milliseconds since 1970
	RetryGroup     = "wherry-retry-group"
	RetryAttempts  = "wherry-retry-attempts" // how many were made
	RetryFirst     = "wherry-retry-first-failed"
	RetryDue       = "wherry-retry-due"
	RetryDeadline  = "wherry-retry-deadline"
	RetryError     = "wherry-retry-error"
	// RetryRound is how often the whole of what retry.Topics wraps has failed.
	// With a retry.Policy inside that is less than the attempts.
	RetryRound = "wherry-retry-round"
	// RetryUntil is before when no attempt may be made, where that is later
	// than the record is due in this topic.
	RetryUntil = "wherry-retry-until"
)

// A dead letter. See package dlq.
const (
	DeadTopic     = "wherry-dlq-topic"
	DeadPartition = "wherry-dlq-partition"
	DeadOffset    = "wherry-dlq-offset"
	DeadTimestamp = "wherry-dlq-timestamp" // milliseconds since 1970
	DeadGroup     = "wherry-dlq-group"
	DeadAttempts  = "wherry-dlq-attempts"
	DeadFirst     = "wherry-dlq-first-failed"
	DeadFailed    = "wherry-dlq-failed"
	DeadError     = "wherry-dlq-error"
	DeadErrorType = "wherry-dlq-error-type"
	DeadStack     = "wherry-dlq-stack"
	DeadCause     = "wherry-dlq-cause"
	DeadReplays   = "wherry-dlq-replays"
	DeadFormat    = "wherry-dlq-format" // absent in the default format
	DeadPrefix    = "wherry-dlq-"       // of all of these
)

// Request and reply. The first five are those of NestJS 12, of which Spring
// Kafka 4.1 has the first three; they are defaults. See package reqreply.
const (
	CorrelationID  = "kafka_correlationId"
	ReplyTopic     = "kafka_replyTopic"
	ReplyPartition = "kafka_replyPartition" // text, or an int32
	ReplyError     = "kafka_nest-err"
	ReplyEnd       = "kafka_nest-is-disposed"

	Deadline   = "wherry-deadline"    // of a request: after it nobody waits
	RequestID  = "wherry-request-id"  // of a request: the same in each attempt
	ReplySeq   = "wherry-reply-seq"   // of a reply that is one of a stream: which, from 0
	ReplyGroup = "wherry-reply-group" // of a reply: whose answer it is
)

// A record of a saga's inbox. See package saga.
const (
	SagaKind      = "wherry-saga-kind"    // none on a reply
	SagaVersion   = "wherry-saga-version" // of the Definition that a start was made with
	SagaTopic     = "wherry-saga-topic"   // of an event: where it was read
	SagaPartition = "wherry-saga-partition"
	SagaOffset    = "wherry-saga-offset"
	SagaKey       = "wherry-saga-key"     // of an event: its own key, if it has one
	SagaOutline   = "wherry-saga-outline" // of an answer to a client: the Definition, without code
	SagaPrefix    = "wherry-saga"         // of all of these
)

// Get returns the value of the last header of that key.
func Get(r *kgo.Record, key string) (value string, ok bool) {
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if r.Headers[i].Key == key {
			return string(r.Headers[i].Value), true
		}
	}
	return "", false
}

// Add adds a header to r.
func Add(r *kgo.Record, key, value string) {
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
}

// AddTime adds a header that is an instant.
func AddTime(r *kgo.Record, key string, t time.Time) {
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: key, Value: t.UTC().AppendFormat(make([]byte, 0, len(time.RFC3339Nano)), time.RFC3339Nano)})
}

// Set replaces all headers of that key. The headers of r are copied before:
// records that were forwarded share them.
func Set(r *kgo.Record, key, value string) {
	Strip(r, func(k string) bool { return k == key })
	Add(r, key, value)
}

// Strip removes the headers whose key matches, from a copy of r's headers.
func Strip(r *kgo.Record, match func(key string) bool) {
	r.Headers = slices.DeleteFunc(slices.Clone(r.Headers), func(h kgo.RecordHeader) bool { return match(h.Key) })
}

// Int returns a header that is a decimal number.
func Int(r *kgo.Record, key string) (n int64, ok bool) {
	text, ok := Get(r, key)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

// Time returns a header that is an RFC 3339 instant.
func Time(r *kgo.Record, key string) (t time.Time, ok bool) {
	text, ok := Get(r, key)
	if !ok {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	return t, err == nil
}

// FormatInt is how a number is written.
func FormatInt[N int | int32 | int64](n N) string { return strconv.FormatInt(int64(n), 10) }

// FormatTime is how an instant is written: RFC 3339, UTC, nanoseconds.
func FormatTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
