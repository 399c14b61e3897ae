package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/wherry-go/wherry/examples/shop/events"
)

// success is what every answer of status 2xx looks like.
type success struct {
	Success   bool        `json:"success"` // true
	Message   string      `json:"message"` // the description of the response in the OpenAPI document
	Timestamp events.Time `json:"timestamp"`
	Data      any         `json:"data"`
}

// failure is what every other answer looks like.
type failure struct {
	Success    bool        `json:"success"` // false
	StatusCode int         `json:"statusCode"`
	Message    any         `json:"message"` // a string; all that is wrong with a body is an array of them
	Timestamp  events.Time `json:"timestamp"`
	Path       string      `json:"path"`
	Data       any         `json:"data"` // null
}

// problem is what every other answer looks like to a client that asks for
// application/problem+json: problem details (RFC 9457).
type problem struct {
	Type     string         `json:"type"`
	Title    string         `json:"title"`
	Status   int            `json:"status"`
	Detail   string         `json:"detail"`
	Instance string         `json:"instance"`
	Errors   []problemError `json:"errors,omitempty"`
	// Violated are the rate limits that refused, of the type quota-exceeded.
	Violated []string `json:"violated-policies,omitempty"`
}

// problemError is one of the things that are wrong with a body, as in the
// example of RFC 9457, section 3.
type problemError struct {
	Detail string `json:"detail"`
}

// quotaExceeded is the type of problem that draft-ietf-httpapi-ratelimit-headers
// registers. All others say no more than their status, and are about:blank.
const quotaExceeded = "https://iana.org/assignments/http-problem-types#quota-exceeded"

// jsonType is the Content-Type of all answers but problems, and problemType
// theirs: it has no parameters.
const (
	jsonType    = "application/json; charset=utf-8"
	problemType = "application/problem+json"
)

// internal is all that clients hear of a fault of ours.
const internal = "Internal server error"

// fault is a request that failed, in whatever form its client wants to hear of it.
type fault struct {
	status  int
	message string
	// messages are all that is wrong with a body, instead of message.
	messages []string
	// violated are the rate limits that refused the request.
	violated []string
}

// body is the answer, and its Content-Type.
func (f fault) body(r *http.Request) (body any, contentType string) {
	path := r.URL.RequestURI()
	if !prefersProblem(r.Header.Values("Accept")) {
		var message any = f.message
		if f.messages != nil {
			message = f.messages
		}
		return failure{StatusCode: f.status, Message: message, Timestamp: events.Now(), Path: path}, jsonType
	}
	p := problem{Type: "about:blank", Title: http.StatusText(f.status), Status: f.status, Detail: f.message, Instance: path, Violated: f.violated}
	if f.messages != nil {
		p.Detail = strings.Join(f.messages, ", ")
	}
	for _, m := range f.messages {
		p.Errors = append(p.Errors, problemError{m})
	}
	if f.violated != nil {
		p.Type, p.Title = quotaExceeded, "Quota exceeded"
	}
	return p, problemType
}

// write answers outside of huma.
func (f fault) write(w http.ResponseWriter, r *http.Request) {
	body, contentType := f.body(r)
	w.Header().Set("Content-Type", contentType)
	w.Header().Add("Vary", "Accept")
	w.WriteHeader(f.status)
	_ = json.NewEncoder(w).Encode(body) // a client that is gone
}

// envelope puts answers into their envelope. It is a transformer of one API.
// The other way to have errors of our own, to replace huma.NewError, would
// change every API of the process.
func (s *Server) envelope(ctx huma.Context, status string, v any) (any, error) {
	ctx.SetHeader("Content-Type", jsonType) // huma has set that of its own errors
	e, ok := v.(error)
	if !ok {
		return success{true, ctx.Operation().Responses[status].Description, events.Now(), v}, nil
	}
	code, err := strconv.Atoi(status)
	if err != nil {
		return nil, err
	}
	r, _ := humago.Unwrap(ctx)
	if code == http.StatusInternalServerError {
		s.Logger.ErrorContext(ctx.Context(), "http: a request failed", "method", r.Method, "path", r.URL.Path, "error", causes(e))
	}
	body, contentType := newFault(code, e).body(r)
	ctx.SetHeader("Content-Type", contentType)
	ctx.AppendHeader("Vary", "Accept")
	return body, nil
}

// newFault is what a client hears of an error of an operation.
func newFault(code int, err error) fault {
	f := fault{status: code, message: err.Error()}
	model, ok := errors.AsType[*huma.ErrorModel](err)
	switch {
	case code == http.StatusInternalServerError:
		f.message = internal
	case !ok || len(model.Errors) == 0:
	case code != http.StatusBadRequest && len(model.Errors) == 1:
		f.message = model.Errors[0].Message
	default:
		for _, d := range model.Errors {
			f.messages = append(f.messages, d.Message)
		}
	}
	return f
}

// causes is err with what huma keeps in the details of an unexpected error.
func causes(err error) error {
	if model, ok := errors.AsType[*huma.ErrorModel](err); ok {
		for _, d := range model.Errors {
			err = errors.Join(err, d)
		}
	}
	return err
}
