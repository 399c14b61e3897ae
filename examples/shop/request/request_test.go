package request_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/examples/shop/request"
)

func TestAllThatIsWrongWithABodyComesAtOnce(t *testing.T) {
	t.Parallel()
	object := func(body string) (email, name string, err error) {
		err = request.Object([]byte(body),
			request.Property{Name: "email", Text: &email, Rules: []request.Rule{request.NotEmpty, request.IsEmail}},
			request.Property{Name: "name", Text: &name, Rules: []request.Rule{request.MinLength(2), request.MaxLength(3), request.IsString, request.IsIn("jo", "joe")}})
		return email, name, err
	}
	email, name, err := object(` {"email":"jo@example.com","name":"jo"}`)
	require.NoError(t, err)
	require.Equal(t, "jo@example.com jo", email+" "+name)
	for body, want := range map[string][]string{
		`{}`: {"email should not be empty", "email must be an email", "name must be longer than or equal to 2 characters", "name must be a string"},
		`{"email":"jo","name":5,"z":1,"a":2,"Name":"jo"}`: {
			"property Name should not exist", "property a should not exist", "property z should not exist",
			"email must be an email", "name must be longer than or equal to 2 characters", "name must be a string",
		},
		`{"email":"jo@example.com","name":"joey"}`: {"name must be shorter than or equal to 3 characters", "name must be one of the following values: jo, joe"},
		`{"email":"jo@example.com","name":"ééé"}`:  {"name must be one of the following values: jo, joe"},
	} {
		_, _, err := object(body)
		var invalid *request.InvalidError
		require.ErrorAs(t, err, &invalid, body)
		require.Equal(t, want, invalid.Messages)
	}
	for _, body := range []string{"", "[]", "null", `"x"`, `{"email"`, `{} {}`, "{\"email\":\"jo@example.com\",\"name\":\"j\xf6\"}"} {
		_, _, err := object(body)
		var malformed *request.MalformedError
		require.ErrorAs(t, err, &malformed, body)
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	is := func(text string) bool {
		var got string
		return request.Object([]byte(`{"e":"`+text+`"}`), request.Property{Name: "e", Text: &got, Rules: []request.Rule{request.IsEmail}}) == nil
	}
	for _, text := range []string{"jo@example.com", "J.O+shop@mail.example.co.uk", "a@b-c.de", "o'neill@example.com"} {
		require.True(t, is(text), text)
	}
	for _, text := range []string{
		"", "jo", "jo@", "@example.com", "jo@localhost", "jo@example..com", "jo@-example.com", "jo@example.com ", " jo@example.com",
		"Jo <jo@example.com>", "jo@example.com,ann@example.com", `jo@example.com\n`, "jö@example.com", strings.Repeat("a", 250) + "@b.de",
	} {
		require.False(t, is(text), text)
	}
}

func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		`"8e03978e-40d5-43e8-bc93-6894a57f9324"`: "8e03978e-40d5-43e8-bc93-6894a57f9324",
		`8e03978e-40d5-43e8-bc93-6894a57f9324`:   "8e03978e-40d5-43e8-bc93-6894a57f9324", // as most clients send it
		` "a" `:                                  "a",
		`"a \"b\" \\ c"`:                         `a "b" \ c`,
		`"` + strings.Repeat("k", 253) + `"`:     strings.Repeat("k", 253),
		strings.Repeat("k", 253):                 strings.Repeat("k", 253),
	} {
		key, err := (&request.IdempotencyKey{Given: []string{given}}).Key()
		require.NoError(t, err, given)
		require.Equal(t, want, key)
	}
	key, err := (&request.IdempotencyKey{}).Key()
	require.NoError(t, err)
	require.Empty(t, key)
	refused := func(given ...string) {
		_, err := (&request.IdempotencyKey{Given: given}).Key()
		var malformed *request.MalformedError
		require.ErrorAs(t, err, &malformed, "%q", given)
	}
	for _, given := range []string{
		"", `""`, `"`, `"a`, `a"`, `"a"b"`, `"a\b"`, `"é"`, "a b", `"a", "b"`, "a,b", `"a";x=1`, "\"a\x00\"", "(a)",
		strings.Repeat("k", 254), `"` + strings.Repeat("k", 254) + `"`,
	} {
		refused(given)
	}
	refused("a", "b")
	refused("a", "a")
}

func TestBearers(t *testing.T) {
	t.Parallel()
	subject := func(token string) (string, error) {
		if token != "good" {
			return "", errors.New("a secret")
		}
		return "user1", nil
	}
	for _, given := range []string{"Bearer good", "bearer good", "BEARER  good"} {
		user, err := (&request.Bearer{Given: given}).User(subject)
		require.NoError(t, err, given)
		require.Equal(t, "user1", user)
	}
	for given, want := range map[string]string{
		"":                "a bearer token is required",
		"Bearer":          "the bearer token is invalid or has expired",
		"Bearer bad":      "the bearer token is invalid or has expired",
		"Basic good":      "the bearer token is invalid or has expired",
		"good":            "the bearer token is invalid or has expired",
		"Bearer good bad": "the bearer token is invalid or has expired",
	} {
		user, err := (&request.Bearer{Given: given}).User(subject)
		require.EqualError(t, err, want, given)
		require.Equal(t, given == "", errors.Is(err, request.ErrNoToken))
		require.Empty(t, user)
	}
}
