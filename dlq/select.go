package dlq

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wherry-go/wherry"
)

// Selection says which dead letters are meant. Every field narrows it, and the
// zero Selection selects all that no earlier run has decided. Within a list any
// one of its entries will do.
type Selection struct {
	// Since and Until bound when the record failed: from Since on, before
	// Until. A letter that does not say it counts as failed at its own
	// timestamp. Zero means no bound.
	Since, Until time.Time
	// Causes are compared whole.
	Causes []wherry.Cause
	// ErrorTypes are compared whole ("*json.SyntaxError",
	// "java.lang.IllegalStateException").
	ErrorTypes []string
	// ErrorContains is a part of the error's text, upper and lower case being
	// the same.
	ErrorContains string
	// Keys are the keys of the records that failed, byte for byte. The empty
	// string also selects records without a key.
	Keys []string
	// Headers are headers of the record that failed, by key; the value is
	// compared whole with the last header of that key. All of them must be
	// there.
	Headers map[string]string
	// Topics are those that the records failed in.
	Topics []string
	// Groups are the consumer groups in which they failed.
	Groups []string
	// Offsets are places in the dead-letter topic. Only those are read.
	Offsets []Offsets
	// Where is asked last, for what the other fields cannot say. It must not
	// change the letter. nil means yes.
	Where func(*Letter) bool
	// Decided selects letters that an earlier run replayed, parked or
	// discarded as well. They are passed over without it.
	Decided bool
	// Limit ends the run after so many selected letters. Partitions are read
	// beside each other: which letters come first is only fixed within one.
	// 0 means no limit.
	Limit int
}

// Offsets is a range of one partition of the dead-letter topic: From and on,
// before To. To 0 means to the end.
type Offsets struct {
	Partition int32
	From, To  int64
}

// Match reports whether the letter is selected. It does not know what earlier
// runs decided, nor how many letters came before: Decided and Limit do not
// matter to it.
func (s Selection) Match(l *Letter) bool {
	failed := failedAt(l)
	switch {
	case !s.Since.IsZero() && failed.Before(s.Since),
		!s.Until.IsZero() && !failed.Before(s.Until),
		len(s.Causes) > 0 && !slices.Contains(s.Causes, l.Cause),
		len(s.ErrorTypes) > 0 && !slices.Contains(s.ErrorTypes, l.ErrorType),
		s.ErrorContains != "" && !strings.Contains(strings.ToLower(l.Error), strings.ToLower(s.ErrorContains)),
		len(s.Keys) > 0 && !slices.Contains(s.Keys, string(l.Key)),
		len(s.Topics) > 0 && !slices.Contains(s.Topics, l.Topic),
		len(s.Groups) > 0 && !slices.Contains(s.Groups, l.Group),
		len(s.Offsets) > 0 && !s.covers(l):
		return false
	}
	for key, want := range s.Headers {
		if !hasHeader(l, key, want) {
			return false
		}
	}
	return s.Where == nil || s.Where(l)
}

// failedAt is when the record failed, as far as the letter knows.
func failedAt(l *Letter) time.Time {
	if l.Failed.IsZero() && l.Record != nil {
		return l.Record.Timestamp
	}
	return l.Failed
}

func (s Selection) covers(l *Letter) bool {
	return l.Record != nil && slices.ContainsFunc(s.Offsets, func(o Offsets) bool {
		return o.Partition == l.Record.Partition && o.From <= l.Record.Offset && (o.To == 0 || l.Record.Offset < o.To)
	})
}

func hasHeader(l *Letter, key, want string) bool {
	for _, h := range slices.Backward(l.Headers) {
		if h.Key == key {
			return bytes.Equal(h.Value, []byte(want))
		}
	}
	return false
}

// check reports, all at once, what selects nothing by mistake.
func (s Selection) check() error {
	var faults []error
	if s.Limit < 0 {
		faults = append(faults, fmt.Errorf("Select.Limit is %d: 0 means no limit", s.Limit))
	}
	if !s.Since.IsZero() && !s.Until.IsZero() && !s.Since.Before(s.Until) {
		faults = append(faults, fmt.Errorf("Select.Since %s is not before Select.Until %s",
			s.Since.Format(time.RFC3339), s.Until.Format(time.RFC3339)))
	}
	for _, o := range s.Offsets {
		if o.Partition < 0 || o.From < 0 || o.To < 0 || o.To > 0 && o.To <= o.From {
			faults = append(faults, fmt.Errorf("Select.Offsets has %d/%d to %d, which holds nothing", o.Partition, o.From, o.To))
		}
	}
	return errors.Join(faults...)
}

// bounds narrows what is to be read of each partition to what Offsets names.
func (s Selection) bounds(starts, ends map[int32]int64) (from, to map[int32]int64) {
	if len(s.Offsets) == 0 {
		return starts, ends
	}
	from, to = map[int32]int64{}, map[int32]int64{}
	for _, o := range s.Offsets {
		end, ok := ends[o.Partition]
		if !ok {
			continue
		}
		if o.To > 0 {
			end = min(end, o.To)
		}
		begin := max(starts[o.Partition], o.From)
		if known, ok := from[o.Partition]; ok {
			begin, end = min(known, begin), max(to[o.Partition], end)
		}
		from[o.Partition], to[o.Partition] = begin, end
	}
	return from, to
}
