package auth

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/examples/shop/request"
)

// NewUser is the body of POST /auth/register. Its tags are for the OpenAPI
// document; parseNewUser has the rules.
type NewUser struct {
	Email    string `json:"email" format:"email" maxLength:"254" example:"jo@example.com"`
	Password string `json:"password" minLength:"8" maxLength:"128" example:"correct horse battery"`
	Name     string `json:"name" minLength:"1" maxLength:"100" example:"Jo"`
}

// String is for logs and errors, where a password has no business.
func (n NewUser) String() string { return n.Email }

func parseNewUser(body []byte) (n NewUser, err error) {
	err = request.Object(body,
		request.Property{Name: "email", Text: &n.Email, Rules: []request.Rule{request.IsEmail}},
		request.Property{Name: "password", Text: &n.Password, Rules: []request.Rule{
			request.MaxLength(128), request.MinLength(8), request.IsString,
		}},
		request.Property{Name: "name", Text: &n.Name, Rules: []request.Rule{
			request.NotEmpty, request.MaxLength(100), request.IsString,
		}},
	)
	return n, err
}

// Credentials are the body of POST /auth/login.
type Credentials struct {
	Email    string `json:"email" minLength:"1" maxLength:"254" example:"jo@example.com"`
	Password string `json:"password" minLength:"1" maxLength:"128" example:"correct horse battery"`
}

// String is for logs and errors, where a password has no business.
func (c Credentials) String() string { return c.Email }

func parseCredentials(body []byte) (c Credentials, err error) {
	err = request.Object(body,
		request.Property{Name: "email", Text: &c.Email, Rules: []request.Rule{request.NotEmpty, request.MaxLength(254), request.IsString}},
		request.Property{Name: "password", Text: &c.Password, Rules: []request.Rule{request.NotEmpty, request.MaxLength(128), request.IsString}},
	)
	return c, err
}

// Token is what a login is answered with, in the words of RFC 6749 (5.1).
type Token struct {
	AccessToken string `json:"accessToken"`
	TokenType   string `json:"tokenType" enum:"Bearer"`
	ExpiresIn   int    `json:"expiresIn" doc:"seconds" example:"3600"`
}

// Routes adds the HTTP interface of the service to api.
func (s *Service) Routes(api huma.API) {
	request.Register[NewUser](api, huma.Operation{
		OperationID:   "register",
		Method:        http.MethodPost,
		Path:          "/auth/register",
		Summary:       "Become a user",
		DefaultStatus: http.StatusCreated,
		Responses:     map[string]*huma.Response{"201": {Description: "User registered successfully"}},
		Errors:        []int{http.StatusConflict},
	}, s.register)

	request.Register[Credentials](api, huma.Operation{
		OperationID: "login",
		Method:      http.MethodPost,
		Path:        "/auth/login",
		Summary:     "Get a token, to be sent as Authorization: Bearer",
		Responses:   map[string]*huma.Response{"200": {Description: "Logged in successfully"}},
		Errors:      []int{http.StatusUnauthorized},
	}, s.login)

	huma.Register(api, huma.Operation{
		OperationID: "get-me",
		Method:      http.MethodGet,
		Path:        "/auth/me",
		Summary:     "The user whose token it is",
		Security:    request.Secure(api),
		Responses:   map[string]*huma.Response{"200": {Description: "User retrieved successfully"}},
		Errors:      []int{http.StatusUnauthorized, http.StatusServiceUnavailable},
	}, s.me)
}

type bodyInput struct{ request.Raw }

// userOutput is a user. Nothing else that auth knows of one leaves it.
type userOutput struct{ Body events.User }

func (s *Service) register(ctx context.Context, in *bodyInput) (*userOutput, error) {
	n, err := parseNewUser(in.RawBody)
	if err != nil {
		return nil, s.status(ctx, err)
	}
	user, err := s.Register(ctx, n)
	if err != nil {
		return nil, s.status(ctx, err)
	}
	return &userOutput{user}, nil
}

type loginOutput struct{ Body Token }

func (s *Service) login(ctx context.Context, in *bodyInput) (*loginOutput, error) {
	c, err := parseCredentials(in.RawBody)
	if err != nil {
		return nil, s.status(ctx, err)
	}
	token, err := s.Login(ctx, c)
	if err != nil {
		return nil, s.status(ctx, err)
	}
	return &loginOutput{Token{token, "Bearer", int(TokenLife.Seconds())}}, nil
}

type meInput struct{ request.Bearer }

func (s *Service) me(ctx context.Context, in *meInput) (*userOutput, error) {
	id, err := in.User(s.Tokens.Subject)
	if err != nil {
		return nil, s.status(ctx, err)
	}
	if !s.isReady() {
		return nil, s.status(ctx, ErrNotReady)
	}
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	user, err := s.Find(ctx, id)
	if err != nil {
		return nil, s.status(ctx, &UnansweredError{err})
	}
	if user == nil { // somebody else signs with our key
		return nil, s.status(ctx, &request.TokenError{Err: errors.New("nobody has its subject")})
	}
	return &userOutput{*user}, nil
}

// status returns err as the answer to a client. What it does not know is
// returned as it is, for a 500 that tells nothing of it.
func (s *Service) status(ctx context.Context, err error) error {
	if answer := request.Status(err); answer != nil {
		return answer
	}
	if taken, ok := errors.AsType[*TakenError](err); ok {
		return huma.Error409Conflict(taken.Error())
	}
	if wrong, ok := errors.AsType[*CredentialsError](err); ok {
		return huma.Error401Unauthorized(wrong.Error())
	}
	if errors.Is(err, ErrNotReady) {
		return huma.Error503ServiceUnavailable("The auth service is not ready yet")
	}
	if busy, ok := errors.AsType[*BusyError](err); ok {
		s.Logger.WarnContext(ctx, "auth: too many passwords to hash", "error", busy.Err)
		return huma.Error503ServiceUnavailable("Too many registrations and logins at once: try again later")
	}
	if unconfirmed, ok := errors.AsType[*UnconfirmedError](err); ok {
		s.Logger.WarnContext(ctx, "auth: registration not confirmed", "error", unconfirmed.Err)
		return huma.Error503ServiceUnavailable("The registration could not be confirmed: try to log in before you register again")
	}
	if unanswered, ok := errors.AsType[*UnansweredError](err); ok {
		s.Logger.WarnContext(ctx, "auth: users not looked up", "error", unanswered.Err)
		return huma.Error503ServiceUnavailable("Users cannot be looked up now: try again later")
	}
	return err
}
