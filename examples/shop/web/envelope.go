package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

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

// internal is all that clients hear of a fault of ours.
const internal = "Internal server error"

// jsonType is the Content-Type of all answers.
const jsonType = "application/json; charset=utf-8"

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
	if code == http.StatusInternalServerError {
		s.Logger.Error("http: a request failed", "method", ctx.Method(), "path", ctx.URL().Path, "error", causes(e))
	}
	u := ctx.URL()
	return newFailure(code, message(code, e), u.RequestURI()), nil
}

// message is what a client hears of an error. huma's own errors, such as that
// of a body that is too large, have details for people who know the code.
func message(code int, err error) any {
	model, ok := errors.AsType[*huma.ErrorModel](err)
	switch {
	case code == http.StatusInternalServerError:
		return internal
	case code == http.StatusRequestEntityTooLarge:
		return "request entity too large"
	case !ok:
		return err.Error()
	case len(model.Errors) == 0:
		return model.Detail
	case code != http.StatusBadRequest:
		return model.Errors[0].Message
	}
	messages := make([]string, len(model.Errors))
	for i, d := range model.Errors {
		messages[i] = d.Message
	}
	return messages
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

func newFailure(code int, message any, path string) failure {
	return failure{StatusCode: code, Message: message, Timestamp: events.Now(), Path: path}
}

// writeError answers outside of huma.
func writeError(w http.ResponseWriter, r *http.Request, code int, message string) {
	w.Header().Set("Content-Type", jsonType)
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(newFailure(code, message, r.URL.RequestURI())) // a client that is gone
}
