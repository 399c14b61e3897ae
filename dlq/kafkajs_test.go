package dlq_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/internal/interop"
	"github.com/wherry-go/wherry/kafkatest"
)

// heardInJS is what letters.mjs heard.
type heardInJS struct {
	By, Topic string
	Key       *string
	Value     json.RawMessage
	Headers   map[string]*string
}

// hearInJS returns the next that either of the two heard.
func hearInJS(t *testing.T, out *bufio.Scanner) (h heardInJS) {
	t.Helper()
	require.True(t, out.Scan(), "letters.mjs ended")
	require.NoError(t, json.Unmarshal(out.Bytes(), &h), out.Text())
	return h
}

// bytes is a value that KafkaJS heard.
func (h heardInJS) bytes(t *testing.T) (b []byte) {
	t.Helper()
	require.Equal(t, "kafkajs", h.By)
	require.NoError(t, json.Unmarshal(h.Value, &b))
	return b
}

// The two directions of dead letters between a Queue and programs in
// JavaScript, on one pair of topics, as when services are replaced one by one.
func TestDeadLettersToAndFromJavaScript(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "js.orders:1", "js.dlq:1", "js.plain.dlq:1", "go.orders:1")
	_, out := interop.Node(t, "letters.mjs", strings.Join(k.Brokers(), ","))
	headers := []kgo.RecordHeader{{Key: "tenant", Value: []byte("t1")}, {Key: "raw", Value: []byte{0xff}}, {Key: "n", Value: []byte("1")}, {Key: "n", Value: []byte("2")}}
	cl := k.Client(t)
	send := func(topic string, value []byte) *kgo.Record {
		t.Helper()
		r := &kgo.Record{Topic: topic, Key: []byte("o-1"), Value: value, Headers: headers}
		require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())
		return r
	}

	t.Run("NestJS writes, we read", func(t *testing.T) {
		for _, test := range []struct {
			value []byte
			want  []byte // what NestJS leaves of it
		}{
			{[]byte(`{"id":"o-1","totalAmount":"99.99"}`), []byte(`{"id":"o-1","totalAmount":"99.99"}`)},
			{[]byte(`{ "n": 12345678901234567890, "x": 1.10 }`), []byte(`{"n":12345678901234567000,"x":1.1}`)}, // JavaScript's numbers
			{[]byte(`[1,"two"]`), []byte(`[1,"two"]`)},
			{[]byte("user1"), []byte("user1")},
			{[]byte("42"), []byte("42")},
			{[]byte{}, []byte{}},
			{nil, nil},
			{[]byte{0, 1, 0xff}, []byte{0, 1, 0xff}}, // what begins with 0 stays a Buffer
			{[]byte{0xff, 'a'}, []byte("\uFFFDa")},   // other bytes become text
			{[]byte(`{"broken":`), []byte(`{"broken":`)},
		} {
			sent := send("js.orders", test.value)
			record := kafkatest.NextRecord(t, k, "js.dlq")
			l, err := dlq.Read(record)
			require.NoError(t, err, "%s", record.Value)
			require.Equal(t, []any{dlq.FormatEnvelope, wherry.CauseExhausted, "Payment failed", 4}, []any{l.Format, l.Cause, l.Error, l.Attempts})
			require.Equal(t, []any{"js.orders", sent.Partition, sent.Offset, sent.Timestamp.UnixMilli()}, []any{l.Topic, l.Partition, l.Offset, l.Timestamp.UnixMilli()})
			require.Equal(t, "o-1", string(l.Key))
			require.Equal(t, test.want, l.Value, "%q", test.value)
			require.Contains(t, l.Stack, "Billing.pay")
			require.False(t, l.Failed.Before(l.Timestamp.Truncate(1e6)))
			// Its repeated headers are joined, its bytes text: NestJS's KafkaParser.
			require.Equal(t, textHeaders("tenant:t1", "raw:\uFFFD", "n:1,2"), l.Headers)
			hearInJS(t, out)
			hearInJS(t, out)
		}
	})

	t.Run("we write, NestJS and KafkaJS read", func(t *testing.T) {
		queue := &dlq.Queue{Topic: "js.dlq", Format: dlq.FormatEnvelope}
		kafkatest.Run(t, &wherry.Consumer{
			Client: cl, Group: "go-billing", Policies: []wherry.Policy{queue},
			Handlers: []wherry.Route{{Topic: "go.orders", Handler: func(context.Context, *kgo.Record) error { return errors.New("card declined") }}},
		})
		for _, test := range []struct {
			value []byte
			want  string // originalMessage's value and encoding
		}{
			{[]byte(`{"id":"o-1","totalAmount":"99.99"}`), `{"value":{"id":"o-1","totalAmount":"99.99"}}`},
			{[]byte(`[1,"two"]`), `{"value":[1,"two"]}`},
			{[]byte("user1"), `{"value":"user1"}`},
			{[]byte("42"), `{"value":"42"}`},
			{[]byte{}, `{"value":""}`},
			{nil, `{"value":null}`},
			{[]byte{0, 1, 0xff}, `{"value":"AAH/","encoding":"base64"}`},
		} {
			sent := send("go.orders", test.value)
			written := kafkatest.NextRecord(t, k, "js.dlq")
			for range 2 {
				h := hearInJS(t, out)
				require.Equal(t, "js.dlq", h.Topic)
				require.Equal(t, "o-1", *h.Key)
				require.Equal(t, "go.orders", *h.Headers["wherry-dlq-topic"])
				letter := h.Value // NestJS has parsed it
				if h.By == "kafkajs" {
					letter = h.bytes(t)
					require.Equal(t, written.Value, []byte(letter))
				}
				var read struct {
					OriginalMessage map[string]json.RawMessage
					Error           struct{ Message, Name string }
					FailedAt        string
					RetryCount      int
				}
				require.NoError(t, json.Unmarshal(letter, &read), "%s", letter)
				require.Equal(t, "card declined", read.Error.Message)
				require.NotEmpty(t, read.FailedAt)
				require.JSONEq(t, `"go.orders"`, string(read.OriginalMessage["topic"]))
				require.JSONEq(t, `"o-1"`, string(read.OriginalMessage["key"]))
				require.JSONEq(t, `{"tenant":"t1","raw":"\ufffd","n":["1","2"]}`, string(read.OriginalMessage["headers"]))
				body := map[string]json.RawMessage{"value": read.OriginalMessage["value"]}
				if e := read.OriginalMessage["encoding"]; e != nil {
					body["encoding"] = e
				}
				got, err := json.Marshal(body)
				require.NoError(t, err)
				require.JSONEq(t, test.want, string(got))
			}
			// And exactly again for us, whatever JavaScript made of it.
			l, err := dlq.Read(written)
			require.NoError(t, err)
			require.Equal(t, []any{sent.Value, sent.Headers}, []any{l.Value, l.Headers})
		}
	})

	t.Run("we write the default format, KafkaJS reads", func(t *testing.T) {
		kafkatest.Run(t, &wherry.Consumer{
			Client: cl, Group: "go-plain", From: wherry.Latest, Policies: []wherry.Policy{&dlq.Queue{Topic: "js.plain.dlq"}},
			Handlers: []wherry.Route{{Topic: "go.orders", Handler: func(context.Context, *kgo.Record) error { return errors.New("card declined") }}},
		})
		for _, value := range [][]byte{[]byte(`{"id":"o-1"}`), []byte("user1"), {}, nil, {0, 1, 0xff}} {
			send("go.orders", value)
			h := hearInJS(t, out)
			require.Equal(t, "js.plain.dlq", h.Topic)
			require.Equal(t, value, h.bytes(t))
			require.Equal(t, "o-1", *h.Key)
			require.Equal(t, []string{"t1", "go.orders", "card declined", "failed"},
				[]string{*h.Headers["tenant"], *h.Headers["wherry-dlq-topic"], *h.Headers["wherry-dlq-error"], *h.Headers["wherry-dlq-cause"]})
		}
	})
}
