package request

import (
	"errors"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// ErrNoToken is in the error of [Bearer.User] where a request has no token.
var ErrNoToken = errors.New("a bearer token is required")

// TokenError says that a request does not show whose it is.
type TokenError struct{ Err error }

func (e *TokenError) Error() string {
	if errors.Is(e.Err, ErrNoToken) {
		return e.Err.Error()
	}
	return "the bearer token is invalid or has expired"
}

// Unwrap returns what is wrong, which is not for clients.
func (e *TokenError) Unwrap() error { return e.Err }

// Bearer is the Authorization header of a request (RFC 6750). An operation's
// input embeds it, and the operation has [Secure] or [MaySecure].
type Bearer struct {
	// Given is the header; "" if there is none.
	Given string `json:"-"`
}

// Resolve takes the header. (As a declared parameter it would be in the
// document twice: OpenAPI has it in the security scheme.)
func (b *Bearer) Resolve(ctx huma.Context) []error {
	b.Given = ctx.Header("Authorization")
	return nil
}

// User returns whose token it is, by subject, which reads tokens. Its error is
// a [*TokenError].
func (b *Bearer) User(subject func(token string) (userID string, err error)) (string, error) {
	if b.Given == "" {
		return "", &TokenError{ErrNoToken}
	}
	scheme, token, _ := strings.Cut(b.Given, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", &TokenError{errors.New("another scheme than Bearer")}
	}
	user, err := subject(strings.TrimSpace(token))
	if err != nil {
		return "", &TokenError{err}
	}
	return user, nil
}

const bearer = "bearer"

// Secure is the security of an operation that needs a token.
func Secure(api huma.API) []map[string][]string {
	components := api.OpenAPI().Components
	if components.SecuritySchemes == nil {
		components.SecuritySchemes = map[string]*huma.SecurityScheme{}
	}
	components.SecuritySchemes[bearer] = &huma.SecurityScheme{Type: "http", Scheme: bearer, BearerFormat: "JWT"}
	return []map[string][]string{{bearer: {}}}
}

// MaySecure is the security of an operation that takes a token, and needs none.
func MaySecure(api huma.API) []map[string][]string {
	return append([]map[string][]string{{}}, Secure(api)...)
}
