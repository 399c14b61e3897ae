package dlq

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/header"
)

// Budgets of the headers of a letter, in bytes. Together, with their names and
// the numbers and times, they stay under 16 KiB.
const (
	maxTopic     = 249 // Kafka's own limit
	maxGroup     = 1 << 10
	maxCause     = 64
	maxErrorType = 512
	maxError     = 6 << 10
	maxStack     = 4 << 10
)

// Encode returns the letter as a record for a dead-letter topic, in l.Format:
// FormatWherry, which "" means too, or FormatEnvelope. What others write is
// only read. [Read] restores all fields but these: texts are cut to budgets
// (4 KiB of Stack, 6 KiB of Error, 512 bytes of ErrorType, 1 KiB of Group), with
// what is no UTF-8 replaced in them, and Timestamp has milliseconds. Key, Value
// and Headers come back byte for byte. Encode is pure, and the record shares l's
// slices of bytes.
func (l *Letter) Encode(topic string) (*kgo.Record, error) {
	r := &kgo.Record{Topic: topic, Key: l.Key, Value: l.Value}
	switch l.Format {
	case FormatWherry, "":
		r.Headers = slices.Grow(slices.Clone(l.Headers), 14)
	case FormatEnvelope:
		r.Value = l.envelope()
	default:
		return nil, fmt.Errorf("dead letters are written as %s or %s, not as %q", FormatWherry, FormatEnvelope, l.Format)
	}
	l.addHeaders(r)
	return r, nil
}

// addHeaders tells of the failure. DeadTopic comes first, see begin.
func (l *Letter) addHeaders(r *kgo.Record) {
	add := func(key, value string) {
		if value != "" {
			header.Add(r, key, value)
		}
	}
	number := func(key string, n int64) {
		if n >= 0 {
			header.Add(r, key, header.FormatInt(n))
		}
	}
	instant := func(key string, t time.Time) {
		if !t.IsZero() {
			header.Add(r, key, header.FormatTime(t))
		}
	}
	header.Add(r, header.DeadTopic, clip(l.Topic, maxTopic))
	number(header.DeadPartition, int64(l.Partition))
	number(header.DeadOffset, l.Offset)
	if !l.Timestamp.IsZero() {
		number(header.DeadTimestamp, l.Timestamp.UnixMilli())
	}
	add(header.DeadGroup, clip(l.Group, maxGroup))
	add(header.DeadCause, clip(string(l.Cause), maxCause))
	number(header.DeadAttempts, int64(l.Attempts))
	instant(header.DeadFirst, l.FirstFailed)
	instant(header.DeadFailed, l.Failed)
	number(header.DeadReplays, int64(l.Replays))
	add(header.DeadErrorType, clip(l.ErrorType, maxErrorType))
	add(header.DeadError, clip(l.Error, maxError))
	add(header.DeadStack, clip(l.Stack, maxStack))
	if l.Format == FormatEnvelope {
		add(header.DeadFormat, string(FormatEnvelope))
	}
}

// clip returns text as valid UTF-8 of at most limit bytes, which ends in an
// ellipsis where something is cut off.
func clip(text string, limit int) string {
	const ellipsis = "…"
	cut := len(text) > limit
	if cut {
		text = text[:limit]
	}
	text = strings.ToValidUTF8(text, "\uFFFD") // which may be longer
	if !cut && len(text) <= limit {
		return text
	}
	text = text[:min(len(text), limit-len(ellipsis))]
	for len(text) > 0 {
		if last, size := utf8.DecodeLastRuneInString(text); last != utf8.RuneError || size > 1 {
			break
		}
		text = text[:len(text)-1]
	}
	return text + ellipsis
}
