package dlq

import (
	"net/url"
	"strings"
)

// What other frameworks write: all text, numbers in decimal.
var (
	// smallRyeDialect is handle of
	// io.smallrye.reactive.messaging.kafka.fault.KafkaDeadLetterQueue. It writes
	// its headers first and the record's own after them, so the first value of
	// each is the newest.
	smallRyeDialect = dialect{
		format: FormatSmallRye,
		owns:   prefix("dead-letter-"),
		marks:  [][]string{{"dead-letter-reason"}, {"dead-letter-exception-class-name"}},
		first:  true,
		read: func(in *reading, l *Letter) {
			newest := reading{headers: in.headers, oldest: true}
			readDecimalOrigin(&newest, l, "dead-letter-")
			l.ErrorType = newest.text("dead-letter-cause-class-name", "dead-letter-exception-class-name")
			l.Error = newest.text("dead-letter-reason")
			if cause := newest.text("dead-letter-cause"); cause != "" && !strings.Contains(l.Error, cause) {
				l.Error = strings.TrimPrefix(l.Error+": "+cause, ": ")
			}
			in.faults = append(in.faults, newest.faults...)
			l.Failed = written(l.Record)
		},
	}
	// watermillDialect is publishPoisonMessage of Watermill's
	// message/router/middleware/poison.go. Metadata are headers.
	watermillDialect = dialect{
		format: FormatWatermill,
		owns: func(key string) bool {
			switch key {
			case "reason_poisoned", "topic_poisoned", "handler_poisoned", "subscriber_poisoned":
				return true
			}
			return false
		},
		marks: [][]string{{"reason_poisoned"}},
		read: func(in *reading, l *Letter) {
			l.Partition, l.Offset = -1, -1
			l.Topic, l.Error = in.text("topic_poisoned"), in.text("reason_poisoned")
			l.Failed = written(l.Record)
		},
	}
	// wolverineDialect is StampFailureMetadata of Wolverine's
	// DeadLetterQueueConstants. Where from was added later (GH-3474), as the URI
	// of an endpoint: kafka://topic/orders.
	wolverineDialect = dialect{
		format: FormatWolverine,
		owns: func(key string) bool {
			switch key {
			case "exception-type", "exception-message", "exception-stack", "failed-at",
				"original-destination", "original-partition", "original-offset":
				return true
			}
			return false
		},
		marks: [][]string{{"exception-type", "failed-at"}},
		read: func(in *reading, l *Letter) {
			if u, err := url.Parse(in.text("original-destination")); err == nil {
				l.Topic = u.Path[strings.LastIndexByte(u.Path, '/')+1:]
			}
			l.Partition, l.Offset = in.partition("original-partition"), in.decimal("original-offset")
			l.ErrorType, l.Error = in.text("exception-type"), in.text("exception-message")
			l.Stack = in.text("exception-stack")
			l.Failed = in.millis("failed-at")
		},
	}
)
