package reqreply

import (
	"fmt"
	"reflect"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// encode returns a record of topic with v: nil pointers, maps, slices and
// interfaces are null values, and so is a struct{}.
func encode[T any](codec wherry.Codec, topic string, v T) (*kgo.Record, error) {
	switch v := any(v).(type) {
	case string, bool, int: // never null, never Validated
		r := &kgo.Record{Topic: topic}
		if err := codec.Encode(r, v); err != nil {
			return nil, fmt.Errorf("encoding %T for %s: %w", v, topic, err)
		}
		if r.Value == nil {
			r.Value = []byte{}
		}
		return r, nil
	}
	if isNull(reflect.ValueOf(&v).Elem()) {
		return &kgo.Record{Topic: topic}, nil
	}
	return wherry.Event[T]{Topic: topic, Codec: codec}.Record("", v)
}

func isNull(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface:
		return v.IsNil()
	case reflect.Struct:
		return v.NumField() == 0
	default:
		return false
	}
}

// decode returns the value of r. Its error is a [*wherry.RecordError] of cause
// undecodable.
func decode[T any](codec wherry.Codec, r *kgo.Record) (v T, err error) {
	switch any(v).(type) {
	case string, bool, int: // never Validated
		if r.Value == nil {
			break
		}
		if err := codec.Decode(r, &v); err != nil {
			return v, &wherry.RecordError{
				Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Attempts: 1, Cause: wherry.CauseUndecodable,
				Err: fmt.Errorf("decoding %T: %w", v, err),
			}
		}
		return v, nil
	}
	if r.Value == nil || reflect.TypeFor[T]() == reflect.TypeFor[struct{}]() {
		if isNull(reflect.ValueOf(&v).Elem()) {
			return v, nil
		}
		return v, &wherry.RecordError{
			Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Attempts: 1, Cause: wherry.CauseUndecodable,
			Err: fmt.Errorf("the value is null, and a %T cannot be: a pointer can", v),
		}
	}
	return wherry.Event[T]{Topic: r.Topic, Codec: codec}.Decode(r)
}
