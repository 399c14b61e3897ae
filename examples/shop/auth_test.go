package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/examples/shop/auth"
	"github.com/wherry-go/wherry/examples/shop/events"
)

const (
	jo    = `{"email":"jo@example.com","password":"staple of mine","name":"Jo"}`
	login = `{"email":"jo@example.com","password":"staple of mine"}`
)

var tokenKey = strings.Repeat("k", auth.MinKey)

// startWithKey runs a shop that signs with tokenKey.
func startWithKey(t *testing.T, args ...string) *process {
	t.Helper()
	cfg, err := parse(append([]string{"-http", "127.0.0.1:0", "-data", "", "-limits", "off"}, args...), func(name string) string {
		return map[string]string{tokenKeyName: tokenKey}[name]
	})
	require.NoError(t, err)
	return startConfig(t, cfg)
}

// send sends a JSON body with headers, given as name, value, …
func (a api) send(method, path, body string, headers ...string) answer {
	a.t.Helper()
	req, err := http.NewRequest(method, a.url+path, strings.NewReader(body))
	require.NoError(a.t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(a.t, err)
	defer resp.Body.Close()
	out := answer{Status: resp.StatusCode, Header: resp.Header}
	require.NoError(a.t, json.NewDecoder(resp.Body).Decode(&out))
	return out
}

// register registers jo and returns the user and a token.
func (a api) register() (user events.User, token string) {
	a.t.Helper()
	out := a.send(http.MethodPost, "/auth/register", jo)
	require.Equal(a.t, http.StatusCreated, out.Status, "%v", out.Message)
	require.NoError(a.t, json.Unmarshal(out.Data, &user))
	return user, a.token()
}

func (a api) token() string {
	a.t.Helper()
	out := a.send(http.MethodPost, "/auth/login", login)
	require.Equal(a.t, http.StatusOK, out.Status, "%v", out.Message)
	var t auth.Token
	require.NoError(a.t, json.Unmarshal(out.Data, &t))
	return t.AccessToken
}

func orderOf(user string) string {
	return `{"totalAmount":"99.99","status":"pending","userId":"` + user + `"}`
}

func TestUserRegistersLogsInAndPlacesAnOrder(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.ready()
	out := p.send(http.MethodPost, "/auth/register", jo)
	require.Equal(t, http.StatusCreated, out.Status)
	require.Equal(t, "User registered successfully", out.Message)
	var user map[string]string
	require.NoError(t, json.Unmarshal(out.Data, &user))
	require.NoError(t, uuid.Validate(user["id"]))
	require.Equal(t, map[string]string{"id": user["id"], "name": "Jo", "email": "jo@example.com"}, user)

	out = p.send(http.MethodPost, "/auth/login", login)
	require.Equal(t, http.StatusOK, out.Status)
	require.Equal(t, "Logged in successfully", out.Message)
	var token auth.Token
	require.NoError(t, json.Unmarshal(out.Data, &token))
	require.Equal(t, "Bearer", token.TokenType)
	require.Equal(t, 3600, token.ExpiresIn)

	out = p.send(http.MethodGet, "/auth/me", "", "Authorization", "Bearer "+token.AccessToken)
	require.Equal(t, http.StatusOK, out.Status)
	require.Equal(t, "User retrieved successfully", out.Message)
	b, err := json.Marshal(user)
	require.NoError(t, err)
	require.JSONEq(t, string(b), string(out.Data))

	out = p.send(http.MethodPost, "/orders", orderOf(user["id"]), "Authorization", "Bearer "+token.AccessToken)
	require.Equal(t, http.StatusCreated, out.Status, "%v", out.Message)
	out = p.send(http.MethodPost, "/orders", orderOf(user["id"]))
	require.Equal(t, http.StatusCreated, out.Status, "none is needed")
	require.NotContains(t, p.logs.String(), "staple of mine")
	require.NotContains(t, p.logs.String(), token.AccessToken)
	require.NotContains(t, p.logs.String(), "argon2")
}

func TestRegistrationAndLoginThatAreRefused(t *testing.T) {
	t.Parallel()
	p := start(t, "-services", "auth")
	p.ready()
	p.register()
	for _, test := range []struct {
		path, body string
		status     int
		message    any
	}{
		{"/auth/register", `{}`, 400, []any{
			"email must be an email",
			"password must be longer than or equal to 8 characters", "password must be a string",
			"name should not be empty", "name must be a string",
		}},
		{"/auth/register", `{"email":"jo","password":"short","name":"","admin":true}`, 400, []any{
			"property admin should not exist", "email must be an email", "password must be longer than or equal to 8 characters", "name should not be empty",
		}},
		{"/auth/register", `{"email":"a@example.com","password":"` + strings.Repeat("x", 129) + `","name":"A"}`, 400, []any{"password must be shorter than or equal to 128 characters"}},
		{"/auth/register", `[`, 400, "malformed JSON: unexpected end of JSON input"},
		{"/auth/register", jo, 409, "User with email jo@example.com already exists"},
		{"/auth/register", strings.ToUpper(jo[:24]) + jo[24:], 400, []any{"property EMAIL should not exist", "email must be an email"}},
		{"/auth/register", `{"email":"JO@Example.com","password":"staple of mine","name":"Jo"}`, 409, "User with email jo@example.com already exists"},
		{"/auth/register", `{"email":"ada@example.com","password":"staple of mine","name":"Ada"}`, 409, "User with email ada@example.com already exists"},
		{"/auth/login", `{}`, 400, []any{"email should not be empty", "email must be a string", "password should not be empty", "password must be a string"}},
		{"/auth/login", `{"email":"jo@example.com","password":"wrong"}`, 401, "Invalid credentials"},
		{"/auth/login", `{"email":"nobody@example.com","password":"staple of mine"}`, 401, "Invalid credentials"},
		{"/auth/login", `{"email":"ada@example.com","password":"staple of mine"}`, 401, "Invalid credentials"},
		{"/auth/login", `{"x":"` + strings.Repeat("y", 102_400) + `"}`, 413, "request entity too large"},
	} {
		out := p.send(http.MethodPost, test.path, test.body)
		require.Equal(t, test.status, out.Status, "%.100s: %v", test.body, out.Message)
		require.Equal(t, test.message, out.Message)
		require.Equal(t, "null", string(out.Data))
	}
	out, err := p.do(http.MethodPost, "/auth/login", "text/plain", login)
	require.NoError(t, err)
	require.Equal(t, http.StatusUnsupportedMediaType, out.Status)
}

func TestTokenThatIsRefused(t *testing.T) {
	t.Parallel()
	p := startWithKey(t, "-services", "orders,auth")
	p.ready()
	user, token := p.register()
	expired, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.RegisteredClaims{
		Issuer: "shop", Subject: user.ID, ExpiresAt: jwt.NewNumericDate(time.Now().Add(-time.Second)),
	}).SignedString([]byte(tokenKey))
	require.NoError(t, err)
	ofNobody, err := auth.Tokens{Key: []byte(tokenKey)}.Sign("nobody")
	require.NoError(t, err)
	const invalid, challenge = "the bearer token is invalid or has expired", `Bearer error="invalid_token"`
	for _, test := range []struct {
		method, path, body, given string
		status                    int
		message                   any
		challenge                 string
	}{
		{"GET", "/auth/me", "", "", 401, "a bearer token is required", "Bearer"},
		{"GET", "/auth/me", "", "Bearer " + expired, 401, invalid, challenge},
		{"GET", "/auth/me", "", "Bearer " + token + "x", 401, invalid, challenge},
		{"GET", "/auth/me", "", "Bearer " + ofNobody, 401, invalid, challenge},
		{"GET", "/auth/me", "", "Basic am86Y29ycmVjdA==", 401, invalid, challenge},
		{"POST", "/orders", orderOf(user.ID), "Bearer " + expired, 401, invalid, challenge},
		{"POST", "/orders", orderOf(user.ID), "Bearer", 401, invalid, challenge},
		{"POST", "/orders", `{}`, "Bearer x", 401, invalid, challenge},
		{"POST", "/orders", orderOf("user1"), "Bearer " + token, 403, "The token is not that of user user1", ""},
		{"POST", "/orders", orderOf("nobody"), "Bearer " + ofNobody, 404, "User with ID nobody not found", ""},
	} {
		var headers []string
		if test.given != "" {
			headers = []string{"Authorization", test.given}
		}
		out := p.send(test.method, test.path, test.body, headers...)
		require.Equal(t, test.status, out.Status, "%s with %s: %v", test.path, test.given, out.Message)
		require.Equal(t, test.message, out.Message)
		require.Equal(t, test.challenge, out.Header.Get("WWW-Authenticate"))
	}
	require.Empty(t, p.list())
	require.Empty(t, p.logs.lines(tokenKeyName), "it is set")
}

// Orders in one process, auth in another, as after one of them was replaced.
func TestOrdersAskAuthInAnotherProcessAndSayWhereThereIsNone(t *testing.T) {
	t.Parallel()
	p := startWithKey(t, "-services", "orders")
	p.ready()
	out := p.post(seedOrder)
	require.Equal(t, http.StatusServiceUnavailable, out.Status)
	require.Equal(t, "The auth service is not there: nobody answers user.getUser", out.Message)
	require.NotEmpty(t, p.logs.lines("orders: user not looked up", "user=user1"))

	q := startWithKey(t, "-brokers", p.brokers[0], "-services", "auth")
	q.ready()
	eventually(t, "orders to find auth", func() bool { return p.post(seedOrder).Status == http.StatusCreated })
	require.Equal(t, http.StatusNotFound, p.post(orderOf("nobody")).Status)
	user, token := q.register()
	out = p.send(http.MethodPost, "/orders", orderOf(user.ID), "Authorization", "Bearer "+token)
	require.Equal(t, http.StatusCreated, out.Status, "%v", out.Message)

	// Users are in Kafka: another auth knows them, and their tokens.
	require.NoError(t, q.stop())
	r := startWithKey(t, "-brokers", p.brokers[0], "-services", "auth")
	r.ready()
	out = r.send(http.MethodGet, "/auth/me", "", "Authorization", "Bearer "+token)
	require.Equal(t, http.StatusOK, out.Status, "%v", out.Message)
	r.token()
	out = p.send(http.MethodPost, "/orders", orderOf(user.ID), "Authorization", "Bearer "+token)
	require.Equal(t, http.StatusCreated, out.Status, "%v", out.Message)
}

func TestProcessWithoutAKeySaysThatItsTokensAreItsOwn(t *testing.T) {
	t.Parallel()
	p := start(t, "-services", "orders,auth")
	p.ready()
	require.Len(t, p.logs.lines("level=WARN", tokenKeyName+" is not set"), 1)
	user, token := p.register()
	q := start(t, "-brokers", p.brokers[0], "-services", "orders")
	q.ready()
	out := q.send(http.MethodPost, "/orders", orderOf(user.ID), "Authorization", "Bearer "+token)
	require.Equal(t, http.StatusUnauthorized, out.Status)
	billing := start(t, "-brokers", p.brokers[0], "-services", "billing")
	require.Empty(t, billing.logs.lines(tokenKeyName))
}

func TestKeyOfTokensThatIsTooShort(t *testing.T) {
	t.Parallel()
	_, err := parse(nil, func(name string) string { return map[string]string{tokenKeyName: "secret"}[name] })
	require.EqualError(t, err, "SHOP_TOKEN_KEY has 6 characters: give it 32 or more, such as what openssl rand -base64 32 prints")
	cfg, err := parse([]string{"-auth-group", "nest-server"}, func(name string) string { return map[string]string{tokenKeyName: tokenKey}[name] })
	require.NoError(t, err)
	require.Equal(t, tokenKey, string(cfg.tokenKey))
	require.Equal(t, "nest-server", cfg.authGroup)
}

func TestOpenAPIDocumentSaysWhoNeedsAToken(t *testing.T) {
	t.Parallel()
	p := start(t, "-services", "orders,auth")
	resp, err := http.Get(p.url + "/openapi.json")
	require.NoError(t, err)
	defer resp.Body.Close()
	var doc struct {
		Paths map[string]map[string]struct {
			Security  []map[string][]string
			Responses map[string]struct {
				Description string
				Content     map[string]struct{ Schema map[string]any }
			}
			Parameters  []struct{ Name, In string }
			RequestBody struct {
				Required bool
				Content  map[string]struct{ Schema map[string]any }
			}
		}
		Components struct {
			Schemas         map[string]any
			SecuritySchemes map[string]map[string]string
		}
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&doc))
	require.Equal(t, map[string]map[string]string{"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}, doc.Components.SecuritySchemes)
	register, login, me, place := doc.Paths["/auth/register"]["post"], doc.Paths["/auth/login"]["post"], doc.Paths["/auth/me"]["get"], doc.Paths["/orders"]["post"]
	require.Empty(t, register.Security)
	require.Empty(t, login.Security)
	require.Equal(t, []map[string][]string{{"bearer": {}}}, me.Security)
	require.Equal(t, []map[string][]string{{}, {"bearer": {}}}, place.Security, "none, or one")
	require.Equal(t, "Idempotency-Key", place.Parameters[0].Name)
	require.Equal(t, "header", place.Parameters[0].In)
	require.Equal(t, "#/components/schemas/NewUser", register.RequestBody.Content["application/json"].Schema["$ref"])
	require.Equal(t, "#/components/schemas/Credentials", login.RequestBody.Content["application/json"].Schema["$ref"])
	for _, status := range []string{"201", "400", "409", "413", "415", "503"} {
		require.Contains(t, register.Responses, status)
	}
	for _, status := range []string{"201", "400", "401", "403", "404", "413", "415", "422", "503"} {
		require.Contains(t, place.Responses, status)
	}
	require.Equal(t, "Unprocessable Entity", place.Responses["422"].Description)
	require.Equal(t, "Bad Request", place.Responses["400"].Description)
	require.Equal(t, place.Responses["400"].Content, place.Responses["422"].Content)
	require.NotContains(t, register.Responses, "422")
	require.Contains(t, login.Responses, "401")
	require.Contains(t, me.Responses, "401")
	for _, name := range []string{"NewOrder", "Order", "NewUser", "Credentials", "Token", "User", "Failure"} {
		require.Contains(t, doc.Components.Schemas, name)
	}
}
