package reqreply

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// Text is the Codec of NestJS 12's Kafka transport (its KafkaRequestSerializer
// and KafkaParser), and the default of a [Method]: strings and bytes travel as
// they are, without quotes, numbers and booleans as their text, all else as
// JSON. What JSON would write as a string, such as a time, travels without its
// quotes too.
//
// Reading, a value for a string is taken as it is, and without its quotes if it
// is a JSON string: user1 and "user1" are both user1. (So a text that itself is
// a JSON string loses a pair of quotes.) Bytes, json.RawMessage among them,
// are taken as they are. For an any, what begins with { or [ is JSON and all
// else a string, as NestJS reads it: 42 is "42". For other types the value is
// JSON, or a JSON string without its quotes.
type Text struct{}

// Encode sets r.Value to v as text or JSON.
func (Text) Encode(r *kgo.Record, v any) (err error) {
	switch v := v.(type) {
	case string:
		r.Value = []byte(v)
		return nil
	case []byte:
		r.Value = bytes.Clone(v) // a call may end before its request is sent
		return nil
	case json.RawMessage:
		r.Value = bytes.Clone(v)
		return nil
	case bool:
		r.Value = strconv.AppendBool(nil, v)
		return nil
	case int:
		r.Value = strconv.AppendInt(nil, int64(v), 10)
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > 0 && b[0] == '"' {
		if rv := reflect.ValueOf(v); rv.Kind() == reflect.Slice && rv.Type().Elem().Kind() == reflect.Uint8 {
			r.Value = bytes.Clone(rv.Bytes()) // of a type of its own: JSON would have it as base64
			return nil
		}
		var text string
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
		b = []byte(text)
	}
	r.Value = b
	return nil
}

// Decode reads r.Value into what v points to.
func (Text) Decode(r *kgo.Record, v any) error {
	switch v := v.(type) {
	case *string:
		*v = unquoted(r.Value)
		return nil
	case *[]byte:
		*v = append([]byte{}, r.Value...)
		return nil
	case *json.RawMessage:
		*v = append(json.RawMessage{}, r.Value...)
		return nil
	case *any:
		if len(r.Value) > 0 && (r.Value[0] == '{' || r.Value[0] == '[') && json.Unmarshal(r.Value, v) == nil {
			return nil
		}
		*v = string(r.Value)
		return nil
	}
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		return errors.New("decoding needs a pointer")
	}
	switch to := rv.Elem(); {
	case to.Kind() == reflect.Pointer: // *string, **User
		if to.IsNil() {
			to.Set(reflect.New(to.Type().Elem()))
		}
		return Text{}.Decode(r, to.Interface())
	case to.Kind() == reflect.Slice && to.Type().Elem().Kind() == reflect.Uint8 && !unmarshals(v):
		to.SetBytes(append([]byte{}, r.Value...))
		return nil
	case to.Kind() == reflect.String && !unmarshals(v):
		to.SetString(unquoted(r.Value))
		return nil
	}
	err := wherry.JSON{}.Decode(r, v)
	if err == nil || len(r.Value) > 0 && r.Value[0] == '"' {
		return err
	}
	quoted, _ := json.Marshal(string(r.Value))
	if json.Unmarshal(quoted, v) == nil {
		return nil
	}
	return err
}

func unmarshals(v any) bool {
	if _, ok := v.(json.Unmarshaler); ok {
		return true
	}
	_, ok := v.(interface{ UnmarshalText([]byte) error })
	return ok
}

// unquoted returns a JSON string's text, and any other text as it is.
func unquoted(b []byte) string {
	if n := len(b); n > 1 && b[0] == '"' && b[n-1] == '"' {
		var text string
		if json.Unmarshal(b, &text) == nil {
			return text
		}
	}
	return string(b)
}
