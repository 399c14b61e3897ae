package events

import "time"

// layout is what JavaScript's Date.toISOString writes.
const layout = "2006-01-02T15:04:05.000Z"

// Time is an instant that is written in UTC with milliseconds
// ("2026-11-22T15:42:49.000Z"), as the other side's Date does it. Any RFC 3339
// time is read.
type Time struct{ time.Time }

// Now is the present, in whole milliseconds, so that it is the same after it
// was written and read.
func Now() Time { return Time{time.Now().UTC().Truncate(time.Millisecond)} }

// MarshalJSON writes t between quotes. It hides the method of time.Time, which
// writes nanoseconds.
func (t Time) MarshalJSON() ([]byte, error) {
	return t.UTC().AppendFormat(nil, `"`+layout+`"`), nil
}

// MarshalText writes t.
func (t Time) MarshalText() ([]byte, error) { return t.UTC().AppendFormat(nil, layout), nil }

// String is what MarshalText writes.
func (t Time) String() string { return t.UTC().Format(layout) }
