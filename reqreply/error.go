package reqreply

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/wherry-go/wherry"
)

// Errors of a call that got no answer, besides those of its context.
var (
	// ErrNoResponder says that no live member of the Method's Group reads its
	// topic: nothing was sent. See [Method].Group.
	ErrNoResponder = errors.New("no responder: no live member of the group reads the topic")
	// ErrBusy says that the Caller has as many calls in hand as it may, see
	// [Caller].MaxPending: nothing was sent.
	ErrBusy = errors.New("too many calls are pending")
	// ErrEnded says that the Caller's Run has ended, or that it ended while
	// the call was waiting: the request may have been handled.
	ErrEnded = errors.New("the Caller has ended")
)

// whyOver returns why ctx has ended: its error, and with it the cause that it
// was given. That may be the error of another call, as in an errgroup: what it
// says of that request is no more than text here.
func whyOver(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	_, answer := errors.AsType[*Error](cause)
	switch {
	case answer, errors.Is(cause, ErrNoResponder), errors.Is(cause, ErrBusy), errors.Is(cause, ErrEnded):
		return fmt.Errorf("%w: %v", err, cause) //nolint:errorlint // see above
	case errors.Is(cause, err):
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// An Error is an error that is an answer: a handler returns one, and the caller
// gets it. It is permanent (see [wherry.ErrPermanent]), also where it was an
// answer to a handler that made a call: to have that tried again, return
// another error, without %w.
//
// On the wire it is {"status":"error","code":…,"message":…} in the header
// kafka_nest-err. Read, it is anything that NestJS 12 writes there: an
// RpcException of a text is {"status":"error","message":…}, one of an object
// is that object, and any other error has the message "Internal server error".
type Error struct {
	// Code is for programs. Those of this package are each a [wherry.Cause],
	// "too-large", "no-undo" or "undone"; "" where the answer has none.
	Code string
	// Message is for people. It is cut to 4 KiB.
	Message string
	// Body is what was in the header, as it came: for fields of others. Where a
	// handler sets it, up to 16 KiB, it is sent in place of Code and Message.
	Body []byte
	// Topic is the Method's; it is not on the wire.
	Topic string
}

// CodeTooLarge is the code of an answer that was too large to be sent.
const CodeTooLarge = "too-large"

func (e *Error) Error() string {
	parts := make([]string, 0, 3)
	for _, part := range []string{e.Topic, e.Code, e.Message} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		return "an error without a text"
	}
	return strings.Join(parts, ": ")
}

// Is reports that an Error is a [wherry.ErrPermanent].
func (e *Error) Is(target error) bool { return target == wherry.ErrPermanent }

// encode returns what is in the header.
func (e *Error) encode() []byte {
	if len(e.Body) > 0 && len(e.Body) <= maxErrorText {
		return e.Body
	}
	type wire struct {
		Status  string `json:"status"`
		Code    string `json:"code,omitempty"`
		Message string `json:"message"`
	}
	b, err := json.Marshal(wire{"error", clip(e.Code, 256), clip(e.Message, 4<<10)})
	if err != nil {
		return []byte(`{"status":"error","message":""}`) // strings always marshal
	}
	return b
}

// decodeError reads what is in the header, text or JSON.
func decodeError(b []byte) *Error {
	e := &Error{Body: bytes.Clone(b)}
	var fields map[string]json.RawMessage
	if trimmed := bytes.TrimSpace(b); len(trimmed) > 0 && trimmed[0] == '{' && json.Unmarshal(trimmed, &fields) == nil {
		e.Code, e.Message = asText(fields["code"]), asText(fields["message"])
		if e.Message == "" {
			e.Message = strings.ToValidUTF8(string(clipBytes(b)), "\uFFFD")
		}
		return e
	}
	e.Message = strings.ToValidUTF8(unquoted(clipBytes(b)), "\uFFFD")
	return e
}

// asText returns a JSON string's text, and other JSON as it is.
func asText(raw json.RawMessage) string {
	if len(raw) == 0 || string(raw) == "null" {
		return ""
	}
	return unquoted(clipBytes(raw))
}

func clipBytes(b []byte) []byte { return b[:min(len(b), maxErrorText)] }

// clip cuts s to at most n bytes, at a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// answerable returns the answer that a handler's error is: an Error, or one
// that nothing can mend. nil for any other.
func answerable(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if found, ok := errors.AsType[*wherry.RecordError](err); ok && found.Cause != wherry.CausePermanent {
		return nil
	}
	if _, refused := errors.AsType[*wherry.OutputError](err); refused {
		return nil // what else it publishes is no matter of the caller's
	}
	if errors.Is(err, wherry.ErrPermanent) {
		return &Error{Code: string(wherry.CausePermanent), Message: err.Error()}
	}
	return nil
}

// faultOf returns the answer to one who asked for what failed with err. Texts
// that were not written for the caller stay here.
func faultOf(err error) *Error {
	if e := answerable(err); e != nil {
		return e
	}
	cause := wherry.CauseFailed
	if found, ok := errors.AsType[*wherry.RecordError](err); ok {
		cause = found.Cause
	}
	e := &Error{Code: string(cause), Message: "the request could not be handled"}
	if cause == wherry.CauseUndecodable {
		e.Message = fmt.Sprintf("the request could not be read: %v", undecodable(err))
	}
	return e
}

// undecodable returns why, without the coordinates of the record.
func undecodable(err error) error {
	if found, ok := errors.AsType[*wherry.RecordError](err); ok {
		return found.Err
	}
	return err
}
