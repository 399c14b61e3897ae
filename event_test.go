package wherry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

var errInvalid = errors.New("the total is negative")

// byValue and byPointer refuse a negative total, by one kind of receiver each.
type byValue struct{ Total int }

func (v byValue) Validate() error {
	if v.Total < 0 {
		return errInvalid
	}
	return nil
}

type byPointer struct{ Total int }

func (v *byPointer) Validate() error { return byValue{v.Total}.Validate() }

func TestEventRoundTrip(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ü", 5<<20)
	tests := []struct {
		name string
		trip func(t *testing.T) (in, out any)
	}{
		{"a struct", func(t *testing.T) (any, any) { return trip(t, order{ID: "o-1", Total: 3}) }},
		{"a pointer", func(t *testing.T) (any, any) { return trip(t, &order{ID: "o-1", Total: 3}) }},
		{"a nil pointer", func(t *testing.T) (any, any) { return trip[*order](t, nil) }},
		{"a pointer to a pointer", func(t *testing.T) (any, any) { o := &order{ID: "o-1"}; return trip(t, &o) }},
		{"a string", func(t *testing.T) (any, any) { return trip(t, "") }},
		{"a slice", func(t *testing.T) (any, any) { return trip(t, []int{1, 2}) }},
		{"a nil slice", func(t *testing.T) (any, any) { return trip[[]int](t, nil) }},
		{"a nil map", func(t *testing.T) (any, any) { return trip[map[string]int](t, nil) }},
		{"a nil interface", func(t *testing.T) (any, any) { return trip[any](t, nil) }},
		{"raw JSON", func(t *testing.T) (any, any) { return trip(t, json.RawMessage(`{"a":1}`)) }},
		{"10 MB", func(t *testing.T) (any, any) { return trip(t, long) }},
		{"valid by its value", func(t *testing.T) (any, any) { return trip(t, byValue{1}) }},
		{"valid by its pointer", func(t *testing.T) (any, any) { return trip(t, byPointer{1}) }},
		{"a nil pointer that could be validated", func(t *testing.T) (any, any) { return trip[*byPointer](t, nil) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			in, out := test.trip(t)
			require.Equal(t, in, out)
		})
	}
}

func trip[T any](t *testing.T, v T) (in, out any) {
	e := wherry.Event[T]{Topic: "orders"}
	r, err := e.Record("key", v)
	require.NoError(t, err)
	require.Equal(t, "orders", r.Topic)
	require.Equal(t, "key", string(r.Key))
	got, err := e.Decode(r)
	require.NoError(t, err)
	return v, got
}

func TestEventDecodesNull(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		decode  func(value []byte) (any, error)
		null    any // what the text null decodes to
		mayBe   bool
		nothing bool // whether a record without a value decodes
	}{
		{name: "a struct", decode: decodes[order]},
		{name: "a number", decode: decodes[int]},
		{name: "an array", decode: decodes[[2]int]},
		{name: "a pointer", decode: decodes[*order], null: (*order)(nil), mayBe: true, nothing: true},
		{name: "a map", decode: decodes[map[string]int], null: map[string]int(nil), mayBe: true},
		{name: "a slice", decode: decodes[[]int], null: []int(nil), mayBe: true},
		{name: "an interface", decode: decodes[any], null: nil, mayBe: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := test.decode(nil)
			if test.nothing {
				require.NoError(t, err)
			} else {
				requireUndecodable(t, err)
				require.ErrorContains(t, err, "the value is null")
			}
			for _, text := range []string{"null", " null\n"} {
				got, err := test.decode([]byte(text))
				if !test.mayBe {
					requireUndecodable(t, err)
					continue
				}
				require.NoError(t, err)
				require.Equal(t, test.null, got)
			}
		})
	}
}

func decodes[T any](value []byte) (any, error) {
	return wherry.Event[T]{Topic: "orders"}.Decode(strange(value))
}

// strange is a record with that value at a place that errors must name.
func strange(value []byte) *kgo.Record {
	return &kgo.Record{Topic: "orders", Partition: 3, Offset: 17, Value: value}
}

func requireUndecodable(t *testing.T, err error) {
	t.Helper()
	var e *wherry.RecordError
	require.ErrorAs(t, err, &e)
	require.Equal(t, wherry.CauseUndecodable, e.Cause)
	require.Equal(t, "orders/3@17", fmt.Sprintf("%s/%d@%d", e.Topic, e.Partition, e.Offset))
	require.Equal(t, 1, e.Attempts)
	require.ErrorContains(t, err, "record orders/3@17: undecodable: ")
}

func TestEventRefusesBytesThatAreNoValue(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, value string }{
		{"empty", ""},
		{"garbage", "\x00\xff\x17"},
		{"half", `{"id":"o-`},
		{"two values", `{"id":"a"}{"id":"b"}`},
		{"another type", `{"id":7}`},
		{"another shape", `["o-1"]`},
		{"a number too large", `{"total":99999999999999999999}`},
		{"100,000 brackets", strings.Repeat("[", 100_000)},
		{"a byte order mark", "\ufeff{}"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := orderAt.Decode(strange([]byte(test.value)))
			requireUndecodable(t, err)
			require.Zero(t, got, "a half decoded value must not be used by accident")

			called := false
			route := orderAt.Handler(func(context.Context, order) error { called = true; return nil })
			requireUndecodable(t, route.Handler(t.Context(), strange([]byte(test.value))))
			require.False(t, called)

			m, err := orderAt.Message(strange([]byte(test.value)))
			requireUndecodable(t, err)
			require.NotNil(t, m.Context)
		})
	}
}

var orderAt = wherry.Event[order]{Topic: "orders"}

func TestEventIgnoresUnknownFields(t *testing.T) {
	t.Parallel()
	got, err := orderAt.Decode(strange([]byte(`{"id":"o-1","new":{"deep":[1]}}`)))
	require.NoError(t, err)
	require.Equal(t, order{ID: "o-1"}, got)
}

func TestEventValidates(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		publish func() error
		decode  func(value []byte) (any, error)
	}{
		{"a method of the value", func() error { return record(byValue{-1}) }, decodes[byValue]},
		{"a method of the value, by pointer", func() error { return record(&byValue{-1}) }, decodes[*byValue]},
		{"a method of the pointer", func() error { return record(byPointer{-1}) }, decodes[byPointer]},
		{"a method of the pointer, by pointer", func() error { return record(&byPointer{-1}) }, decodes[*byPointer]},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := test.publish()
			require.ErrorIs(t, err, errInvalid)
			require.ErrorContains(t, err, "event orders: ")
			_, err = test.decode([]byte(`{"Total":-1}`))
			require.ErrorIs(t, err, errInvalid)
			requireUndecodable(t, err)
			_, err = test.decode([]byte(`{"Total":1}`))
			require.NoError(t, err)
		})
	}
}

func record[T any](v T) error {
	_, err := wherry.Event[T]{Topic: "orders"}.Record("", v)
	return err
}

func TestEventAnEmptyKeyIsNoKey(t *testing.T) {
	t.Parallel()
	r, err := orderAt.Record("", order{})
	require.NoError(t, err)
	require.Nil(t, r.Key)
}

func TestEventATombstoneHasAKeyAndNoValue(t *testing.T) {
	t.Parallel()
	r, err := wherry.Event[*order]{Topic: "orders"}.Record("o-1", nil)
	require.NoError(t, err)
	require.Equal(t, "o-1", string(r.Key))
	require.Nil(t, r.Value)
}

func TestEventDoesNotPublishWhatCannotBeEncoded(t *testing.T) {
	t.Parallel()
	err := record(func() {})
	require.ErrorContains(t, err, "event orders: encoding func()")
}

func TestMessageHasTheRecordsContextAndNeverNone(t *testing.T) {
	t.Parallel()
	r := strange([]byte(`{}`))
	m, err := orderAt.Message(r)
	require.NoError(t, err)
	require.Same(t, r, m.Record)
	require.Equal(t, context.Background(), m.Context)
	r.Context = t.Context()
	m, err = orderAt.Message(r)
	require.NoError(t, err)
	require.Equal(t, t.Context(), m.Context)
}

func FuzzEventDecode(f *testing.F) {
	for _, seed := range []string{"", "null", "{}", `{"id":"a","total":1}`, `{"id":null}`, "[", `"`, "\xff", "nul", " null "} {
		f.Add([]byte(seed), int32(0), int64(0))
	}
	f.Fuzz(func(t *testing.T, value []byte, partition int32, offset int64) {
		r := &kgo.Record{Topic: "orders", Partition: partition, Offset: offset, Value: value}
		_, err := wherry.Event[byPointer]{Topic: "orders"}.Decode(r)
		_, pointerErr := wherry.Event[*byPointer]{Topic: "orders"}.Decode(r)
		_, mapErr := wherry.Event[map[string][]order]{Topic: "orders"}.Decode(r)
		for _, err := range []error{err, pointerErr, mapErr} {
			if err == nil {
				continue
			}
			e, ok := errors.AsType[*wherry.RecordError](err)
			if !ok || e.Topic != "orders" || e.Partition != partition || e.Offset != offset || e.Cause != wherry.CauseUndecodable {
				t.Errorf("the error does not name the record: %v", err)
			}
		}
	})
}
