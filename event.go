package wherry

import (
	"context"
	"fmt"
	"reflect"

	"github.com/twmb/franz-go/pkg/kgo"
)

// An Event is a topic and the type of its values, declared once and shared by
// those who publish and those who handle:
//
//	var OrderCreated = wherry.Event[Order]{Topic: "order.created"}
//
// If T or *T has a method Validate() error, a value that it refuses is
// neither published nor handled.
//
// A null value (Kafka's tombstone) is a nil pointer if T is a pointer, and
// undecodable otherwise. An Event is a value without state and safe for
// concurrent use.
type Event[T any] struct {
	// Topic is the topic's name.
	Topic string
	// Codec turns values into bytes and back; nil means [JSON].
	Codec Codec
}

// A Message is a record with its decoded value.
type Message[T any] struct {
	// Context is the record's own: it has what the reading client's hooks
	// put into it, such as a trace. Never nil.
	Context context.Context
	Record  *kgo.Record
	Value   T
}

// TopicName returns the event's topic. (A field cannot be part of an
// interface.)
func (e Event[T]) TopicName() string { return e.Topic }

// Handler returns a route that decodes and validates each record of the topic
// and calls fn with the value. A record that does not decode, or that
// Validate refuses, is a [*RecordError] of cause [CauseUndecodable]: fn is not
// called.
func (e Event[T]) Handler(fn func(ctx context.Context, v T) error) Route {
	return Route{Topic: e.Topic, Handler: func(ctx context.Context, r *kgo.Record) error {
		v, err := e.Decode(r)
		if err != nil {
			return err
		}
		return fn(ctx, v)
	}}
}

// Publish stages v, under key, as an output of the record in hand: it is sent
// after the handler and all policies returned nil. See [Publish], also for
// what it refuses. An empty key makes a record without a key.
func (e Event[T]) Publish(ctx context.Context, key string, v T) error {
	r, err := e.Record(key, v)
	if err != nil {
		return err
	}
	return Publish(ctx, r)
}

// Record returns v as a record of the topic, for a client of your own. An
// empty key makes a record without a key, which goes to any partition.
func (e Event[T]) Record(key string, v T) (*kgo.Record, error) {
	r := &kgo.Record{Topic: e.Topic}
	if key != "" {
		r.Key = []byte(key)
	}
	if isNil(v) {
		return r, nil
	}
	if err := validate(&v); err != nil {
		return nil, fmt.Errorf("event %s: %w", e.Topic, err)
	}
	if err := codecOr(e.Codec).Encode(r, v); err != nil {
		return nil, fmt.Errorf("event %s: encoding %T: %w", e.Topic, v, err)
	}
	if r.Value == nil {
		r.Value = []byte{} // a value without bytes is not a tombstone
	}
	return r, nil
}

// Decode returns the value of r. Its error is a [*RecordError] of cause
// [CauseUndecodable] that names r.
func (e Event[T]) Decode(r *kgo.Record) (T, error) {
	var v T
	err := decode(codecOr(e.Codec), r, &v)
	if err != nil {
		var zero T
		return zero, recordError(r, &RecordError{Cause: CauseUndecodable, Err: err})
	}
	return v, nil
}

// Message returns r with its value decoded, for code that reads with a client
// of its own.
func (e Event[T]) Message(r *kgo.Record) (Message[T], error) {
	v, err := e.Decode(r)
	m := Message[T]{Context: r.Context, Record: r, Value: v}
	if m.Context == nil {
		m.Context = context.Background()
	}
	return m, err
}

func codecOr(c Codec) Codec {
	if c == nil {
		return JSON{}
	}
	return c
}

// decode fills v, a pointer to the value, and validates it.
func decode[T any](c Codec, r *kgo.Record, v *T) error {
	if r.Value == nil {
		if reflect.TypeFor[T]().Kind() == reflect.Pointer {
			return nil
		}
		return errNull
	}
	if err := c.Decode(r, v); err != nil {
		return fmt.Errorf("decoding %T: %w", *v, err)
	}
	if err := validate(v); err != nil {
		return fmt.Errorf("invalid %T: %w", *v, err)
	}
	return nil
}

func validate[T any](v *T) error {
	if isNil(*v) {
		return nil
	}
	if v, ok := any(v).(interface{ Validate() error }); ok { // T or *T has it
		return v.Validate()
	}
	if v, ok := any(*v).(interface{ Validate() error }); ok { // T is a pointer or an interface
		return v.Validate()
	}
	return nil
}

// isNil reports whether v is a nil pointer.
func isNil(v any) bool {
	rv := reflect.ValueOf(v)
	return rv.Kind() == reflect.Pointer && rv.IsNil()
}
