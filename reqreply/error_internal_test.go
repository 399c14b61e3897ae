package reqreply

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
)

func TestErrorsAsNestJSWritesThem(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in, code, message string
	}{
		{"an RpcException of a text", `{"status":"error","message":"no such user"}`, "", "no such user"},
		{"ours", `{"status":"error","code":"not-found","message":"no such user"}`, "not-found", "no such user"},
		{"an RpcException of an object", `{"code":42,"message":"no","more":[1]}`, "42", "no"},
		{"messages of a validation", `{"statusCode":400,"message":["a","b"]}`, "", `["a","b"]`},
		{"an object without a message", `{"reason":"no"}`, "", `{"reason":"no"}`},
		{"a text", "no such user", "", "no such user"},
		{"a JSON string", `"no such user"`, "", "no such user"},
		{"nothing", "", "", ""},
		{"an array", `["a"]`, "", `["a"]`},
		{"broken JSON", `{"message":`, "", `{"message":`},
		{"null", "null", "", "null"},
		{"no text", "\xff\xfe", "", "\uFFFD"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := decodeError([]byte(test.in))
			require.Equal(t, test.code, e.Code)
			require.Equal(t, test.message, e.Message)
			require.Equal(t, test.in, string(e.Body))
			require.NotEmpty(t, e.Error())
		})
	}
}

func TestErrorsAsWeWriteThem(t *testing.T) {
	t.Parallel()
	require.JSONEq(t, `{"status":"error","code":"not-found","message":"no such user"}`, string((&Error{Code: "not-found", Message: "no such user", Topic: "t"}).encode()))
	require.JSONEq(t, `{"status":"error","message":""}`, string((&Error{}).encode()))
	require.Equal(t, `{"code":42}`, string((&Error{Code: "x", Body: []byte(`{"code":42}`)}).encode()))
	require.Less(t, len((&Error{Code: strings.Repeat("é", 1e6), Message: strings.Repeat("é", 1e6), Body: make([]byte, 1e6)}).encode()), 8<<10)
	again := decodeError((&Error{Code: "c", Message: strings.Repeat("é", 1e6)}).encode())
	require.LessOrEqual(t, len(again.Message), 4<<10)
	require.NotContains(t, again.Message, "\uFFFD")
}

func FuzzError(f *testing.F) {
	f.Add([]byte(`{"status":"error","code":"c","message":"m"}`))
	f.Add([]byte("text"))
	f.Fuzz(func(t *testing.T, in []byte) {
		e := decodeError(in)
		if len(e.Message) > 3*maxErrorText {
			t.Fatal(len(e.Message))
		}
		e.Body = nil
		again := decodeError(e.encode())
		if want := clip(e.Message, 4<<10); want != "" && again.Message != want {
			t.Fatalf("%q became %q", want, again.Message)
		}
	})
}

func TestWhichErrorsAreAnswers(t *testing.T) {
	t.Parallel()
	plain := errors.New("down")
	tests := []struct {
		name    string
		err     error
		answer  string // code at once; "" goes to the policies
		faults  string // code of Faults
		message string
	}{
		{"an Error", &Error{Code: "c"}, "c", "c", ""},
		{"an Error within", fmt.Errorf("a: %w", &Error{Code: "c"}), "c", "c", ""},
		{"a permanent error", wherry.Permanent(plain), "permanent", "permanent", "down"},
		{"any other", plain, "", "failed", "the request could not be handled"},
		{"attempts", &wherry.RecordError{Cause: wherry.CauseExhausted, Err: plain}, "", "exhausted", "the request could not be handled"},
		{"a panic", &wherry.RecordError{Cause: wherry.CausePanic, Err: plain}, "", "panic", "the request could not be handled"},
		{"an output", &wherry.OutputError{Err: plain}, "", "failed", "the request could not be handled"},
		{"a refused output", &wherry.RecordError{Cause: wherry.CauseRejected, Err: &wherry.OutputError{Err: plain}}, "", "rejected", "the request could not be handled"},
		{"what does not decode", &wherry.RecordError{Cause: wherry.CauseUndecodable, Err: plain}, "", "undecodable", "the request could not be read: down"},
		{"a permanent one after attempts", &wherry.RecordError{Cause: wherry.CausePermanent, Err: wherry.Permanent(plain)}, "permanent", "permanent", "permanent: down"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if e := answerable(test.err); test.answer == "" {
				require.Nil(t, e)
			} else {
				require.Equal(t, test.answer, e.Code)
			}
			e := faultOf(test.err)
			require.Equal(t, test.faults, e.Code)
			require.Equal(t, test.message, e.Message)
		})
	}
}
