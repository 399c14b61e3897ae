package dlq

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/header"
)

// envelope reports whether the value is one: an object with originalMessage and
// what became of it.
func envelope(value []byte) bool {
	if len(value) == 0 || value[0] != '{' || !bytes.Contains(value, []byte(`"originalMessage"`)) {
		return false
	}
	var all map[string]json.RawMessage
	if json.Unmarshal(value, &all) != nil {
		return false
	}
	_, isError := all["error"]
	_, failedAt := all["failedAt"]
	return len(all["originalMessage"]) > 0 && (isError || failedAt)
}

// readEnvelope adds to l what the letter's value says. What headers said before
// counts more: they are finer.
func readEnvelope(in *reading, l *Letter) {
	l.Key, l.Value, l.Headers = nil, nil, nil
	var all, message, failure map[string]json.RawMessage
	if err := json.Unmarshal(l.Record.Value, &all); err != nil {
		in.fault("the envelope: %w", err)
		return
	}
	if err := json.Unmarshal(all["originalMessage"], &message); err != nil || message == nil {
		in.fault("originalMessage is no object")
	}
	if raw := all["error"]; raw != nil && json.Unmarshal(raw, &failure) != nil {
		failure = map[string]json.RawMessage{"message": raw} // thrown was no Error
	}
	bytesOf := func(name, encoding string) []byte {
		v, err := readValue(message[name], plain(message[encoding]))
		if err != nil {
			in.fault("%s: %w", name, err)
		}
		return v
	}
	l.Key, l.Value = bytesOf("key", "keyEncoding"), bytesOf("value", "encoding")
	var err error
	if raw, ok := message["headerList"]; ok {
		l.Headers, err = readHeaderList(raw)
	} else {
		l.Headers, err = readHeaders(message["headers"])
	}
	if err != nil {
		in.fault("headers: %w", err)
	}
	orText(&l.Topic, message["topic"])
	orText(&l.Error, failure["message"])
	orText(&l.ErrorType, failure["name"])
	orText(&l.Stack, failure["stack"])
	number := func(name string, raw json.RawMessage, bits int) int64 {
		if text := plain(raw); text != "" {
			return in.number(name, text, bits)
		}
		return -1
	}
	if l.Partition < 0 {
		l.Partition = int32(number("partition", message["partition"], 32))
	}
	if l.Offset < 0 {
		l.Offset = number("offset", message["offset"], 64)
	}
	if l.Timestamp.IsZero() {
		l.Timestamp = unixMilli(number("timestamp", message["timestamp"], 64))
	}
	if text := plain(all["failedAt"]); l.Failed.IsZero() && text != "" {
		l.Failed = in.parseInstant("failedAt", text)
	}
	if retries := number("retryCount", all["retryCount"], 32); retries >= 0 && in.value(header.DeadAttempts) == nil {
		l.Attempts = int(retries) + 1
		if retries > 0 && in.value(header.DeadCause) == nil {
			l.Cause = wherry.CauseExhausted
		}
	}
}

var errForm = errors.New("it is in no form that an envelope has")

// readValue reads what object.value wrote, and what JSON.stringify makes of
// what KafkaJS and NestJS have: null, a string, a parsed value, a Buffer.
func readValue(raw json.RawMessage, encoding string) ([]byte, error) {
	switch {
	case len(raw) == 0 || raw[0] == 'n':
		return nil, nil
	case raw[0] == '"':
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, err
		}
		switch encoding {
		case "":
			return append([]byte{}, text...), nil
		case "base64":
			return base64.StdEncoding.DecodeString(text)
		}
		return nil, fmt.Errorf("it is encoded as %.40q, which this version does not know", encoding)
	case bytes.HasPrefix(raw, []byte(`{"type":"Buffer","data":[`)):
		var buffer struct{ Data []byte }
		if json.Unmarshal(raw, &buffer) == nil {
			return buffer.Data, nil
		}
	}
	return slices.Clone(raw), nil
}

// readHeaders reads an object of headers in its order.
func readHeaders(raw json.RawMessage) (headers []kgo.RecordHeader, err error) {
	if v := plain(raw); v == "" || v == "null" {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errForm
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return headers, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return headers, err
		}
		each := []json.RawMessage{value}
		if value[0] == '[' {
			if err := json.Unmarshal(value, &each); err != nil {
				return headers, err
			}
		}
		for _, one := range each {
			v, err := readValue(one, "")
			if err != nil {
				return headers, err
			}
			headers = append(headers, kgo.RecordHeader{Key: key.(string), Value: v})
		}
	}
	return headers, nil
}

func readHeaderList(raw json.RawMessage) (headers []kgo.RecordHeader, err error) {
	var list []map[string]json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, err
	}
	for _, h := range list {
		key, keyErr := readValue(h["key"], plain(h["keyEncoding"]))
		value, valueErr := readValue(h["value"], plain(h["encoding"]))
		if err := errors.Join(keyErr, valueErr); err != nil {
			return headers, err
		}
		headers = append(headers, kgo.RecordHeader{Key: string(key), Value: value})
	}
	return headers, nil
}

// plain returns a string's text, and else the JSON.
func plain(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}

func orText(field *string, raw json.RawMessage) {
	if *field == "" {
		*field = plain(raw)
	}
}
