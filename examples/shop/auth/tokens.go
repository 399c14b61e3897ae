package auth

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// TokenLife is how long a token is good for.
	TokenLife = time.Hour
	// MinKey is how many bytes a key has at least (RFC 7518, section 3.2).
	MinKey = 32

	issuer = "shop"
)

// Tokens makes and reads the tokens by which users show who they are: JSON Web
// Tokens with the user's id as their subject, signed with HMAC-SHA256. Nobody
// keeps them: whoever has the key can read them, and none can be taken back
// before it expires.
type Tokens struct {
	// Key signs. All processes that make or read tokens need the same one, of
	// MinKey bytes or more. Required.
	Key []byte
}

// Sign returns a token that is good for [TokenLife].
func (t Tokens) Sign(userID string) (string, error) {
	if len(t.Key) < MinKey {
		return "", fmt.Errorf("the key of tokens has %d bytes, and needs %d", len(t.Key), MinKey)
	}
	now := time.Now()
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.RegisteredClaims{
		Issuer: issuer, Subject: userID, IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(TokenLife)),
	}).SignedString(t.Key)
}

// Subject returns whose token it is. Its error is for the log, not for clients.
func (t Tokens) Subject(token string) (userID string, err error) {
	if len(t.Key) < MinKey {
		return "", errors.New("there is no key to read tokens with")
	}
	var claims jwt.RegisteredClaims
	_, err = jwt.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return t.Key, nil },
		// A token must not choose how it is checked.
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithIssuer(issuer), jwt.WithExpirationRequired())
	if err == nil && claims.Subject == "" {
		err = errors.New("the token has no subject")
	}
	if err != nil {
		return "", err
	}
	return claims.Subject, nil
}
