package request

import (
	"errors"
	"regexp"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// IdempotencyKey is the Idempotency-Key header of a request
// (draft-ietf-httpapi-idempotency-key-header): what the client says is the
// same request has the same key. An operation's input embeds it.
type IdempotencyKey struct {
	Header string `header:"Idempotency-Key" doc:"A string (RFC 9651), with or without its quotes: the same for each attempt to place one order" minLength:"1" maxLength:"255" example:"\"8e03978e-40d5-43e8-bc93-6894a57f9324\""`
	// Given has the header as often as it came.
	Given []string `json:"-"`
}

// Resolve takes the header: an empty one is not the same as none.
func (k *IdempotencyKey) Resolve(ctx huma.Context) []error {
	ctx.EachHeader(func(name, value string) {
		if strings.EqualFold(name, "Idempotency-Key") {
			k.Given = append(k.Given, value)
		}
	})
	return nil
}

// The draft wants a String of structured fields; most clients leave its quotes
// away, so what needs none in a URL may come without.
var (
	quoted = regexp.MustCompile(`^"((?:[ !#-\[\]-~]|\\["\\]){1,253})"$`)
	bare   = regexp.MustCompile(`^[0-9A-Za-z._~:/+=-]{1,253}$`)
)

// Key returns the key, without its quotes; "" if there is none. Its error is a
// [*MalformedError].
func (k *IdempotencyKey) Key() (string, error) {
	if len(k.Given) == 0 {
		return "", nil
	}
	given := strings.Trim(k.Given[0], " \t")
	if m := quoted.FindStringSubmatch(given); len(k.Given) == 1 && m != nil {
		return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(m[1]), nil
	}
	if len(k.Given) == 1 && bare.MatchString(given) {
		return given, nil
	}
	return "", &MalformedError{errors.New(`the Idempotency-Key header must be one string of 1 to 253 characters, such as "8e03978e-40d5-43e8-bc93-6894a57f9324"`)}
}
