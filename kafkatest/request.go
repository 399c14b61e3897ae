package kafkatest

import (
	"encoding/binary"
	"errors"
	"reflect"
	"slices"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// request is a request on its way.
type request struct {
	key     kmsg.Key
	version int16
	corr    int32  // tells its answer among those of the connection
	client  string // the client's id
	body    []byte
	parsed  kmsg.Request // the body, once asked for; nil when it cannot be read

	after  *Fault // what happens when its answer comes
	answer []byte // a whole answer that the broker is not asked for
}

var errNotARequest = errors.New("not a request of Kafka's protocol")

// readRequest reads the head of a request, without its leading size.
func readRequest(frame []byte) (*request, error) {
	if len(frame) < 10 {
		return nil, errNotARequest
	}
	r := &request{
		key:     kmsg.Key(binary.BigEndian.Uint16(frame)),
		version: int16(binary.BigEndian.Uint16(frame[2:])),
		corr:    int32(binary.BigEndian.Uint32(frame[4:])),
	}
	kind := kmsg.RequestForKey(int16(r.key))
	if kind == nil || r.version < 0 || r.version > kind.MaxVersion() {
		return nil, errNotARequest
	}
	kind.SetVersion(r.version)
	b := kbin.Reader{Src: frame[8:]}
	if id := b.NullableString(); id != nil {
		r.client = *id
	}
	if kind.IsFlexible() {
		kmsg.SkipTags(&b)
	}
	if !b.Ok() {
		return nil, errNotARequest
	}
	r.body = b.Src
	return r, nil
}

// parse returns the whole request, or nil.
func (r *request) parse() kmsg.Request {
	if r.parsed == nil {
		req := kmsg.RequestForKey(int16(r.key))
		req.SetVersion(r.version)
		if req.ReadFrom(r.body) != nil {
			return nil
		}
		r.parsed = req
	}
	return r.parsed
}

// silent tells whether the broker does not answer: records without acks.
func (r *request) silent() bool {
	if r.key != kmsg.Produce {
		return false
	}
	b := kbin.Reader{Src: r.body}
	switch {
	case r.version >= 9:
		b.CompactNullableString() // the transactional id
	case r.version >= 3:
		b.NullableString()
	}
	return b.Int16() == 0
}

// names tells whether the request has a field of one of the given names, at any
// depth, whose text is the wanted one. Topics that it names by id are looked up.
func (r *request) names(want string, topics map[[16]byte]string, fields ...string) bool {
	req := r.parse()
	return req != nil && names(reflect.ValueOf(req).Elem(), want, topics, fields)
}

func names(v reflect.Value, want string, topics map[[16]byte]string, fields []string) bool {
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Name
		if !v.Type().Field(i).IsExported() {
			continue
		}
		if slices.Contains(fields, name) && is(f, want, topics) {
			return true
		}
		if f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Struct {
			for j := range f.Len() {
				if names(f.Index(j), want, topics, fields) {
					return true
				}
			}
		}
	}
	return false
}

// is tells whether a field holds, or has among its elements, the wanted text.
func is(f reflect.Value, want string, topics map[[16]byte]string) bool {
	switch v := f.Interface().(type) {
	case string:
		return v == want
	case *string:
		return v != nil && *v == want
	case []string:
		return slices.Contains(v, want)
	case [16]byte:
		return topics[v] == want
	}
	return false
}

// topicNames reads the ids and names of topics from an answer to a metadata
// request, without its size and correlation id.
func topicNames(version int16, body []byte) map[[16]byte]string {
	resp := kmsg.NewPtrMetadataResponse()
	resp.SetVersion(version)
	if resp.IsFlexible() {
		b := kbin.Reader{Src: body}
		kmsg.SkipTags(&b)
		body = b.Src
	}
	if resp.ReadFrom(body) != nil {
		return nil
	}
	names := make(map[[16]byte]string, len(resp.Topics))
	for _, t := range resp.Topics {
		if t.Topic != nil && t.TopicID != ([16]byte{}) {
			names[t.TopicID] = *t.Topic
		}
	}
	return names
}
