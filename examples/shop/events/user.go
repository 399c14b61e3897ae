package events

import (
	"errors"

	"github.com/wherry-go/wherry/reqreply"
)

// A User may place orders. What auth knows besides, it keeps to itself.
type User struct {
	// ID is what orders name their user by.
	ID    string `json:"id" example:"user1"`
	Name  string `json:"name" example:"Ada"`
	Email string `json:"email" format:"email" example:"ada@example.com"`
}

// Validate refuses a user that nobody could name.
func (u User) Validate() error {
	if u.ID == "" {
		return errors.New("the user has no id")
	}
	return nil
}

// GetUser asks auth for a user. The request is the id as raw text, user1 say;
// the answer is null where nobody has it.
//
// Its Group is that of a NestJS service whose groupId is "auth" (NestJS puts
// -server behind it), so that orders finds either one there. An auth in another
// group needs another Group here: the shop's flag -auth-group.
var GetUser = reqreply.Method[string, *User]{Topic: "user.getUser", Group: "auth-server"}
