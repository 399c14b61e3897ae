package orders

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/reqreply"
)

// lookup is how long auth may take to answer.
const lookup = 5 * time.Second

// UnknownUserError says that an order names a user who does not exist.
type UnknownUserError struct{ ID string }

func (e *UnknownUserError) Error() string { return fmt.Sprintf("User with ID %s not found", e.ID) }

// UnansweredError says that auth did not tell whether there is a user.
type UnansweredError struct {
	UserID string
	Err    error
}

func (e *UnansweredError) Error() string {
	_, refused := errors.AsType[*reqreply.Error](e.Err)
	switch {
	case errors.Is(e.Err, reqreply.ErrNoResponder):
		return "The auth service is not there: nobody answers " + events.GetUser.Topic
	case errors.Is(e.Err, context.DeadlineExceeded):
		return fmt.Sprintf("The auth service did not answer %s within %v", events.GetUser.Topic, lookup)
	case refused:
		return "The auth service could not answer " + events.GetUser.Topic
	}
	return "The auth service could not be asked for the user"
}

// Unwrap returns why.
func (e *UnansweredError) Unwrap() error { return e.Err }

// findUser asks auth, whoever that is, whether there is a user. Its error is an
// *UnknownUserError or an *UnansweredError.
func (s *Service) findUser(ctx context.Context, id string) error {
	ask := events.GetUser
	ask.Group, ask.Timeout = s.AuthGroup, lookup
	user, err := ask.Call(ctx, &s.users, id)
	if err != nil {
		return &UnansweredError{UserID: id, Err: err}
	}
	// An id in quotes, "user1" say, is that of user1 on the wire, and here of nobody.
	if user == nil || user.ID != id {
		return &UnknownUserError{ID: id}
	}
	return nil
}
