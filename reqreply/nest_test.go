package reqreply_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/interop"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

// nest starts a NestJS peer and returns when it is ready: what it reads, and
// what it writes, by line.
func nest(t *testing.T, k *kafkatest.Cluster, role string) (in io.Writer, out *bufio.Scanner) {
	t.Helper()
	return interop.Node(t, "peer.mjs", role, strings.Join(k.Brokers(), ","))
}

// Call calls a NestJS @MessagePattern: all that it may answer.
func TestWeCallNestJS(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "nest.ask:1", "nest.ask.reply:2", "nest.echo:1", "nest.echo.reply:2")
	nest(t, k, "server")
	ask := reqreply.Method[string, any]{Topic: "nest.ask", Group: "nest-server"}
	c := caller(t, k, ask)
	call := func(what string) (any, error) {
		t.Helper()
		return ask.Call(within(t, patience), c, what)
	}
	for what, want := range map[string]any{
		"object":      map[string]any{"id": "u1", "name": "Ada", "tags": []any{"a"}, "nested": map[string]any{"n": 1.0}},
		"string":      "user1",
		"number":      "42", // text, as NestJS itself reads it
		"true":        "true",
		"null":        nil,
		"undefined":   nil,
		"empty":       "",
		"array":       []any{1.0, "two", nil},
		"empty array": []any{},
		"promise":     map[string]any{"later": true},
		"stream":      "a", // the first
	} {
		got, err := call(what)
		require.NoError(t, err, what)
		require.Equal(t, want, got, what)
	}
	// By type.
	n, err := reqreply.Method[string, int]{Topic: "nest.ask"}.Call(within(t, patience), c, "number")
	require.NoError(t, err)
	require.Equal(t, 42, n)
	f, err := reqreply.Method[string, float64]{Topic: "nest.ask"}.Call(within(t, patience), c, "float")
	require.NoError(t, err)
	require.InDelta(t, 1.5, f, 0)
	b, err := reqreply.Method[string, bool]{Topic: "nest.ask"}.Call(within(t, patience), c, "false")
	require.NoError(t, err)
	require.False(t, b)
	u, err := reqreply.Method[string, *user]{Topic: "nest.ask"}.Call(within(t, patience), c, "object")
	require.NoError(t, err)
	require.Equal(t, &user{ID: "u1", Name: "Ada"}, u)

	for what, want := range map[string]reqreply.Error{
		"rpc text":   {Message: "no such user", Body: []byte(`{"status":"error","message":"no such user"}`)},
		"rpc object": {Code: "E42", Message: "no such user", Body: []byte(`{"code":"E42","message":"no such user","extra":[1]}`)},
		"error":      {Message: "Internal server error", Body: []byte(`{"status":"error","message":"Internal server error"}`)},
	} {
		_, err := call(what)
		var answer *reqreply.Error
		require.ErrorAs(t, err, &answer, what)
		require.Equal(t, want.Code, answer.Code, what)
		require.Equal(t, want.Message, answer.Message, what)
		require.JSONEq(t, string(want.Body), string(answer.Body), what)
	}

	stream := func(what string) (all []any, err error) {
		for v, err := range ask.Stream(within(t, patience), c, what) {
			if err != nil {
				return all, err
			}
			all = append(all, v)
		}
		return all, nil
	}
	got, err := stream("stream")
	require.NoError(t, err)
	require.Equal(t, []any{"a", "b", "c"}, got)
	got, err = stream("slow stream")
	require.NoError(t, err)
	require.Equal(t, []any{map[string]any{"n": 0.0}, map[string]any{"n": 1.0}, map[string]any{"n": 2.0}}, got)
	got, err = stream("empty stream")
	require.NoError(t, err)
	require.Empty(t, got)
	got, err = stream("broken stream")
	require.Equal(t, []any{"a", "b"}, got)
	require.ErrorContains(t, err, "no more")
}

// What arrives at a NestJS handler.
func TestWhatNestJSGetsFromUs(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "nest.ask:1", "nest.ask.reply:1", "nest.echo:1", "nest.echo.reply:1")
	nest(t, k, "server")
	c := caller(t, k)
	type echoed struct {
		Type    string            `json:"type"`
		Data    json.RawMessage   `json:"data"`
		Key     *string           `json:"recordKey"`
		Headers map[string]string `json:"headers"`
	}
	for _, test := range []struct {
		in         any
		kind, data string
	}{
		{"user1", "string", `"user1"`},
		{"", "string", `""`},
		{42, "string", `"42"`}, // so does NestJS to itself
		{true, "string", `"true"`},
		{nil, "object", ""}, // the whole message, in place of a null value (KafkaRequestDeserializer)
		{user{"u1", "Ada"}, "object", `{"id":"u1","name":"Ada"}`},
		{[]int{1, 2}, "array", `[1,2]`},
		{[]int{}, "array", `[]`},
	} {
		echo := reqreply.Method[any, echoed]{
			Topic: "nest.echo", Key: func(any) string { return "k1" },
			Headers: func(context.Context, any) []kgo.RecordHeader {
				return []kgo.RecordHeader{{Key: "tenant", Value: []byte("t1")}}
			},
		}
		got, err := echo.Call(within(t, patience), c, test.in)
		require.NoError(t, err)
		require.Equal(t, test.kind, got.Type, "%v", test.in)
		if test.data != "" {
			require.JSONEq(t, test.data, string(got.Data))
		}
		require.Equal(t, "k1", *got.Key)
		require.Equal(t, "t1", got.Headers["tenant"])
		require.NotEmpty(t, got.Headers["wherry-deadline"])
	}
}

// A NestJS ClientKafka calls our handlers.
func TestNestJSCallsUs(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "wherry.ask:1", "wherry.ask.reply:2", "wherry.echo:1", "wherry.echo.reply:2")
	ask := reqreply.Method[string, any]{Topic: "wherry.ask"}
	echo := reqreply.Method[[]byte, map[string]any]{Topic: "wherry.echo"}
	serve(t, k, &wherry.Consumer{Group: "streams", Policies: []wherry.Policy{reqreply.Faults{Done: true}}},
		ask.StreamHandler(func(_ context.Context, what string) iter.Seq2[any, error] {
			return func(yield func(any, error) bool) {
				switch what {
				case "stream":
					_ = yield("a", nil) && yield("b", nil) && yield("c", nil)
				case "object":
					yield(user{"u1", "Ada"}, nil)
				case "string":
					yield("user1", nil)
				case "number":
					yield(42, nil)
				case "true":
					yield(true, nil)
				case "empty":
					yield("", nil)
				case "array":
					yield([]any{1, "two"}, nil)
				case "empty array":
					yield([]int{}, nil)
				case "error":
					yield(nil, &reqreply.Error{Code: "E42", Message: "no such user"})
				case "rpc object":
					yield(nil, &reqreply.Error{Body: []byte(`{"code":"E42","extra":[1]}`)})
				case "failure":
					yield(nil, errors.New("a secret"))
				case "broken stream":
					_ = yield("a", nil) && yield(nil, &reqreply.Error{Message: "no more"})
				}
			}
		}))
	serve(t, k, &wherry.Consumer{Group: "echo"}, echo.Handler(func(ctx context.Context, body []byte) (map[string]any, error) {
		r := wherry.RecordFrom(ctx)
		if string(r.Value) == "nobody" {
			return nil, nil //nolint:nilnil // an answer
		}
		return map[string]any{"body": string(body), "null": r.Value == nil, "key": string(r.Key), "tenant": headerOf(r, "tenant")}, nil
	}))
	in, out := nest(t, k, "client")
	send := func(request string) string {
		t.Helper()
		_, err := fmt.Fprintln(in, request)
		require.NoError(t, err)
		require.True(t, out.Scan(), "the peer ended")
		return out.Text()
	}
	for what, want := range map[string]string{
		"object":        `{"values":[{"id":"u1","name":"Ada"}],"completed":true}`,
		"string":        `{"values":["user1"],"completed":true}`,
		"number":        `{"values":["42"],"completed":true}`,
		"true":          `{"values":["true"],"completed":true}`,
		"empty":         `{"values":[""],"completed":true}`,
		"array":         `{"values":[[1,"two"]],"completed":true}`,
		"empty array":   `{"values":[[]],"completed":true}`,
		"stream":        `{"values":["a","b","c"],"completed":true}`,
		"error":         `{"values":[],"error":{"status":"error","code":"E42","message":"no such user"}}`,
		"rpc object":    `{"values":[],"error":{"code":"E42","extra":[1]}}`,
		"failure":       `{"values":[],"error":{"status":"error","code":"failed","message":"the request could not be handled"}}`,
		"broken stream": `{"values":["a"],"error":{"status":"error","message":"no more"}}`,
	} {
		require.JSONEq(t, want, send(`{"pattern":"wherry.ask","data":"`+what+`"}`), what)
	}
	for request, want := range map[string]string{
		`"data":"user1"`:       `{"body":"user1","null":false,"key":"","tenant":""}`,
		`"data":""`:            `{"body":"","null":false,"key":"","tenant":""}`,
		`"data":42`:            `{"body":"42","null":false,"key":"","tenant":""}`,
		`"data":true`:          `{"body":"true","null":false,"key":"","tenant":""}`,
		`"data":{"a":[1,"x"]}`: `{"body":"{\"a\":[1,\"x\"]}","null":false,"key":"","tenant":""}`,
		`"data":["a"]`:         `{"body":"[\"a\"]","null":false,"key":"","tenant":""}`,
		`"data":[]`:            `{"body":"[]","null":false,"key":"","tenant":""}`,
		`"message":{"key":"k1","value":{"a":1},"headers":{"tenant":"t1"}}`: `{"body":"{\"a\":1}","null":false,"key":"k1","tenant":"t1"}`,
	} {
		require.JSONEq(t, `{"values":[`+want+`],"completed":true}`, send(`{"pattern":"wherry.echo",`+request+`}`), request)
	}
	require.JSONEq(t, `{"values":[null],"completed":true}`, send(`{"pattern":"wherry.echo","data":"nobody"}`))
	require.Contains(t, send(`{"pattern":"wherry.echo","data":null}`), "invalid data", "NestJS itself refuses to send null")
}
