package wherry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// versioned is a codec that keeps a version in a header and knows one topic.
type versioned struct{}

func (versioned) Encode(r *kgo.Record, v any) error {
	if r.Topic != "orders" {
		return errors.New("no schema for topic " + r.Topic)
	}
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: "version", Value: []byte(strconv.Itoa(2))})
	return wherry.JSON{}.Encode(r, map[string]any{"of": string(r.Key), "v": v})
}

func (versioned) Decode(r *kgo.Record, v any) error {
	if !wherry.HasHeader("version", "2")(r) {
		return errors.New("version 2 is wanted")
	}
	var envelope struct{ V json.RawMessage }
	if err := json.Unmarshal(r.Value, &envelope); err != nil {
		return err
	}
	return json.Unmarshal(envelope.V, v)
}

func TestCodecSeesTopicKeyAndHeadersAndSetsHeaders(t *testing.T) {
	t.Parallel()
	e := wherry.Event[order]{Topic: "orders", Codec: versioned{}}
	r, err := e.Record("k", order{ID: "o-1"})
	require.NoError(t, err)
	require.JSONEq(t, `{"of":"k","v":{"id":"o-1","total":0}}`, string(r.Value))
	require.Equal(t, []kgo.RecordHeader{{Key: "version", Value: []byte("2")}}, r.Headers)
	got, err := e.Decode(r)
	require.NoError(t, err)
	require.Equal(t, order{ID: "o-1"}, got)

	_, err = e.Decode(strange(r.Value))
	requireUndecodable(t, err)
	require.ErrorContains(t, err, "version 2 is wanted")

	_, err = wherry.Event[order]{Topic: "payments", Codec: versioned{}}.Record("k", order{})
	require.ErrorContains(t, err, "event payments: encoding wherry_test.order: no schema for topic payments")
}

// text writes strings as they are, and so nothing at all for an empty one.
type text struct{ nulls *int }

func (text) Encode(r *kgo.Record, v any) error {
	var b bytes.Buffer
	b.WriteString(*v.(*string))
	r.Value = b.Bytes() // nil if nothing was written
	return nil
}

func (c text) Decode(r *kgo.Record, v any) error {
	if r.Value == nil {
		*c.nulls++
	}
	s := string(r.Value)
	*v.(**string) = &s
	return nil
}

// An encoding of no bytes must not become a tombstone, which would delete the
// key of a compacted topic, on the way through a broker either.
func TestCodecMayEncodeToNoBytes(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "texts:1")
	var nulls int
	e := wherry.Event[*string]{Topic: "texts", Codec: text{&nulls}}
	empty := ""
	kafkatest.Send(t, k, e, "k", &empty)
	got := kafkatest.Next(t, k, e)
	require.NotNil(t, got)
	require.Empty(t, *got)

	kafkatest.Send(t, k, e, "k", nil)
	require.Nil(t, kafkatest.Next(t, k, e))
	require.Zero(t, nulls, "a null value never reaches a Codec")
}
