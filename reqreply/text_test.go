package reqreply_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/reqreply"
)

type (
	name  string
	raw   []byte
	level int
)

// As NestJS 12 writes and reads values, and what else Go has.
func TestTextWritesAsNestJS(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 15, 42, 49, 0, time.UTC)
	text := "user1"
	tests := []struct {
		name string
		in   any
		want string
	}{
		{"a string", "user1", "user1"},
		{"an empty string", "", ""},
		{"a string with quotes", `say "hi"`, `say "hi"`},
		{"a string of a type", name("user1"), "user1"},
		{"a pointer to one", &text, "user1"},
		{"bytes", []byte{0, 255}, "\x00\xff"},
		{"bytes of a type", raw("a"), "a"},
		{"raw JSON", json.RawMessage(`{"a":1}`), `{"a":1}`},
		{"a number", 42, "42"},
		{"a number of a type", level(42), "42"},
		{"a float", 1.5, "1.5"},
		{"a large float", 1e21, "1e+21"},
		{"true", true, "true"},
		{"an object", map[string]int{"a": 1}, `{"a":1}`},
		{"an array", []string{"a"}, `["a"]`},
		{"an empty array", []string{}, `[]`},
		{"a struct", user{ID: "u", Name: "é<"}, `{"id":"u","name":"é\u003c"}`},
		{"a time", at, "2026-11-22T15:42:49Z"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var r kgo.Record
			require.NoError(t, reqreply.Text{}.Encode(&r, test.in))
			require.Equal(t, test.want, string(r.Value))
		})
	}
	require.Error(t, reqreply.Text{}.Encode(&kgo.Record{}, math.Inf(1)))
}

func TestTextReads(t *testing.T) {
	t.Parallel()
	text := "user1"
	tests := []struct {
		name string
		in   string
		want any
	}{
		{"a string", "user1", "user1"},
		{"a string in quotes", `"user1"`, "user1"},
		{"a string with an escape", `"a\nb"`, "a\nb"},
		{"a quote alone", `"`, `"`},
		{"quotes around no JSON", "\"a\nb\"", "\"a\nb\""},
		{"an empty string", "", ""},
		{"a number as a string", "42", "42"},
		{"an object as a string", `{"a":1}`, `{"a":1}`},
		{"a string of a type", "user1", name("user1")},
		{"a pointer to a string", "user1", &text},
		{"bytes", `"a"`, []byte(`"a"`)},
		{"bytes of a type", `"a"`, raw(`"a"`)},
		{"raw JSON", `{"a":1}`, json.RawMessage(`{"a":1}`)},
		{"a number", "42", 42},
		{"a number of a type", "42", level(42)},
		{"a boolean", "true", true},
		{"a struct", `{"id":"u","more":1}`, user{ID: "u"}},
		{"a time", "2026-11-22T15:42:49Z", time.Date(2026, 11, 22, 15, 42, 49, 0, time.UTC)},
		{"a time in quotes", `"2026-11-22T15:42:49Z"`, time.Date(2026, 11, 22, 15, 42, 49, 0, time.UTC)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			check(t, test.in, test.want)
		})
	}
	for in, want := range map[string]any{`{"a":1}`: map[string]any{"a": 1.0}, `[1]`: []any{1.0}, "42": "42", "true": "true", "{broken": "{broken", "": "", `"a"`: `"a"`} {
		var got any
		require.NoError(t, reqreply.Text{}.Decode(&kgo.Record{Value: []byte(in)}, &got))
		require.Equal(t, want, got, "as NestJS reads it")
	}
	var n int
	require.Error(t, reqreply.Text{}.Decode(&kgo.Record{Value: []byte("one")}, &n))
	require.Error(t, reqreply.Text{}.Decode(&kgo.Record{Value: []byte("")}, &n))
	var u user
	require.Error(t, reqreply.Text{}.Decode(&kgo.Record{Value: []byte("null")}, &u))
	require.Error(t, reqreply.Text{}.Decode(&kgo.Record{Value: []byte("user1")}, &u))
	require.Error(t, reqreply.Text{}.Decode(&kgo.Record{Value: []byte("1")}, 1))
}

// check decodes in into a value of want's type.
func check(t *testing.T, in string, want any) {
	t.Helper()
	r := &kgo.Record{Value: []byte(in)}
	switch want := want.(type) {
	case string:
		decodes(t, r, want)
	case name:
		decodes(t, r, want)
	case *string:
		decodes(t, r, want)
	case []byte:
		decodes(t, r, want)
	case raw:
		decodes(t, r, want)
	case json.RawMessage:
		decodes(t, r, want)
	case int:
		decodes(t, r, want)
	case level:
		decodes(t, r, want)
	case bool:
		decodes(t, r, want)
	case user:
		decodes(t, r, want)
	case time.Time:
		decodes(t, r, want)
	default:
		t.Fatalf("%T", want)
	}
}

func decodes[T any](t *testing.T, r *kgo.Record, want T) {
	t.Helper()
	var got T
	require.NoError(t, reqreply.Text{}.Decode(r, &got))
	require.Equal(t, want, got)
}

func FuzzText(f *testing.F) {
	f.Add("user1")
	f.Add(`"user1"`)
	f.Add(`{"a":1}`)
	f.Fuzz(func(t *testing.T, in string) {
		r := &kgo.Record{Value: []byte(in)}
		var text string
		if err := (reqreply.Text{}).Decode(r, &text); err != nil {
			t.Fatal(err)
		}
		var b []byte
		if err := (reqreply.Text{}).Decode(r, &b); err != nil || string(b) != in {
			t.Fatal(err)
		}
		for _, v := range []any{new(int), new(bool), new(user), new(any), new(time.Time), new([]string), new(*user)} {
			_ = reqreply.Text{}.Decode(r, v)
		}
		var out kgo.Record
		if err := (reqreply.Text{}).Encode(&out, in); err != nil || string(out.Value) != in {
			t.Fatal(err)
		}
	})
}
