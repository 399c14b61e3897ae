package dlq_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
)

// letterOf returns a letter with every field set.
func letterOf(format dlq.Format) *dlq.Letter {
	failed := time.Date(2026, 11, 22, 15, 42, 49, 123456789, time.UTC)
	return &dlq.Letter{
		Format: format, Topic: "order.created", Partition: 3, Offset: 42, Timestamp: time.UnixMilli(1732290169000),
		Group: "billing", Key: []byte("o-1"), Value: []byte(`{"id":"o-1"}`),
		Headers: []kgo.RecordHeader{{Key: "tenant", Value: []byte("a")}},
		Cause:   wherry.CauseExhausted, Error: "card declined", ErrorType: "*bank.Error", Stack: "goroutine 1",
		Attempts: 4, FirstFailed: failed.Add(-time.Minute), Failed: failed, Replays: 2,
	}
}

// letterBack encodes a letter and reads it again.
func letterBack(t testing.TB, l *dlq.Letter) *dlq.Letter {
	t.Helper()
	r, err := l.Encode("billing.dlq")
	require.NoError(t, err)
	require.Equal(t, "billing.dlq", r.Topic)
	back, err := dlq.Read(r)
	require.NoError(t, err)
	require.Same(t, r, back.Record)
	back.Record = nil
	return back
}

var letterFormats = []dlq.Format{dlq.FormatWherry, dlq.FormatEnvelope}

func TestALetterReadsBackAsItWas(t *testing.T) {
	t.Parallel()
	for _, format := range letterFormats {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			l := letterOf(format)
			back := letterBack(t, l)
			require.True(t, l.Timestamp.Equal(back.Timestamp))
			back.Timestamp = l.Timestamp
			require.Equal(t, l, back)
		})
	}
}

func TestALetterThatKnowsNothingReadsBackAsOne(t *testing.T) {
	t.Parallel()
	for _, format := range letterFormats {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			l := &dlq.Letter{Format: format, Partition: -1, Offset: -1}
			require.Equal(t, l, letterBack(t, l))
		})
	}
}

func TestTheDefaultFormatIsTheRecordWithTextHeaders(t *testing.T) {
	t.Parallel()
	l := letterOf("")
	r, err := l.Encode("billing.dlq")
	require.NoError(t, err)
	require.Equal(t, l.Key, r.Key)
	require.Equal(t, l.Value, r.Value)
	got := []string{}
	for _, h := range r.Headers {
		got = append(got, h.Key+"="+string(h.Value))
	}
	require.Equal(t, []string{
		"tenant=a",
		"wherry-dlq-topic=order.created",
		"wherry-dlq-partition=3",
		"wherry-dlq-offset=42",
		"wherry-dlq-timestamp=1732290169000",
		"wherry-dlq-group=billing",
		"wherry-dlq-cause=exhausted",
		"wherry-dlq-attempts=4",
		"wherry-dlq-first-failed=2026-11-22T15:41:49.123456789Z",
		"wherry-dlq-failed=2026-11-22T15:42:49.123456789Z",
		"wherry-dlq-replays=2",
		"wherry-dlq-error-type=*bank.Error",
		"wherry-dlq-error=card declined",
		"wherry-dlq-stack=goroutine 1",
	}, got)
}

func TestOnlyOurFormatsAreWritten(t *testing.T) {
	t.Parallel()
	_, err := letterOf(dlq.FormatSpring).Encode("billing.dlq")
	require.ErrorContains(t, err, `not as "spring"`)
}

// headerBytes is how much the headers that begin with wherry-dlq- take.
func headerBytes(t testing.TB, r *kgo.Record) (n int) {
	t.Helper()
	for _, h := range r.Headers {
		if strings.HasPrefix(h.Key, "wherry-dlq-") {
			n += len(h.Key) + len(h.Value)
			require.True(t, utf8.Valid(h.Value), "%s is no UTF-8: %q", h.Key, h.Value)
		}
	}
	return n
}

// FuzzHeadersAreBounded: all our headers together stay under 16 KiB, in UTF-8,
// whatever an error says.
func FuzzHeadersAreBounded(f *testing.F) {
	f.Add("", "", "", "", "", "", 0)
	f.Add("order.created", "billing", "failed", "no", "*errors.errorString", "goroutine 1", 1)
	f.Add("\xff\xfe", "\xc3", "\x00", "a\xffb", "€", "\xe2\x82", 20_000)
	f.Fuzz(func(t *testing.T, topic, group, cause, text, kind, stack string, repeat int) {
		long := func(s string) string {
			if s == "" {
				return s
			}
			return strings.Repeat(s, 1+max(0, min(repeat, 50_000/len(s))))
		}
		l := &dlq.Letter{
			Topic: long(topic), Group: long(group), Cause: wherry.Cause(long(cause)), Error: long(text), ErrorType: long(kind), Stack: long(stack),
			Partition: 1 << 30, Offset: 1 << 62, Attempts: 1 << 62, Replays: 1 << 30, Timestamp: time.Now(), FirstFailed: time.Now(), Failed: time.Now(),
		}
		for _, format := range letterFormats {
			l.Format = format
			r, err := l.Encode("t")
			require.NoError(t, err)
			require.Less(t, headerBytes(t, r), 16<<10)
			require.True(t, format == dlq.FormatWherry || utf8.Valid(r.Value))
			require.Less(t, len(r.Value), 64<<10)
		}
	})
}

func TestTextsAreCutAtACharacter(t *testing.T) {
	t.Parallel()
	l := letterOf(dlq.FormatWherry)
	l.Stack = strings.Repeat("€", 4<<10)
	back := letterBack(t, l)
	require.LessOrEqual(t, len(back.Stack), 4<<10)
	require.Greater(t, len(back.Stack), 4<<10-8)
	require.Empty(t, strings.Trim(back.Stack, "€…"))
	require.True(t, strings.HasSuffix(back.Stack, "…"))
}

// FuzzLetterRoundTrip: Read gives back what Encode was given, byte for byte.
func FuzzLetterRoundTrip(f *testing.F) {
	seeds := []string{
		"", "null", "\x00", "plain", `"quoted"`, "42", "-0", "1e400", "12345678901234567890.10", "true", "{}", "[]", "[1, 2]", ` {"a":1}`, "{\"a\":1}\n",
		`{"a":1,"a":2}`, `{"b":"<&>\u2028` + "\u2028" + `","A":1.0}`, "{\"a\":\"\xff\"}", "\xef\xbb\xbf{}", "\xff\xfe", `{"type":"Buffer","data":[1,2]}`,
		`{"type":"Buffer","data":["x"]}`, `{"originalMessage":{},"error":{}}`, "[" + strings.Repeat("[", 9999) + strings.Repeat("]", 9999) + "]",
		strings.Repeat("[", 9997) + strings.Repeat("]", 9997), strings.Repeat(`{"a":`, 20) + "1" + strings.Repeat("}", 20), "{]", "[}", "1],[2", `{"a":1},"key":{}`,
	}
	for i, s := range seeds {
		f.Add([]byte(s), []byte(seeds[(i+1)%len(seeds)]), "h", []byte(s), "h", []byte("2"), "other", []byte(seeds[(i+3)%len(seeds)]), uint8(i))
	}
	f.Fuzz(func(t *testing.T, key, value []byte, h1 string, v1 []byte, h2 string, v2 []byte, h3 string, v3 []byte, nils uint8) {
		for _, name := range []string{h1, h2, h3} {
			if strings.HasPrefix(name, "wherry-dlq-") {
				t.Skip("our own headers are replaced")
			}
		}
		null := func(bit int, v []byte) []byte {
			if nils>>bit&1 == 1 {
				return nil
			}
			return append([]byte{}, v...)
		}
		headers := []kgo.RecordHeader{{Key: h1, Value: null(0, v1)}, {Key: h2, Value: null(1, v2)}, {Key: h3, Value: null(2, v3)}, {Key: h1, Value: v2}}
		for _, format := range letterFormats {
			l := letterOf(format)
			l.Key, l.Value, l.Headers = null(3, key), null(4, value), headers[:int(nils>>5)%5]
			back := letterBack(t, l)
			require.Equal(t, l.Key, back.Key)
			require.Equal(t, l.Value, back.Value)
			requireHeaders(t, l.Headers, back.Headers)
			require.Equal(t, format, back.Format)
		}
	})
}

// requireHeaders compares headers, where no headers are no headers.
func requireHeaders(t testing.TB, want, got []kgo.RecordHeader) {
	t.Helper()
	if len(want) > 0 || len(got) > 0 {
		require.Equal(t, want, got)
	}
}

func TestOriginalIsTheRecordThatFailed(t *testing.T) {
	t.Parallel()
	for _, format := range letterFormats {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			l := letterBack(t, letterOf(format))
			r := l.Original()
			require.Equal(t, &kgo.Record{
				Topic: "order.created", Key: []byte("o-1"), Value: []byte(`{"id":"o-1"}`),
				Headers: []kgo.RecordHeader{{Key: "tenant", Value: []byte("a")}},
			}, r)
			r.Headers[0].Key = "changed"
			require.Equal(t, "tenant", l.Headers[0].Key, "the letter is not changed through it")
		})
	}
}

func TestOriginalLeavesOutWhatWouldTellTheNextReaderSomethingWrong(t *testing.T) {
	t.Parallel()
	kept := []string{"__TypeId__", "kafka_correlationId", "exception-type", "failed-at.mine", "x-original-uri", "baggage", "wherry-only-group"}
	tests := []struct {
		name    string
		headers []string
		want    []string
	}{
		{"the application's stay, in order", kept, kept},
		{"the trace, a replicator's, Java's exceptions", []string{"a", "traceparent", "tracestate", "__replicator_id", "springDeserializerExceptionValue", "springDeserializerExceptionKey", "b"}, []string{"a", "b"}},
		{"stale ones of ours", []string{"a", "wherry-dlq-topic:order.created", "wherry-dlq-error", "b"}, []string{"a", "b"}},
		{"what only a replay left", []string{"wherry-dlq-replays:3", "a"}, []string{"a"}},
		{"stale ones of another framework", []string{"a", "kafka_dlt-original-topic:order.created", "kafka_dlt-exception-message", "b"}, []string{"a", "b"}},
		{
			"stale ones of several",
			[]string{"__connect.errors.topic:order.created", "a", "reason_poisoned", "topic_poisoned:order.created", "wherry-dlq-topic:order.created"},
			[]string{"a"},
		},
		{
			"a dead letter that failed in its turn keeps its own",
			[]string{"a", "wherry-dlq-topic:elsewhere", "wherry-dlq-error", "traceparent"},
			[]string{"a", "wherry-dlq-topic:elsewhere", "wherry-dlq-error"},
		},
		{"of another framework too", []string{"kafka_dlt-original-topic:elsewhere", "a"}, []string{"kafka_dlt-original-topic:elsewhere", "a"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := letterOf(dlq.FormatWherry)
			l.Headers = textHeaders(test.headers...)
			requireHeaders(t, textHeaders(test.want...), l.Original().Headers)
			require.Equal(t, textHeaders(test.headers...), l.Headers)
		})
	}
}

// textHeaders makes headers of "key:value" and "key".
func textHeaders(all ...string) (headers []kgo.RecordHeader) {
	for _, h := range all {
		key, value, _ := strings.Cut(h, ":")
		headers = append(headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
	}
	return headers
}
