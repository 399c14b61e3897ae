package auth

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/google/uuid"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/examples/shop/events"
)

// One address makes one user, however many processes it is registered in at once:
// who wants to be one goes into the inbox, keyed by the address, and decide takes
// those of an address one after the other. The password is hashed before: what is
// on a topic, and only on auth's own, is the hash.

var inbox = wherry.Event[account]{Topic: events.AuthInbox}

// Register makes a user and returns it when that is decided and Find has it. n
// must be valid. The error for an address that has a user is a *TakenError.
func (s *Service) Register(ctx context.Context, n NewUser) (events.User, error) {
	if !s.isReady() {
		return events.User{}, ErrNotReady
	}
	email := normal(n.Email)
	ctx = context.WithoutCancel(ctx) // a client that hangs up is registered or not, and never half
	taken, err := s.taken(ctx, email)
	if err == nil && taken {
		err = &TakenError{email}
	}
	if err != nil {
		return events.User{}, err
	}
	turn, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	hash, err := s.passwords.hash(turn, n.Password)
	if err != nil {
		return events.User{}, err
	}
	ctx, cancel = context.WithTimeoutCause(ctx, s.patience, errors.New("it was not decided in time"))
	defer cancel()
	user := events.User{ID: uuid.NewString(), Name: n.Name, Email: email}
	asked, err := inbox.Record(email, account{User: user, Hash: hash})
	if err != nil {
		return events.User{}, err
	}
	if err := events.Send(ctx, s.Client, asked); err != nil {
		return events.User{}, &UnconfirmedError{err}
	}
	// It may be decided in another process. The table hears of it in any case.
	a, _, err := s.table.Until(ctx, email, func(_ account, found bool) bool { return found })
	switch {
	case err != nil:
		return events.User{}, &UnconfirmedError{err}
	case a.ID != user.ID:
		return events.User{}, &TakenError{email}
	}
	s.Logger.InfoContext(ctx, "auth: user registered", "user", user.ID)
	return user, nil
}

// normal is an address as it is compared: nobody has two that differ in upper and
// lower case.
func normal(email string) string { return strings.ToLower(email) }

// decide makes a user of the first account of an address; later ones are too late.
// The rows and the group's offset are one transaction.
func (s *Service) decide(ctx context.Context, a account) error {
	if a.Email == "" || a.Hash == "" {
		return wherry.Permanent(errors.New("a registration without an address or a password's hash"))
	}
	if string(wherry.RecordFrom(ctx).Key) != a.Email {
		return wherry.Permanent(errors.New("a registration that is not in the line of its address"))
	}
	_, taken, err := s.rows.Get(ctx, a.Email)
	if _, garbled := errors.AsType[*wherry.RecordError](err); garbled {
		err = wherry.Permanent(err) // somebody wrote over the row
	}
	if err != nil || taken {
		return err
	}
	// Register waits for the second one.
	if err := s.rows.Put(ctx, a.ID, account{User: a.User}); err != nil {
		return err
	}
	return s.rows.Put(ctx, a.Email, a)
}

// redact takes the password's hash out of a dead letter. Who wanted to register
// has heard that it failed, and does it again.
func redact(l *dlq.Letter) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(l.Value, &fields) != nil {
		return
	}
	delete(fields, "hash")
	l.Value, _ = json.Marshal(fields) // what was read can be written
}
