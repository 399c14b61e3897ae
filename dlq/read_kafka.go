package dlq

import (
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// What Apache Kafka itself writes: all text, numbers in decimal.
var (
	// connectDialect is populateContextHeaders of
	// org.apache.kafka.connect.runtime.errors.DeadLetterQueueReporter. It leaves
	// headers alone that are there already, and keeps the record's timestamp.
	connectDialect = dialect{
		format: FormatConnect,
		owns:   prefix("__connect.errors."),
		marks:  [][]string{{"__connect.errors.topic"}, {"__connect.errors.stage"}},
		read: func(in *reading, l *Letter) {
			const pre = "__connect.errors."
			readDecimalOrigin(in, l, pre)
			if name := in.text(pre + "connector.name"); name != "" {
				l.Group = "connect-" + name // SinkUtils.consumerGroupId, unless overridden
			}
			l.ErrorType = in.text(pre + "exception.class.name")
			l.Error, l.Stack = in.text(pre+"exception.message"), in.text(pre+"exception.stacktrace")
			// The stages are an enum of Stage: KEY_CONVERTER, VALUE_CONVERTER,
			// HEADER_CONVERTER, TRANSFORMATION, TASK_PUT, …
			if strings.HasSuffix(in.text(pre+"stage"), "_CONVERTER") {
				l.Cause = wherry.CauseUndecodable
			}
			l.Timestamp, l.Failed = stamped(l.Record)
		},
	}
	// streamsDialect is buildDeadLetterQueueRecord of
	// org.apache.kafka.streams.errors.ExceptionHandlerUtils (KIP-1034). The
	// exception is its toString, class and message; the message may be null. It
	// keeps the record's timestamp.
	streamsDialect = dialect{
		format: FormatStreams,
		owns:   prefix("__streams.errors."),
		marks:  [][]string{{"__streams.errors.topic"}, {"__streams.errors.exception"}},
		read: func(in *reading, l *Letter) {
			const pre = "__streams.errors."
			readDecimalOrigin(in, l, pre)
			l.ErrorType, l.Error, _ = strings.Cut(in.text(pre+"exception"), ": ")
			if text := in.text(pre + "message"); text != "" {
				l.Error = text
			}
			l.Stack = in.text(pre + "stacktrace")
			l.Timestamp, l.Failed = stamped(l.Record)
		},
	}
	// shareDialect is ProduceRequestHandler.headers of the broker's
	// org.apache.kafka.server.share.dlq.ShareGroupDLQStateManager (KIP-1191). The
	// topic is the topic's id where the broker did not find its name.
	shareDialect = dialect{
		format: FormatShareGroup,
		owns:   prefix("__dlq.errors."),
		marks:  [][]string{{"__dlq.errors.topic"}, {"__dlq.errors.group"}},
		read: func(in *reading, l *Letter) {
			const pre = "__dlq.errors."
			readDecimalOrigin(in, l, pre)
			l.Group = in.text(pre + "group")
			l.Attempts = in.count(pre + "delivery.count")
			l.Error = in.text(pre + "message")
			switch { // ShareGroupDLQManager's two causes
			case strings.Contains(l.Error, "delivery count exceeded"):
				l.Cause = wherry.CauseExhausted
			case strings.Contains(l.Error, "rejected by client"):
				l.Cause = wherry.CausePermanent
			}
			l.Failed = written(l.Record)
			l.Missing = l.Key == nil && l.Value == nil
		},
	}
)

func readDecimalOrigin(in *reading, l *Letter, pre string) {
	l.Topic = in.text(pre + "topic")
	l.Partition, l.Offset = in.partition(pre+"partition"), in.decimal(pre+"offset")
}

// stamped is for letters that keep the failed record's timestamp: it is that,
// unless the dead-letter topic is one of LogAppendTime.
func stamped(r *kgo.Record) (failedRecord, failed time.Time) {
	at := written(r)
	if r != nil && r.Attrs.TimestampType() == 1 {
		return time.Time{}, at
	}
	return at, time.Time{}
}
