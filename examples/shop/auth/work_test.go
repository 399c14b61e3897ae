package auth

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/kafkatest"
)

// Not timed: a hash is all that takes long, so it is hashes that are counted.
func TestLoginHashesOnceWhetherThereIsSuchAUserOrNot(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	require.NoError(t, wherry.EnsureTopics(t.Context(), k.Client(t), events.Topics()...))
	s := &Service{Client: k.Client(t), Tokens: Tokens{Key: make([]byte, MinKey)}, Logger: slog.New(slog.DiscardHandler)}
	kafkatest.Run(t, s)
	_, err := s.Register(t.Context(), NewUser{Email: "jo@example.com", Password: "correct horse", Name: "Jo"})
	require.NoError(t, err)
	for _, c := range []Credentials{
		{"jo@example.com", "correct horse"},
		{"jo@example.com", "wrong"},
		{"nobody@example.com", "correct horse"},
		{"ada@example.com", "correct horse"},
	} {
		before := s.passwords.made.Load()
		_, err := s.Login(t.Context(), c)
		require.Equal(t, c.Password == "correct horse" && c.Email == "jo@example.com", err == nil)
		require.EqualValues(t, 1, s.passwords.made.Load()-before, c.Email)
	}
	before := s.passwords.made.Load()
	_, err = s.Register(t.Context(), NewUser{Email: "jo@example.com", Password: "correct horse", Name: "Jo"})
	require.Error(t, err)
	require.Equal(t, before, s.passwords.made.Load(), "an address that is known to be taken costs no hash")
}
