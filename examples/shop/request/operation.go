package request

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"reflect"
	"slices"

	"github.com/danielgtaylor/huma/v2"
)

// Raw is the body of a request as it came, to be read by [Object]. huma would
// decode it into a struct, where missing, null and wrong properties look alike,
// and in any case of letters, and stop at its own words for what is wrong. An
// operation's input embeds it.
type Raw struct {
	RawBody []byte `contentType:"application/json"`
}

// Resolve refuses a body of another type. No type at all is taken for JSON.
func (*Raw) Resolve(ctx huma.Context) []error {
	given := ctx.Header("Content-Type")
	if kind, _, err := mime.ParseMediaType(given); given == "" || err == nil && kind == "application/json" {
		return nil
	}
	return []error{huma.Error415UnsupportedMediaType("the body must be application/json")}
}

// Register adds an operation whose input I embeds a [Raw]; the document says
// that it is a T. Who owns api bounds the body.
func Register[T, I, O any](api huma.API, op huma.Operation, handler func(context.Context, *I) (*O, error)) {
	op.RequestBody = &huma.RequestBody{}
	op.SkipValidateBody, op.SkipValidateParams = true, true
	op.Errors = append(op.Errors, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusServiceUnavailable)
	huma.Register(api, op, handler)
	if slices.Contains(op.Errors, http.StatusUnprocessableEntity) {
		// The document of such an operation has none: huma's own was taken out.
		unprocessable := *op.Responses["400"]
		unprocessable.Description = http.StatusText(http.StatusUnprocessableEntity)
		op.Responses["422"] = &unprocessable
	}
	// huma knows a raw body as a string of bytes only.
	t := reflect.TypeFor[T]()
	op.RequestBody.Content["application/json"].Schema = api.OpenAPI().Components.Schemas.Schema(t, true, t.Name())
}

// Status returns err as the answer to a client if it is one of this package;
// else nil.
func Status(err error) error {
	if invalid, ok := errors.AsType[*InvalidError](err); ok {
		details := make([]error, len(invalid.Messages))
		for i, m := range invalid.Messages {
			details[i] = errors.New(m)
		}
		return huma.Error400BadRequest("Bad Request", details...)
	}
	if malformed, ok := errors.AsType[*MalformedError](err); ok {
		return huma.Error400BadRequest(malformed.Error())
	}
	if unknown, ok := errors.AsType[*TokenError](err); ok {
		// RFC 6750, section 3: without a token there is no error to name.
		challenge := "Bearer"
		if !errors.Is(unknown, ErrNoToken) {
			challenge = `Bearer error="invalid_token"`
		}
		return huma.ErrorWithHeaders(huma.Error401Unauthorized(unknown.Error()), http.Header{"Www-Authenticate": {challenge}})
	}
	return nil
}
