package dlq_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
)

func TestTheEnvelopeIsWhatTheSeedWrites(t *testing.T) {
	t.Parallel()
	r, err := letterOf(dlq.FormatEnvelope).Encode("billing.dlq")
	require.NoError(t, err)
	require.Equal(t, "o-1", string(r.Key))
	require.JSONEq(t, `{
		"originalMessage": {
			"topic": "order.created", "partition": 3, "offset": "42", "timestamp": "1732290169000",
			"key": "o-1", "value": {"id": "o-1"}, "headers": {"tenant": "a"}
		},
		"error": {"message": "card declined", "stack": "goroutine 1", "name": "*bank.Error"},
		"failedAt": "2026-11-22T15:42:49.123Z",
		"retryCount": 3
	}`, string(r.Value))
	for _, h := range r.Headers {
		require.Contains(t, h.Key, "wherry-dlq-", "a header such as kafka_replyTopic would make NestJS answer the letter")
	}
}

// As a NestJS service of the seed writes it: JSON.stringify of what KafkaJS and
// NestJS's parser made of the message, which has topic and partition from NestJS.
// TestDeadLettersToAndFromJavaScript has a real one.
func TestASeedsEnvelopeIsRead(t *testing.T) {
	t.Parallel()
	r := &kgo.Record{Topic: "billing.dlq", Key: []byte("o-1"), Value: []byte(`{"originalMessage":{"magicByte":2,"attributes":0,"timestamp":"1732290169000","offset":"42","key":"o-1",
		"value":{"id":"o-1","totalAmount":"99.99"},"headers":{"tenant":"a","trace":["x","y"],"raw":{"type":"Buffer","data":[0,255]}},
		"isControlRecord":false,"batchContext":{"firstOffset":"42"},"topic":"order.created","partition":3},
		"error":{"message":"Payment failed","stack":"Error: Payment failed\n    at BillingService"},"failedAt":"2026-11-22T15:42:49.000Z","retryCount":3}`)}
	l, err := dlq.Read(r)
	require.NoError(t, err)
	require.Equal(t, &dlq.Letter{
		Record: r, Format: dlq.FormatEnvelope, Topic: "order.created", Partition: 3, Offset: 42, Timestamp: time.UnixMilli(1732290169000),
		Key: []byte("o-1"), Value: []byte(`{"id":"o-1","totalAmount":"99.99"}`),
		Headers: []kgo.RecordHeader{{Key: "tenant", Value: []byte("a")}, {Key: "trace", Value: []byte("x")}, {Key: "trace", Value: []byte("y")}, {Key: "raw", Value: []byte{0, 255}}},
		Cause:   wherry.CauseExhausted, Error: "Payment failed", Stack: "Error: Payment failed\n    at BillingService",
		Attempts: 4, Failed: time.Date(2026, 11, 22, 15, 42, 49, 0, time.UTC),
	}, l)
}

func TestFormsOfASeedsEnvelope(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, message string
		check         func(t *testing.T, l *dlq.Letter)
	}{
		{"null", `{"key":null,"value":null}`, func(t *testing.T, l *dlq.Letter) {
			require.Nil(t, l.Key)
			require.Nil(t, l.Value)
		}},
		{"absent", `{}`, func(t *testing.T, l *dlq.Letter) {
			require.Nil(t, l.Key)
			require.Nil(t, l.Value)
			require.Empty(t, l.Topic)
			require.Equal(t, []any{int32(-1), int64(-1)}, []any{l.Partition, l.Offset})
		}},
		{"empty", `{"key":"","value":""}`, func(t *testing.T, l *dlq.Letter) {
			require.Equal(t, []byte{}, l.Key)
			require.Equal(t, []byte{}, l.Value)
		}},
		{"text", `{"value":"user1"}`, func(t *testing.T, l *dlq.Letter) { require.Equal(t, "user1", string(l.Value)) }},
		{"a number", `{"value":42}`, func(t *testing.T, l *dlq.Letter) { require.Equal(t, "42", string(l.Value)) }},
		{"bytes", `{"key":{"type":"Buffer","data":[1,2]},"value":{"type":"Buffer","data":[]}}`, func(t *testing.T, l *dlq.Letter) {
			require.Equal(t, []byte{1, 2}, l.Key)
			require.Equal(t, []byte{}, l.Value)
		}},
		{"no bytes after all", `{"value":{"type":"Buffer","data":[256]}}`, func(t *testing.T, l *dlq.Letter) {
			require.JSONEq(t, `{"type":"Buffer","data":[256]}`, string(l.Value))
		}},
		{"fields in another case are other fields", `{"Value":"no","value":"yes","VALUE":"no"}`, func(t *testing.T, l *dlq.Letter) { require.Equal(t, "yes", string(l.Value)) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l, err := dlq.Read(&kgo.Record{Value: []byte(`{"originalMessage":` + test.message + `,"error":"thrown text"}`)})
			require.NoError(t, err)
			require.Equal(t, dlq.FormatEnvelope, l.Format)
			require.Equal(t, "thrown text", l.Error)
			test.check(t, l)
		})
	}
}

func TestAnEnvelopeIsRecognizedByWhatMakesOne(t *testing.T) {
	t.Parallel()
	for _, value := range []string{
		`{"originalMessage":{}}`, `{"error":{},"failedAt":"x"}`, `["originalMessage"]`, `{"originalMessage":{},"error":{}`, `{"a":{"originalMessage":{},"error":{}}}`, `originalMessage`, ``,
	} {
		l, err := dlq.Read(&kgo.Record{Value: []byte(value)})
		require.NoError(t, err, value)
		require.Equal(t, dlq.FormatUnknown, l.Format, value)
	}
}

func TestAGarbledEnvelopeIsAnError(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		`{"originalMessage":"text","error":{}}`:                                                            "originalMessage is no object",
		`{"originalMessage":{"value":"%%%","encoding":"base64"},"error":{}}`:                               "value: illegal base64",
		`{"originalMessage":{"value":"x","encoding":"zip"},"error":{}}`:                                    `value: it is encoded as "zip"`,
		`{"originalMessage":{"headers":5},"error":{}}`:                                                     "headers",
		`{"originalMessage":{"headerList":{}},"error":{}}`:                                                 "headers",
		`{"originalMessage":{"headerList":[{"key":"a","value":"%","encoding":"base64"}]},"error":{}}`:      "headers",
		`{"originalMessage":{"offset":"many"},"error":{}}`:                                                 `offset is "many"`,
		`{"originalMessage":{"partition":1.5},"error":{}}`:                                                 `partition is "1.5"`,
		`{"originalMessage":{"topic":"order.created"},"failedAt":"Sun Nov 22 2026 15:42:49 GMT+0000 (Z)"}`: "failedAt is",
	} {
		l, err := dlq.Read(&kgo.Record{Value: []byte(value)})
		require.ErrorContains(t, err, want, value)
		require.Equal(t, dlq.FormatEnvelope, l.Format)
	}
}

// What a JavaScript reader gets is what it would have got of the record itself.
func TestAJavaScriptReaderSeesTheRecord(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, value, want string // want is JSON of value and encoding
	}{
		{"an object, with its whitespace and big numbers", `{ "n": 12345678901234567890, "s": "<&>" }`, `"value":{ "n": 12345678901234567890, "s": "<&>" },"headers"`},
		{"duplicate keys", `{"a":1,"a":2}`, `"value":{"a":1,"a":2},"headers"`},
		{"text that NestJS leaves alone", `42`, `"value":"42","headers"`},
		{"JSON with a newline after it", "{}\n", `"value":"{}\n","headers"`},
		{"HTML in text", `<a & b>`, `"value":"<a & b>","headers"`},
		{"no UTF-8", "\xff\x00", `"value":"/wA=","encoding":"base64","headers"`},
		{"JSON in which there is some", "{\"a\":\"\xff\"}", `"encoding":"base64"`},
		{"what looks like a Buffer", `{"type":"Buffer","data":[1]}`, `"value":"{\"type\":\"Buffer\",\"data\":[1]}","headers"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := letterOf(dlq.FormatEnvelope)
			l.Value = []byte(test.value)
			r, err := l.Encode("billing.dlq")
			require.NoError(t, err)
			require.Contains(t, string(r.Value), test.want)
			require.True(t, json.Valid(r.Value))
			require.Equal(t, test.value, string(letterBack(t, l).Value))
		})
	}
}

func TestHeadersOfAnEnvelope(t *testing.T) {
	t.Parallel()
	h := func(key string, value []byte) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: value} }
	tests := []struct {
		name    string
		headers []kgo.RecordHeader
		want    string
		list    bool // whether the object is not enough
	}{
		{"none", nil, `{}`, false},
		{"in their order", []kgo.RecordHeader{h("b", []byte("1")), h("a", []byte("2"))}, `{"b":"1","a":"2"}`, false},
		{"repeated", []kgo.RecordHeader{h("a", []byte("1")), h("a", []byte("2"))}, `{"a":["1","2"]}`, false},
		{"null and empty", []kgo.RecordHeader{h("a", nil), h("b", []byte{})}, `{"a":null,"b":""}`, false},
		{"repeated with others between", []kgo.RecordHeader{h("a", []byte("1")), h("b", []byte("2")), h("a", nil)}, `{"a":["1",null],"b":"2"}`, true},
		{"no UTF-8", []kgo.RecordHeader{h("a", []byte{0xff})}, `{"a":"\ufffd"}`, true},
		{"a name that is none", []kgo.RecordHeader{h("\xff", []byte("1")), h("", []byte("2"))}, `{"\ufffd":"1","":"2"}`, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := letterOf(dlq.FormatEnvelope)
			l.Headers = test.headers
			r, err := l.Encode("billing.dlq")
			require.NoError(t, err)
			var all struct {
				OriginalMessage struct{ Headers json.RawMessage }
			}
			require.NoError(t, json.Unmarshal(r.Value, &all))
			require.JSONEq(t, test.want, string(all.OriginalMessage.Headers))
			require.Equal(t, test.list, bytes.Contains(r.Value, []byte("headerList")))
			requireHeaders(t, test.headers, letterBack(t, l).Headers)
		})
	}
}
