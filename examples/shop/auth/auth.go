// Package auth knows the shop's users.
package auth

import (
	"context"
	"log/slog"
	"sync"
)

// A User may place orders.
type User struct {
	// ID is what orders name their user by.
	ID string `json:"id"`
	// Name and Email are how the user is addressed.
	Name  string `json:"name"`
	Email string `json:"email"`
}

// Users are the shop's users by id. They are only read.
type Users map[string]User

// Seed returns the users that every process of the shop begins with.
func Seed() Users {
	users := Users{}
	for _, u := range []User{
		{ID: "user1", Name: "Ada", Email: "ada@example.com"},
		{ID: "user2", Name: "Grace", Email: "grace@example.com"},
		{ID: "user3", Name: "Edsger", Email: "edsger@example.com"},
	} {
		users[u.ID] = u
	}
	return users
}

// Exists reports whether there is a user with that id. The error is for
// implementations that have to ask somebody; this one has none.
func (u Users) Exists(_ context.Context, id string) (bool, error) {
	_, ok := u[id]
	return ok, nil
}

// Service is the auth service. It has nothing to do but to be there: orders
// looks users up with [Users.Exists], a function call in its own process.
type Service struct {
	// Users are the users it knows.
	Users Users
	// Logger tells what the service does. Required.
	Logger *slog.Logger

	once  sync.Once
	ready chan struct{}
}

func (s *Service) init() { s.once.Do(func() { s.ready = make(chan struct{}) }) }

// Ready is closed when users can be looked up.
func (s *Service) Ready() <-chan struct{} {
	s.init()
	return s.ready
}

// Run is the service until ctx is done; it then returns nil. It can be called
// once.
func (s *Service) Run(ctx context.Context) error {
	s.init()
	s.Logger.InfoContext(ctx, "auth: ready", "users", len(s.Users))
	close(s.ready)
	<-ctx.Done()
	return nil
}
