package main

import (
	"encoding/json"
	"time"
)

// Time is written as JavaScript's Date.toISOString does it. Any RFC 3339 time is
// read.
type Time struct{ time.Time }

func now() Time { return Time{time.Now()} }

// MarshalJSON writes milliseconds, and Z.
func (t Time) MarshalJSON() ([]byte, error) {
	return json.Marshal(t.UTC().Format("2006-01-02T15:04:05.000Z"))
}
