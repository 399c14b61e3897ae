package retry

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/header"
)

const headerPrefix = "wherry-retry-"

// maxErrorHeader bounds the text of the error that a hop carries.
const maxErrorHeader = 1 << 10

// maxAhead is how much later than its topic's delay after it was written a
// record may be due: clocks differ, but not by days. A header that says more
// would stop its partition for as long.
const maxAhead = 24 * time.Hour

// trip is where a record of a delay topic comes from and what became of it, as
// its headers say.
type trip struct {
	topic     string
	partition int32
	offset    int64
	timestamp time.Time // in milliseconds
	group     string
	attempts  int       // calls of the handler
	round     int       // failures of what Topics wraps; 0: it waits for another record, see KeepOrder
	first     time.Time // of the first failure; zero in round 0
	due       time.Time // when this topic lets go of it
	until     time.Time // when the next attempt may be made; zero means when due
	deadline  time.Time // of Within; zero means none
	err       string    // of the last failure
}

// tripOf begins the trip of a record that was read from its own topic.
func tripOf(r *kgo.Record, group string) trip {
	return trip{topic: r.Topic, partition: r.Partition, offset: r.Offset, timestamp: r.Timestamp, group: group}
}

// write replaces the headers of former hops of r by those of t.
func (t trip) write(r *kgo.Record) {
	header.Strip(r, ofRetry)
	header.Add(r, header.RetryTopic, t.topic)
	header.Add(r, header.RetryPartition, header.FormatInt(t.partition))
	header.Add(r, header.RetryOffset, header.FormatInt(t.offset))
	header.Add(r, header.RetryTimestamp, header.FormatInt(t.timestamp.UnixMilli()))
	header.Add(r, header.RetryGroup, t.group)
	header.Add(r, header.RetryAttempts, header.FormatInt(t.attempts))
	header.Add(r, header.RetryRound, header.FormatInt(t.round))
	header.Add(r, header.RetryDue, header.FormatTime(t.due))
	instant := func(key string, at time.Time) {
		if !at.IsZero() {
			header.Add(r, key, header.FormatTime(at))
		}
	}
	instant(header.RetryFirst, t.first)
	instant(header.RetryUntil, t.until)
	instant(header.RetryDeadline, t.deadline)
	if t.err != "" {
		header.Add(r, header.RetryError, cut(t.err, maxErrorHeader))
	}
}

// read parses the headers of a record of a delay topic. Every one that is
// there must be right: the rest of a garbled one is not to be trusted.
func read(r *kgo.Record) (t trip, err error) {
	bad := func(key string) {
		if err == nil {
			value, _ := header.Get(r, key)
			err = fmt.Errorf("header %s is %.60q: the record was not written by retry.Topics, or was changed", key, value)
		}
	}
	number := func(key string, low, high int64) int64 {
		n, ok := header.Int(r, key)
		if !ok || n < low || n > high {
			bad(key)
		}
		return n
	}
	instant := func(key string, required bool) time.Time {
		at, ok := header.Time(r, key)
		if _, there := header.Get(r, key); !ok && (there || required) {
			bad(key)
		}
		return at
	}
	text := func(key string) string {
		value, _ := header.Get(r, key)
		if value == "" {
			bad(key)
		}
		return value
	}
	t = trip{
		topic:     text(header.RetryTopic),
		partition: int32(number(header.RetryPartition, 0, math.MaxInt32)),
		offset:    number(header.RetryOffset, 0, math.MaxInt64),
		timestamp: time.UnixMilli(number(header.RetryTimestamp, math.MinInt64, math.MaxInt64)),
		group:     text(header.RetryGroup),
		attempts:  int(number(header.RetryAttempts, 0, math.MaxInt32-1)),
		round:     int(number(header.RetryRound, 0, math.MaxInt32-1)),
		due:       instant(header.RetryDue, true),
		until:     instant(header.RetryUntil, false),
		deadline:  instant(header.RetryDeadline, false),
	}
	t.first = instant(header.RetryFirst, t.round > 0)
	t.err, _ = header.Get(r, header.RetryError)
	if err == nil && t.attempts < t.round {
		bad(header.RetryAttempts)
	}
	if err != nil {
		return trip{}, err
	}
	return t, nil
}

// restore returns the record as it was read from its own topic.
func (t trip) restore(r *kgo.Record) *kgo.Record {
	o := &kgo.Record{
		Topic: t.topic, Partition: t.partition, Offset: t.offset, Timestamp: t.timestamp, LeaderEpoch: -1,
		Key: r.Key, Value: r.Value, Headers: r.Headers, Context: r.Context,
	}
	header.Strip(o, ofRetry)
	return o
}

func ofRetry(key string) bool { return strings.HasPrefix(key, headerPrefix) }

// cut shortens text to at most n bytes of valid UTF-8.
func cut(text string, n int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "")
}

// hop is a delay topic as a Consumer reads it.
type hop struct {
	tier
	name string
	as   string // the topic that it stands in for
	// rightful is the name of the delay topic of a topic and group.
	rightful func(topic, group string, delay string) string
	group    string
}

// read returns the trip of a record of the hop. mine is false for one of
// another group or topic whose delay topic has the same name: "a.b" and "c"
// share theirs with "a" and "b.c".
func (h hop) read(r *kgo.Record) (t trip, mine bool, err error) {
	t, err = read(r)
	switch {
	case err != nil:
		return trip{}, true, err
	case t.topic == h.as && t.group == h.group:
	case h.rightful(t.topic, t.group, h.label) == h.name:
		return t, false, nil
	default:
		return trip{}, true, fmt.Errorf("it is of topic %.249q and group %.249q, whose retries are not here", t.topic, t.group)
	}
	if ahead := t.due.Sub(r.Timestamp) - h.delay; ahead > maxAhead {
		return trip{}, true, fmt.Errorf("header %s: it would be due %v later than the topic's delay", header.RetryDue, ahead.Round(time.Minute))
	}
	return t, true, nil
}

func (h hop) origin(r *kgo.Record) (*kgo.Record, error) {
	t, _, err := h.read(r)
	if err != nil {
		return nil, err
	}
	return t.restore(r), nil
}

func (h hop) due(r *kgo.Record) time.Time {
	t, mine, err := h.read(r)
	if err != nil || !mine {
		return time.Time{} // it is handled at once, by none of ours
	}
	return t.due
}
