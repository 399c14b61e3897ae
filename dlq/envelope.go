package dlq

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The envelope is read by JavaScript, and has to give back the exact bytes. So
// each value is written in the first of these forms that reads back as it was:
//
//   - what looks like an object or array, as NestJS takes it for JSON, as it is:
//     with its whitespace, its big numbers and its duplicate keys;
//   - UTF-8 as a string;
//   - anything else as a string of base64, with "encoding":"base64" beside it.
//
// null is null, as opposed to "".
func (l *Letter) envelope() []byte {
	var b object
	b.open()
	b.name("originalMessage").open()
	b.name("topic").text(clip(l.Topic, maxTopic))
	if l.Partition >= 0 {
		b.name("partition").raw(strconv.Itoa(int(l.Partition)))
	}
	if l.Offset >= 0 {
		b.name("offset").text(strconv.FormatInt(l.Offset, 10))
	}
	if !l.Timestamp.IsZero() {
		b.name("timestamp").text(strconv.FormatInt(l.Timestamp.UnixMilli(), 10))
	}
	b.value("key", "keyEncoding", l.Key)
	b.value("value", "encoding", l.Value)
	b.headers(l.Headers)
	b.shut()
	b.name("error").open()
	b.name("message").text(clip(l.Error, maxError))
	if l.Stack != "" {
		b.name("stack").text(clip(l.Stack, maxStack))
	}
	b.name("name").text(clip(l.ErrorType, maxErrorType))
	b.shut()
	if !l.Failed.IsZero() {
		b.name("failedAt").text(l.Failed.UTC().Format("2006-01-02T15:04:05.000Z"))
	}
	b.name("retryCount").raw(strconv.Itoa(max(l.Attempts-1, 0)))
	b.shut()
	return b.Bytes()
}

// object writes JSON by hand: encoding/json would compact what is JSON already,
// and change <, > and & in it.
type object struct {
	bytes.Buffer
	more bool // a comma is due
}

func (o *object) open() { o.WriteByte('{'); o.more = false }
func (o *object) shut() { o.WriteByte('}'); o.more = true }

func (o *object) name(name string) *object {
	if o.more {
		o.WriteByte(',')
	}
	o.quote(name)
	o.WriteByte(':')
	o.more = true
	return o
}

func (o *object) raw(v string)  { o.WriteString(v) }
func (o *object) text(v string) { o.quote(v) }

// quote writes text as a JSON string. What is no UTF-8 in it is lost.
func (o *object) quote(text string) {
	enc := json.NewEncoder(o)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(text) // a string can be encoded, and a Buffer written
	o.Truncate(o.Len() - 1)
}

func (o *object) value(name, encoding string, v []byte) {
	switch {
	case v == nil:
		o.name(name).raw("null")
	case exactJSON(v):
		o.name(name).raw(string(v))
	case utf8.Valid(v):
		o.name(name).text(string(v))
	default:
		o.name(name).text(base64.StdEncoding.EncodeToString(v))
		o.name(encoding).text("base64")
	}
}

// headers writes headers as KafkaJS has them, an object in which a repeated
// header is an array, for those who read it. Where that is not all, headerList
// has them again, exactly.
func (o *object) headers(headers []kgo.RecordHeader) {
	var names []string
	values := map[string][]string{}
	for _, h := range headers {
		var v object
		if h.Value == nil {
			v.raw("null")
		} else {
			v.text(string(h.Value))
		}
		if _, ok := values[h.Key]; !ok {
			names = append(names, h.Key)
		}
		values[h.Key] = append(values[h.Key], v.String())
	}
	var view object
	view.open()
	for _, name := range names {
		if v := values[name]; len(v) == 1 {
			view.name(name).raw(v[0])
		} else {
			view.name(name).raw("[" + strings.Join(v, ",") + "]")
		}
	}
	view.shut()
	o.name("headers").raw(view.String())
	if back, err := readHeaders(view.Bytes()); err == nil && slices.EqualFunc(back, headers, sameHeader) {
		return
	}
	o.name("headerList").raw("[")
	for i, h := range headers {
		if i > 0 {
			o.WriteByte(',')
		}
		o.open()
		o.value("key", "keyEncoding", []byte(h.Key))
		o.value("value", "encoding", h.Value)
		o.shut()
	}
	o.raw("]")
}

func sameHeader(a, b kgo.RecordHeader) bool { return a.Key == b.Key && same(a.Value, b.Value) }

// same tells nil from empty.
func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

// exactJSON reports whether v can stand in the envelope as it is: a reader takes
// it out again without the whitespace around it, and takes some for bytes.
func exactJSON(v []byte) bool {
	if len(v) < 2 || v[0] != '{' && v[0] != '[' || v[len(v)-1] != '}' && v[len(v)-1] != ']' {
		return false
	}
	// A reader gives up on what is nested too deeply, and v will be deeper.
	deeper := slices.Concat([]byte(`[[[[`), v, []byte(`]]]]`))
	if !utf8.Valid(v) || !json.Valid(v) || !json.Valid(deeper) {
		return false
	}
	back, err := readValue(v, "")
	return err == nil && same(back, v)
}
