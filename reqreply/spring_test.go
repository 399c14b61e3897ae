package reqreply_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/interop"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

// How a Spring application may have its values: text as Spring Boot has it by
// default, JSON by its serializers, JSON by a converter bean, or bytes.
var (
	springText  = map[string]string{}
	springJSON  = serdes("org.springframework.kafka.support.serializer.JacksonJson", "spring.kafka.consumer.properties.spring.json.value.default.type", "java.lang.Object")
	springConv  = map[string]string{"converter": "true"}
	springBytes = serdes("org.apache.kafka.common.serialization.ByteArray")
)

func serdes(class string, more ...string) map[string]string {
	all := map[string]string{"spring.kafka.producer.value-serializer": class + "Serializer", "spring.kafka.consumer.value-deserializer": class + "Deserializer"}
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	return all
}

// spring runs a Spring application.
func spring(t *testing.T, k *kafkatest.Cluster, app, group string, values map[string]string, more ...string) *interop.Spring {
	t.Helper()
	all := maps.Clone(values)
	all["spring.kafka.consumer.group-id"] = group
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	return interop.OpenSpring(t, app, k.Brokers(), all)
}

// Call calls a Spring @KafkaListener with @SendTo: all that it may answer.
func TestWeCallSpring(t *testing.T) {
	t.Parallel()
	for name, values := range map[string]map[string]string{"serializers": springJSON, "a converter": springConv} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := map[string]string{"serializers": "s1", "a converter": "s2"}[name]
			k := kafkatest.NewCluster(t, p+".ask:1", p+".ask.reply:2", p+".echo:1", p+".user:1", p+".list:1", p+".guarded:1")
			spring(t, k, "Answers", p+".spring", values, "prefix", p)
			ask := reqreply.Method[string, any]{Topic: p + ".ask", Codec: wherry.JSON{}, Profile: reqreply.Spring(), Group: p + ".spring"}
			// Two Callers, that may share a partition.
			c, other := caller(t, k, ask), caller(t, k, ask)
			for what, want := range map[string]any{
				"object":      map[string]any{"id": "u1", "name": "Ada"},
				"map":         map[string]any{"nested": map[string]any{"n": 1.0}},
				"string":      "user1",
				"number":      42.0,
				"float":       1.5,
				"true":        true,
				"false":       false,
				"KafkaNull":   nil,
				"empty":       "",
				"array":       []any{1.0, "two", nil},
				"empty array": []any{},
				"bytes":       "AP8=", // Jackson's base64, which is a Go []byte
				"Message":     map[string]any{"id": "u1", "name": "Ada"},
			} {
				for _, c := range []*reqreply.Caller{c, other} {
					got, err := ask.Call(within(t, patience), c, what)
					require.NoError(t, err, what)
					require.Equal(t, want, got, what)
				}
			}
			require.Zero(t, c.Status().Late+c.Status().Unknown+other.Status().Late+other.Status().Unknown)
			b, err := reqreply.Method[string, []byte]{Topic: p + ".ask", Codec: wherry.JSON{}, Profile: reqreply.Spring()}.Call(within(t, patience), c, "bytes")
			require.NoError(t, err)
			require.Equal(t, []byte{0, 0xff}, b)

			// What a listener throws can be an answer.
			guarded := ask
			guarded.Topic, guarded.ReplyTopic = p+".guarded", p+".ask.reply"
			_, err = guarded.Call(within(t, patience), c, "u7")
			var answer *reqreply.Error
			require.ErrorAs(t, err, &answer)
			require.Equal(t, "no such user: u7", answer.Message)

			if name == "a converter" { // it goes by the type of the listener's parameter
				find := reqreply.Method[user, *user]{Topic: p + ".user", ReplyTopic: p + ".ask.reply", Codec: wherry.JSON{}, Profile: reqreply.Spring(), Key: func(user) string { return "k1" }}
				u, err := find.Call(within(t, patience), c, user{"u1", "Ada"})
				require.NoError(t, err)
				require.Equal(t, &user{"u1", "ADA"}, u)
			}
		})
	}
}

// What a Spring listener answers nothing to: the call waits for its deadline.
func TestWhatSpringDoesNotAnswer(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "s3.ask:1", "s3.ask.reply:1", "s3.echo:1", "s3.user:1", "s3.list:1", "s3.guarded:1")
	app := spring(t, k, "Answers", "s3.spring", springConv, "prefix", "s3")
	ask := reqreply.Method[string, any]{Topic: "s3.ask", Codec: wherry.JSON{}, Profile: reqreply.Spring(), Group: "s3.spring"}
	list := ask
	list.Topic, list.ReplyTopic = "s3.list", "s3.ask.reply"
	text := ask
	text.Profile = reqreply.Profile{} // NestJS's: a reply partition as text
	c, nest := caller(t, k, ask), caller(t, k)

	var calls sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	call := func(m reqreply.Method[string, any], c *reqreply.Caller, what string) {
		calls.Go(func() {
			got, err := m.Call(ctx, c, what)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: got %v, %v", what, got, err)
			}
		})
	}
	call(ask, c, "null") // return null
	require.JSONEq(t, `"null"`, string(app.Heard(t).Value))
	call(ask, c, "nonsense") // throws: its default error handler calls it ten times, and goes on
	for range 10 {
		require.JSONEq(t, `"nonsense"`, string(app.Heard(t).Value))
	}
	call(text, nest, "string")
	require.JSONEq(t, `"string"`, string(app.Heard(t).Value))
	call(list, c, "x") // splitIterables: its values come as records of their own, without a correlation id
	eventually(t, "the values of a list", func() bool { return c.Status().Unknown == 2 })

	got, err := ask.Call(within(t, patience), c, "true")
	require.NoError(t, err)
	require.Equal(t, true, got)
	cancel()
	calls.Wait()

	// And nobody is asked where no application runs.
	app.Do(t, "close", nil)
	eventually(t, "no responder", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // for what is sent before that is known
		defer cancel()
		_, err := ask.Call(ctx, c, "true")
		return errors.Is(err, reqreply.ErrNoResponder)
	})
}

// What arrives at a Spring listener.
func TestWhatSpringGetsFromUs(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "s4.ask:1", "s4.echo:1", "s4.echo.reply:1", "s4.user:1", "s4.list:1", "s4.guarded:1")
	spring(t, k, "Answers", "s4.spring", springJSON, "prefix", "s4")
	c := caller(t, k)
	type echoed struct {
		Type    string            `json:"type"`
		Value   json.RawMessage   `json:"value"`
		Headers map[string]string `json:"headers"`
		Types   map[string]string `json:"types"`
	}
	for _, test := range []struct {
		in          any
		class, data string
	}{
		{"user1", "java.lang.String", `"user1"`},
		{"", "java.lang.String", `""`},
		{42, "java.lang.Integer", `42`},
		{1.5, "java.lang.Double", `1.5`},
		{true, "java.lang.Boolean", `true`},
		{nil, "org.springframework.kafka.support.KafkaNull", `null`},
		{user{"u1", "Ada"}, "java.util.LinkedHashMap", `{"id":"u1","name":"Ada"}`},
		{[]int{1, 2}, "java.util.ArrayList", `[1,2]`},
		{[]int{}, "java.util.ArrayList", `[]`},
		{[]byte{0, 0xff}, "java.lang.String", `"AP8="`},
	} {
		echo := reqreply.Method[any, echoed]{
			Topic: "s4.echo", Codec: wherry.JSON{}, Profile: reqreply.Spring(), Key: func(any) string { return "k1" },
			Headers: func(context.Context, any) []kgo.RecordHeader {
				return []kgo.RecordHeader{
					{Key: "tenant", Value: []byte("t1")},
					{Key: "n", Value: []byte("5")},
					{Key: "text", Value: []byte("t2")},
					{Key: "spring_json_header_types", Value: []byte(`{"n":"java.lang.Integer","text":"java.lang.String"}`)},
				}
			},
		}
		got, err := echo.Call(within(t, patience), c, test.in)
		require.NoError(t, err)
		require.Equal(t, test.class, got.Type, "%v", test.in)
		require.JSONEq(t, test.data, string(got.Value))
		require.Equal(t, "k1", got.Headers["kafka_receivedMessageKey"], "%v", got.Headers)
		require.Equal(t, "byte[]", got.Types["tenant"], "a header without a type is bytes")
		require.Equal(t, "t1", got.Headers["tenant"])
		require.Equal(t, []string{"5", "Integer", "t2", "String"}, []string{got.Headers["n"], got.Types["n"], got.Headers["text"], got.Types["text"]})
		require.NotEmpty(t, got.Headers["wherry-deadline"])
	}
}

// springsAnswer is what a handler of ours answers a ReplyingKafkaTemplate.
func springsAnswer(_ context.Context, v any) (any, error) {
	switch v {
	case "error":
		return nil, &reqreply.Error{Code: "E42", Message: "no such user"}
	case "permanent":
		return nil, wherry.Permanent(errors.New("never"))
	case "failure":
		return nil, errors.New("a secret")
	}
	return v, nil
}

// A Spring ReplyingKafkaTemplate calls our handlers.
func TestSpringCallsUs(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "w1.ask:2", "w1.ask.reply:3")
	m := reqreply.Method[any, any]{Topic: "w1.ask", Codec: wherry.JSON{}, Profile: reqreply.Spring()}
	serve(t, k, &wherry.Consumer{Group: "w1", Policies: []wherry.Policy{reqreply.Faults{Done: true}}}, m.Handler(springsAnswer))
	// Callers that share a reply topic, as groups of their own.
	apps := map[string]*interop.Spring{
		"16 bytes":           spring(t, k, "Asks", "w1.a", springJSON, "replies", "w1.ask.reply"),
		"text":               spring(t, k, "Asks", "w1.b", springJSON, "replies", "w1.ask.reply", "text", "true"),
		"a partition":        spring(t, k, "Asks", "w1.c", springJSON, "replies", "w1.ask.reply", "partition", "1"),
		"no errors expected": spring(t, k, "Asks", "w1.d", springJSON, "replies", "w1.ask.reply", "checked", "false"),
	}
	for name, app := range apps {
		for v, class := range map[string]string{
			`"user1"`: "java.lang.String", `""`: "java.lang.String", `"\"quoted\""`: "java.lang.String",
			`42`: "java.lang.Integer", `1.5`: "java.lang.Double", `true`: "java.lang.Boolean", `null`: "",
			`{"a":[1,"x"]}`: "java.util.LinkedHashMap", `["a",1,null]`: "java.util.ArrayList", `[]`: "java.util.ArrayList",
		} {
			got := app.Ask(t, "w1.ask", map[string]any{"value": json.RawMessage(v)})
			require.Empty(t, got.Error+got.Message, "%s: %s", name, v)
			require.JSONEq(t, v, string(got.Value), name)
			require.Equal(t, class, got.Type)
			if name == "a partition" {
				require.EqualValues(t, 1, got.Partition)
			}
		}
		for what, want := range map[string]string{
			"error":     `{"status":"error","code":"E42","message":"no such user"}`,
			"permanent": `{"status":"error","code":"permanent","message":"never"}`,
			"failure":   `{"status":"error","code":"failed","message":"the request could not be handled"}`,
		} {
			got := app.Ask(t, "w1.ask", map[string]any{"value": what})
			if name == "no errors expected" { // without a replyErrorChecker an error is a null value
				require.Empty(t, got.Error)
				require.JSONEq(t, `null`, string(got.Value))
				require.JSONEq(t, want, got.Headers["kafka_nest-err"])
				continue
			}
			require.Equal(t, "org.springframework.kafka.KafkaException", got.Error)
			require.JSONEq(t, want, got.Message)
		}
		// A record with key and headers, of a class; and a Message.
		got := app.Ask(t, "w1.ask", map[string]any{"value": user{"u1", "Ada"}, "as": "user", "key": "k1", "headers": map[string]string{"tenant": "t1"}})
		require.JSONEq(t, `{"id":"u1","name":"Ada"}`, string(got.Value))
		require.Equal(t, "k1", got.Key)
		require.Equal(t, "w1", got.Headers["wherry-reply-group"])
		got = app.Ask(t, "w1.ask", map[string]any{"value": user{"u1", "Ada"}, "as": "message", "headers": map[string]any{"tenant": "t1", "n": 5}})
		require.Empty(t, got.Error)
		require.JSONEq(t, `{"id":"u1","name":"Ada"}`, string(got.Value))
	}
	// All at once.
	var calls sync.WaitGroup
	for name, app := range apps {
		for i := range 25 {
			calls.Go(func() {
				if got := app.Ask(t, "w1.ask", map[string]any{"value": i}); string(got.Value) != strconv.Itoa(i) {
					t.Errorf("%s: asked %d, got %+v", name, i, got)
				}
			})
		}
	}
	calls.Wait()
}

// Text and bytes travel as they are with the default Codec; and exactly once.
func TestSpringCallsUsWithTextAndBytes(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "w2.ask:1", "w2.ask.reply:1")
	m := reqreply.Method[[]byte, []byte]{Topic: "w2.ask"} // a server reads either profile's requests
	serve(t, k, &wherry.Consumer{Group: "w2", Delivery: wherry.ExactlyOnce}, m.Handler(func(_ context.Context, b []byte) ([]byte, error) { return b, nil }))
	committed := []string{"replies", "w2.ask.reply", "spring.kafka.consumer.isolation-level", "read_committed"}
	text, bytes := spring(t, k, "Asks", "w2.a", springText, committed...), spring(t, k, "Asks", "w2.b", springBytes, committed...)
	for _, v := range []string{`"user1"`, `""`, `"{\"a\":1}"`, `"42"`} {
		require.JSONEq(t, v, string(text.Ask(t, "w2.ask", map[string]any{"value": json.RawMessage(v)}).Value))
	}
	got := bytes.Ask(t, "w2.ask", map[string]any{"value": []byte{0, 0xff}, "as": "bytes"})
	require.Equal(t, "[B", got.Type)
	require.JSONEq(t, `"AP8="`, string(got.Value))
}

// A Spring caller that gives up, and what becomes of our answer.
func TestASpringCallerGivesUp(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "w3.ask:1", "w3.ask.reply:1")
	m := reqreply.Method[string, string]{Topic: "w3.ask", Codec: wherry.JSON{}, Profile: reqreply.Spring()}
	held := make(chan struct{})
	serve(t, k, &wherry.Consumer{Group: "w3", Order: wherry.Unordered}, m.Handler(func(ctx context.Context, s string) (string, error) {
		if s == "slow" {
			select {
			case <-held:
			case <-ctx.Done():
			}
		}
		return s, nil
	}))
	app := spring(t, k, "Asks", "w3.a", springJSON, "replies", "w3.ask.reply")
	got := app.Ask(t, "w3.ask", map[string]any{"value": "slow", "timeout": 100})
	require.Equal(t, "org.springframework.kafka.requestreply.KafkaReplyTimeoutException", got.Error)
	close(held)
	require.JSONEq(t, `"slow"`, string(kafkatest.NextRecord(t, k, "w3.ask.reply").Value)) // a request of Spring's has no deadline
	require.JSONEq(t, `"fast"`, string(app.Ask(t, "w3.ask", map[string]any{"value": "fast"}).Value))
}

// Our replies name no Java class: a client has to say which one it expects.
func TestASpringClientThatExpectsNoType(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "w4.ask:1", "w4.ask.reply:1")
	m := reqreply.Method[any, any]{Topic: "w4.ask", Codec: wherry.JSON{}}
	serve(t, k, &wherry.Consumer{Group: "w4"}, m.Handler(springsAnswer))
	untyped := serdes("org.springframework.kafka.support.serializer.JacksonJson",
		"spring.kafka.consumer.value-deserializer", "org.springframework.kafka.support.serializer.ErrorHandlingDeserializer",
		"spring.kafka.consumer.properties.spring.deserializer.value.delegate.class", "org.springframework.kafka.support.serializer.JacksonJsonDeserializer")
	app := spring(t, k, "Asks", "w4.a", untyped, "replies", "w4.ask.reply")
	for range 2 {
		got := app.Ask(t, "w4.ask", map[string]any{"value": "user1"})
		require.Equal(t, "org.springframework.kafka.support.serializer.DeserializationException", got.Error)
	}
}
