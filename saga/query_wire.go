package saga

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/header"
	"github.com/wherry-go/wherry/reqreply"
)

// What clients ask the owner of a saga: requests in its inbox, under its id, so
// that they stand in its line. The owner answers through its transactions.

// replyTopic is where those who ask read the answers.
func replyTopic(name string) string { return name + ".saga.reply" }

// group is that of the owners.
func groupOf(name string) string { return name + ".saga" }

// question asks how a saga is, with wait for its end.
type question struct {
	ID   string `json:"id"`
	Wait bool   `json:"wait,omitempty"`
}

// told is the answer: the saga as its record in the state topic is, and the
// Outline of its Definition. No bytes tell to ask again.
type told struct{ record, outline []byte }

// demand is a verb.
type demand struct {
	ID     string   `json:"id"`
	Verb   VerbName `json:"verb"`
	Once   string   `json:"once"` // the same where it is sent twice
	Actor  string   `json:"actor"`
	Reason string   `json:"reason"`
	Step   string   `json:"step,omitempty"`
	State  []byte   `json:"state,omitempty"`
}

// verdict is the answer: why the verb was refused, or nothing.
type verdict struct {
	Refused string `json:"refused,omitempty"`
}

func questions(name string) reqreply.Method[question, told] {
	return toOwner[question, told](name, kindQuery, func(q question) string { return q.ID })
}

func demands(name string) reqreply.Method[demand, verdict] {
	return toOwner[demand, verdict](name, kindVerb, func(d demand) string { return d.ID })
}

func toOwner[Req, Resp any](name string, k kind, key func(Req) string) reqreply.Method[Req, Resp] {
	return reqreply.Method[Req, Resp]{
		Topic: inboxTopic(name), ReplyTopic: replyTopic(name), Group: groupOf(name), Codec: tellCodec{}, Key: key,
		Headers: func(context.Context, Req) []kgo.RecordHeader {
			return []kgo.RecordHeader{{Key: header.SagaKind, Value: []byte(k)}}
		},
	}
}

// tellCodec is JSON but for told, which is bytes.
type tellCodec struct{ wherry.JSON }

func (c tellCodec) Encode(r *kgo.Record, v any) error {
	t, ok := v.(told)
	if !ok {
		return c.JSON.Encode(r, v)
	}
	r.Value = append([]byte{}, t.record...)
	if len(t.outline) > 0 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: header.SagaOutline, Value: t.outline})
	}
	return nil
}

func (c tellCodec) Decode(r *kgo.Record, v any) error {
	t, ok := v.(*told)
	if !ok {
		return c.JSON.Decode(r, v)
	}
	t.record = bytes.Clone(r.Value)
	if text, ok := header.Get(r, header.SagaOutline); ok {
		t.outline = []byte(text)
	}
	return nil
}

// Codes of the answers that are errors.
const (
	codeNotFound = "not-found"
	codeEnded    = "ended"
)

// endedBody is the answer about a saga that has ended and is in the topic alone.
type endedBody struct {
	Status    string `json:"status"`
	Code      string `json:"code"`
	Message   string `json:"message"`
	Outcome   Phase  `json:"outcome"`
	At        int64  `json:"at"`
	Partition int32  `json:"partition"`
}

func endedAnswer(id string, ended *endedInfo, partition int32) *reqreply.Error {
	e := endedBody{
		Status: "error", Code: codeEnded, Message: fmt.Sprintf("saga %q has ended: %v", id, ended.phase),
		Outcome: ended.phase, At: ended.ended, Partition: partition,
	}
	body, err := json.Marshal(e)
	if err != nil {
		body = nil // it always marshals
	}
	return &reqreply.Error{Code: e.Code, Message: e.Message, Body: body}
}

// ErrNotFound says that there is no such saga: it was never started, it was
// purged, or it ended longer ago than the Engine's Retention.
var ErrNotFound = errors.New("there is no such saga")

// An AbortError is why a saga was undone.
type AbortError struct {
	Saga, ID string
	Step     string // whose rejection began it, "" where it was no step
	Err      error  // the reason that was given
}

func (e *AbortError) Error() string {
	if e.Step == "" {
		return fmt.Sprintf("saga %s: %q was undone: %v", e.Saga, e.ID, e.Err)
	}
	return fmt.Sprintf("saga %s: %q was undone, step %q was rejected: %v", e.Saga, e.ID, e.Step, e.Err)
}

// Unwrap returns the reason.
func (e *AbortError) Unwrap() error { return e.Err }

// An EndedError says that a saga has ended, and how, of which no more is known:
// its last record could not be read in the state topic.
type EndedError struct {
	Saga, ID string
	Outcome  Phase // Done or Undone
	At       time.Time
	Err      error // why no more is known
}

func (e *EndedError) Error() string {
	return fmt.Sprintf("saga %s: %q has ended at %s: %v; no more is known of it: %v", e.Saga, e.ID, e.At.UTC().Format(time.RFC3339), e.Outcome, e.Err)
}

// Unwrap returns why no more is known.
func (e *EndedError) Unwrap() error { return e.Err }
