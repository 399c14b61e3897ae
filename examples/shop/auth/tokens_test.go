package auth_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/examples/shop/auth"
)

var tokens = auth.Tokens{Key: []byte(strings.Repeat("k", auth.MinKey))}

func TestTokenIsItsUsersUntilItExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		token, err := tokens.Sign("user1")
		require.NoError(t, err)
		time.Sleep(auth.TokenLife - time.Second)
		user, err := tokens.Subject(token)
		require.NoError(t, err)
		require.Equal(t, "user1", user)
		time.Sleep(time.Second)
		_, err = tokens.Subject(token)
		require.ErrorIs(t, err, jwt.ErrTokenExpired)
	})
}

func TestTokensThatAreRefused(t *testing.T) {
	t.Parallel()
	good, err := tokens.Sign("user1")
	require.NoError(t, err)
	parts := strings.Split(good, ".")
	sign := func(method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
		token, err := jwt.NewWithClaims(method, claims).SignedString(key)
		require.NoError(t, err)
		return token
	}
	later := time.Now().Add(time.Hour).Unix()
	claims := func(change func(jwt.MapClaims)) jwt.MapClaims {
		c := jwt.MapClaims{"iss": "shop", "sub": "user1", "exp": later}
		change(c)
		return c
	}
	whole := claims(func(jwt.MapClaims) {})
	_, err = tokens.Subject(sign(jwt.SigningMethodHS256, tokens.Key, whole))
	require.NoError(t, err, "else the rows below show nothing")
	// Whoever signed it has a clock that is a little ahead of ours.
	_, err = tokens.Subject(sign(jwt.SigningMethodHS256, tokens.Key, claims(func(c jwt.MapClaims) { c["iat"] = time.Now().Add(2 * time.Second).Unix() })))
	require.NoError(t, err)
	for name, token := range map[string]string{
		"none":                "",
		"a word":              "token",
		"of another key":      sign(jwt.SigningMethodHS256, []byte(strings.Repeat("x", 32)), whole),
		"not signed":          sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, whole),
		"of another method":   sign(jwt.SigningMethodHS512, tokens.Key, whole),
		"of another issuer":   sign(jwt.SigningMethodHS256, tokens.Key, claims(func(c jwt.MapClaims) { c["iss"] = "bank" })),
		"without an end":      sign(jwt.SigningMethodHS256, tokens.Key, claims(func(c jwt.MapClaims) { delete(c, "exp") })),
		"of nobody":           sign(jwt.SigningMethodHS256, tokens.Key, claims(func(c jwt.MapClaims) { delete(c, "sub") })),
		"without a signature": parts[0] + "." + parts[1] + ".",
		"with another user":   parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"shop","sub":"user2","exp":9999999999}`)) + "." + parts[2],
	} {
		_, err := tokens.Subject(token)
		require.Error(t, err, name)
	}
}

func TestShortKeyNeitherSignsNorReads(t *testing.T) {
	t.Parallel()
	token, err := tokens.Sign("user1")
	require.NoError(t, err)
	for _, key := range [][]byte{nil, tokens.Key[1:]} {
		short := auth.Tokens{Key: key}
		_, err := short.Sign("user1")
		require.Error(t, err)
		_, err = short.Subject(token)
		require.Error(t, err)
	}
}
