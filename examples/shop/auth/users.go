package auth

import (
	"context"
	"errors"

	"github.com/wherry-go/wherry/examples/shop/events"
)

// seed are the users that every shop begins with, by id. They have no password,
// so nobody logs in as one of them.
var seed = map[string]events.User{
	"user1": {ID: "user1", Name: "Ada", Email: "ada@example.com"},
	"user2": {ID: "user2", Name: "Grace", Email: "grace@example.com"},
	"user3": {ID: "user3", Name: "Edsger", Email: "edsger@example.com"},
}

// account is a row of the table, and what the inbox holds. A user has two rows,
// one by the e-mail address and one, without the hash, by the id.
type account struct {
	events.User
	// Hash is that of the password; see passwords.
	Hash string `json:"hash,omitempty"`
}

// String is for logs and errors, where a hash has no business.
func (a account) String() string { return a.ID }

// Find returns the user with that id, also one who has registered in another
// process a moment ago; nil if there is none.
func (s *Service) Find(ctx context.Context, id string) (*events.User, error) {
	if u, ok := seed[id]; ok {
		return &u, nil
	}
	a, found, err := s.table.Get(ctx, id)
	if err == nil && !found {
		if err = s.table.Sync(ctx); err == nil {
			a, found, err = s.table.Get(ctx, id)
		}
	}
	if err != nil || !found || a.ID != id { // else it is the row of an e-mail address
		return nil, err
	}
	return &a.User, nil
}

// taken reports whether a user of this process's table has the address. Another
// one may have just got it: that is for decide.
func (s *Service) taken(ctx context.Context, email string) (bool, error) {
	for _, u := range seed {
		if u.Email == email {
			return true, nil
		}
	}
	_, found, err := s.table.Get(ctx, email)
	return found, err
}

// Login returns a token for the user who has this address and password; else the
// error is a *CredentialsError. It does the same work whether there is such a user
// or not, so that its time does not tell.
func (s *Service) Login(ctx context.Context, c Credentials) (token string, err error) {
	if !s.isReady() {
		return "", ErrNotReady
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.patience, errors.New("it took too long"))
	defer cancel()
	// Whoever has just registered in another process can log in.
	if err := s.table.Sync(ctx); err != nil {
		return "", &UnansweredError{err}
	}
	a, found, err := s.table.Get(ctx, normal(c.Email))
	if err != nil {
		return "", err
	}
	if found = found && a.Hash != ""; !found { // a row without a hash is that of an id
		a.Hash = s.passwords.nobody()
	}
	is, err := s.passwords.is(ctx, c.Password, a.Hash)
	if err == nil && (!is || !found) {
		err = &CredentialsError{}
	}
	if err != nil {
		return "", err
	}
	return s.Tokens.Sign(a.ID)
}
