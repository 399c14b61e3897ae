package auth

import (
	"errors"
	"fmt"
)

// ErrNotReady is returned by Register and Login until the service is ready.
var ErrNotReady = errors.New("the auth service is not ready yet")

// TakenError says that an e-mail address has a user.
type TakenError struct{ Email string }

func (e *TakenError) Error() string { return fmt.Sprintf("User with email %s already exists", e.Email) }

// CredentialsError says that no user has this address and this password, and not
// which of them is wrong.
type CredentialsError struct{}

func (*CredentialsError) Error() string { return "Invalid credentials" }

// UnconfirmedError says that it is not known whether a user was registered.
type UnconfirmedError struct{ Err error }

func (e *UnconfirmedError) Error() string {
	return fmt.Sprintf("the registration is not confirmed: %v", e.Err)
}

// Unwrap returns what kept it from being confirmed.
func (e *UnconfirmedError) Unwrap() error { return e.Err }

// UnansweredError says that the brokers did not tell what the users are now.
type UnansweredError struct{ Err error }

func (e *UnansweredError) Error() string {
	return fmt.Sprintf("the users could not be looked up: %v", e.Err)
}

// Unwrap returns what kept them from it.
func (e *UnansweredError) Unwrap() error { return e.Err }

// BusyError says that too many passwords wait to be hashed.
type BusyError struct{ Err error }

func (e *BusyError) Error() string { return fmt.Sprintf("waiting to hash a password: %v", e.Err) }

// Unwrap returns what ended the waiting.
func (e *BusyError) Unwrap() error { return e.Err }
