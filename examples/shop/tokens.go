package main

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"github.com/wherry-go/wherry/examples/shop/auth"
)

// tokenKeyName is the variable that has the key of tokens. There is no flag for
// it: other users of a machine can see a command line.
const tokenKeyName = "SHOP_TOKEN_KEY"

// parseTokenKey reads the key of tokens; nil where there is none.
func parseTokenKey(getenv func(string) string) ([]byte, error) {
	key := getenv(tokenKeyName)
	switch {
	case key == "":
		return nil, nil
	case len(key) < auth.MinKey:
		return nil, fmt.Errorf("%s has %d characters: give it %d or more, such as what openssl rand -base64 32 prints", tokenKeyName, len(key), auth.MinKey)
	}
	return []byte(key), nil
}

// newTokens is the key's, or that of a key of this process alone. The latter is
// told of: tokens are worth nothing then where another process reads them.
func newTokens(cfg config) auth.Tokens {
	if cfg.tokenKey != nil {
		return auth.Tokens{Key: cfg.tokenKey}
	}
	if slices.Contains(cfg.services, authName) || slices.Contains(cfg.services, ordersName) {
		cfg.log.Warn("shop: "+tokenKeyName+" is not set, so tokens are signed with a key of this process alone: other processes, and its next start, refuse them",
			"services", strings.Join(cfg.services, ","))
	}
	key := make([]byte, auth.MinKey)
	_, _ = rand.Read(key) // it never fails
	return auth.Tokens{Key: key}
}
