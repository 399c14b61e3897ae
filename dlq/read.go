package dlq

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/header"
)

// Read reads a dead letter of any [Format], whoever wrote it. What is no dead
// letter of a known format is one of FormatUnknown, which is not an error.
//
// An error says that the letter is garbled; what could be read is in the Letter
// nevertheless, which is never nil. The Letter shares r's slices. Read is pure.
//
// A record may have been dead-lettered more than once, by several frameworks.
// Then the Letter is about the last time, as far as the order of the headers
// tells: all but SmallRye append theirs. What an earlier failure left stays in
// Letter.Headers, see [Letter.Original].
func Read(r *kgo.Record) (*Letter, error) {
	l := &Letter{Record: r, Format: FormatUnknown, Partition: -1, Offset: -1, Key: r.Key, Value: r.Value, Headers: r.Headers}
	in := &reading{headers: r.Headers}
	if d := recognize(r.Headers); d != nil {
		l.Format, l.Cause = d.format, wherry.CauseFailed
		l.Headers = d.strip(r.Headers)
		d.read(in, l)
	} else if envelope(r.Value) {
		l.Format, l.Cause = FormatEnvelope, wherry.CauseFailed
	}
	if l.Format == FormatEnvelope {
		readEnvelope(in, l)
	}
	if err := errors.Join(in.faults...); err != nil {
		return l, fmt.Errorf("dead letter %s/%d@%d is a garbled one of format %s: %w", r.Topic, r.Partition, r.Offset, l.Format, err)
	}
	return l, nil
}

// A dialect is how one framework tells of a failure in headers.
type dialect struct {
	format Format
	// owns says whether a header is one of the framework's.
	owns func(key string) bool
	// marks are sets of headers: those of one set make a record a dead letter
	// of the framework.
	marks [][]string
	// sets are marks as sets of bits, see marking.
	sets []uint32
	// read reads the headers into l. It must not rely on l's other fields.
	read func(in *reading, l *Letter)
	// first says that the framework writes its headers before the record's own.
	first bool
}

// dialects are all that are known. Where two own the same headers, the first
// that finds its marks counts.
var dialects = []*dialect{
	&wherryDialect, &springRetryDialect, &springDialect, &connectDialect, &streamsDialect, &shareDialect,
	&springCloudDialect, &smallRyeDialect, &watermillDialect, &wolverineDialect,
}

// marking has a bit for each header that is a mark: a record's headers are
// looked up once, and not compared with all marks of all dialects.
var marking = map[string]uint32{}

func init() {
	// Assigned here, because they lead to recognize and so to dialects.
	wherryDialect.read = readWherry
	for _, d := range dialects {
		for _, set := range d.marks {
			bits := uint32(0)
			for _, key := range set {
				if marking[key] == 0 {
					marking[key] = 1 << len(marking)
				}
				bits |= marking[key]
			}
			d.sets = append(d.sets, bits)
		}
	}
}

// recognize returns the dialect of the last failure that the headers tell of,
// nil if they tell of none.
func recognize(headers []kgo.RecordHeader) (newest *dialect) {
	there := uint32(0)
	for i := range headers {
		there |= marking[headers[i].Key]
	}
	if there == 0 {
		return nil
	}
	at := -1
	for _, d := range dialects {
		if !d.marked(there) {
			continue
		}
		last := 0
		for i := len(headers) - 1; i > 0 && !d.first; i-- {
			if d.owns(headers[i].Key) {
				last = i
				break
			}
		}
		if last > at {
			newest, at = d, last
		}
	}
	return newest
}

func (d *dialect) marked(there uint32) bool {
	return slices.ContainsFunc(d.sets, func(set uint32) bool { return there&set == set })
}

// strip returns the headers without those of the last failure.
func (d *dialect) strip(headers []kgo.RecordHeader) []kgo.RecordHeader {
	if d == &wherryDialect {
		return stripWherry(headers)
	}
	return slices.DeleteFunc(slices.Clone(headers), func(h kgo.RecordHeader) bool { return d.owns(h.Key) })
}

func prefix(prefixes ...string) func(key string) bool {
	return func(key string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) })
	}
}

var wherryDialect = dialect{
	format: FormatWherry,
	owns:   prefix(header.DeadPrefix),
	marks:  [][]string{{header.DeadTopic}},
}

// begin is where the headers of the last failure begin: a Queue writes
// DeadTopic first, and after all that was there before.
func begin(headers []kgo.RecordHeader) int {
	for i := len(headers) - 1; i >= 0; i-- {
		if headers[i].Key == header.DeadTopic {
			return i
		}
	}
	return len(headers)
}

// stripWherry leaves what was before the Queue wrote, and what others have
// appended since, but for the trace of the letter's own sending.
func stripWherry(headers []kgo.RecordHeader) []kgo.RecordHeader {
	n := begin(headers)
	left := append([]kgo.RecordHeader(nil), headers[:n]...)
	for _, h := range headers[n:] {
		switch {
		case strings.HasPrefix(h.Key, header.DeadPrefix):
		case h.Key == "traceparent", h.Key == "tracestate", h.Key == "baggage":
		default:
			left = append(left, h)
		}
	}
	return left
}

func readWherry(in *reading, l *Letter) {
	in.headers = in.headers[begin(in.headers):]
	l.Topic = in.text(header.DeadTopic)
	l.Partition, l.Offset = in.partition(header.DeadPartition), in.decimal(header.DeadOffset)
	l.Timestamp = in.millis(header.DeadTimestamp)
	l.Group = in.text(header.DeadGroup)
	l.Cause = wherry.Cause(in.text(header.DeadCause))
	l.Error, l.ErrorType, l.Stack = in.text(header.DeadError), in.text(header.DeadErrorType), in.text(header.DeadStack)
	l.Attempts, l.Replays = in.count(header.DeadAttempts), in.count(header.DeadReplays)
	l.FirstFailed, l.Failed = in.instant(header.DeadFirst), in.instant(header.DeadFailed)
	if format := Format(in.text(header.DeadFormat)); format == FormatEnvelope {
		l.Format = format
	} else if format != "" {
		in.fault("%s is %q, which this version does not know", header.DeadFormat, format)
	}
}
