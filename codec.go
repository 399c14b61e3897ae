package wherry

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A Codec turns values into records and back. It sees the whole record, so it
// may keep what it needs in headers (a schema id, CloudEvents attributes) and
// tell topics apart.
//
// Encode sets r.Value, and headers if it wants to; r has its topic and key. A
// value of no bytes stays apart from null.
// Decode fills the value that v points to; it must copy what it keeps of r's
// bytes. Both must be safe for concurrent use. A null value (a nil r.Value,
// Kafka's tombstone) never reaches a Codec: see [Event].
type Codec interface {
	Encode(r *kgo.Record, v any) error
	Decode(r *kgo.Record, v any) error
}

// JSON is the default Codec: encoding/json, unknown fields ignored. The text
// null counts as a missing value: it decodes into pointers, maps, slices and
// interfaces only.
type JSON struct{}

// Encode sets r.Value to v as JSON.
func (JSON) Encode(r *kgo.Record, v any) (err error) {
	r.Value, err = json.Marshal(v)
	return err
}

// Decode parses r.Value as JSON into what v points to.
func (JSON) Decode(r *kgo.Record, v any) error {
	if bytes.Equal(bytes.TrimSpace(r.Value), []byte("null")) {
		switch reflect.TypeOf(v).Elem().Kind() {
		case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface:
		default:
			return errNull
		}
	}
	return json.Unmarshal(r.Value, v)
}

var errNull = errors.New("the value is null")
