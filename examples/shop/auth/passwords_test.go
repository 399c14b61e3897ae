package auth

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHashIsThatOfItsPasswordAlone(t *testing.T) {
	t.Parallel()
	p := newPasswords()
	hash, err := p.hash(t.Context(), "correct horse")
	require.NoError(t, err)
	require.Regexp(t, `^\$argon2id\$v=19\$m=65536,t=3,p=4\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$`, hash)
	for password, want := range map[string]bool{"correct horse": true, "correct horsE": false, "": false} {
		is, err := p.is(t.Context(), password, hash)
		require.NoError(t, err)
		require.Equal(t, want, is, password)
	}
	again, err := p.hash(t.Context(), "correct horse")
	require.NoError(t, err)
	require.NotEqual(t, hash, again, "each has a salt of its own")
}

// A hash says how it was made, so the cost can change without anybody noticing.
// This one is of the reference implementation's test.c.
func TestHashOfAnotherCostIsRead(t *testing.T) {
	t.Parallel()
	is, err := newPasswords().is(t.Context(), "password", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	require.NoError(t, err)
	require.True(t, is)
}

func TestHashOfNobodyCostsAsMuchAndIsOfNoPassword(t *testing.T) {
	t.Parallel()
	c, salt, sum, err := parse(newPasswords().nobody())
	require.NoError(t, err)
	require.Equal(t, uniform, c)
	require.Len(t, salt, saltSize)
	require.Len(t, sum, hashSize)
	one, other := newPasswords().nobody(), newPasswords().nobody()
	require.NotEqual(t, one, other)
}

func TestHashThatIsNoneIsAnErrorThatDoesNotTellIt(t *testing.T) {
	t.Parallel()
	const salt, sum = "c29tZXNhbHQ", "CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	for _, hash := range []string{
		"", "secret", "$2b$10$secret", "$argon2i$v=19$m=65536,t=2,p=1$" + salt + "$" + sum,
		"$argon2id$v=16$m=65536,t=2,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=65536,t=2$" + salt + "$" + sum,
		"$argon2id$v=19$m=65536,t=2,p=1,x=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=4294967295,t=2,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=65536,t=2000000000,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=65536,t=0,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=1,t=1,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=65536,t=2,p=0$" + salt + "$" + sum,
		"$argon2id$v=19$m=65536,t=2,p=1$$" + sum,
		"$argon2id$v=19$m=65536,t=2,p=1$" + salt + "$",
		"$argon2id$v=19$m=65536,t=2,p=1$" + salt + "$!" + sum,
	} {
		_, err := newPasswords().is(t.Context(), "secret", hash)
		require.Error(t, err, hash)
		require.NotContains(t, err.Error(), sum)
		require.NotContains(t, err.Error(), "secret")
	}
}

func FuzzHash(f *testing.F) {
	f.Add(newPasswords().nobody())
	f.Add("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Add("$argon2id$v=19$m=+8,t=1,p=1\n$$")
	f.Fuzz(func(t *testing.T, hash string) {
		c, salt, sum, err := parse(hash)
		if err != nil {
			return
		}
		require.True(t, c.memory <= most.memory && c.passes <= most.passes && c.lanes <= most.lanes && c.lanes > 0 && c.passes > 0)
		again, _, _, err := parse(format(c, salt, sum))
		require.NoError(t, err)
		require.Equal(t, c, again)
	})
}

func TestPasswordsAreHashedAFewAtATime(t *testing.T) {
	t.Parallel()
	p := newPasswords()
	require.NoError(t, p.room.Acquire(t.Context(), together)) // as many as may be hashed
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.hash(ctx, "correct horse")
	var busy *BusyError
	require.ErrorAs(t, err, &busy)
	require.ErrorIs(t, err, context.Canceled)
	_, err = p.is(ctx, "correct horse", p.nobody())
	require.ErrorAs(t, err, &busy)
	require.Zero(t, p.made.Load())

	done := make(chan error, 1)
	go func() {
		_, err := p.hash(t.Context(), "correct horse")
		done <- err
	}()
	p.room.Release(together)
	require.NoError(t, <-done)
	require.EqualValues(t, 1, p.made.Load())
}

func TestTextsOfBodiesAndRowsHaveNoSecrets(t *testing.T) {
	t.Parallel()
	n := NewUser{Email: "jo@example.com", Password: "secret", Name: "Jo"}
	require.NotContains(t, n.String()+Credentials{Email: n.Email, Password: n.Password}.String()+account{Hash: "secret"}.String(), "secret")
	require.Contains(t, n.String(), "jo@")
}
