// Package auth knows the shop's users: it registers them, logs them in, and
// answers who asks for one.
package auth

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/retry"
)

// DecidingGroup is the consumer group of what registers users; who answers
// events.GetUser is in that one's Group. DeadLetters is the topic of registrations
// that could not be handled, without their hashes.
const (
	DecidingGroup = "auth.decide"
	DeadLetters   = "auth.dlq"
)

// patience is how long it may take until there is room to hash a password, and until
// a registration is decided.
const patience = 8 * time.Second

// Service is the auth service. Its users are a table in Kafka; there is no other
// database. A password is never there, nor in an answer, an event or the log; its
// hash is in the two topics that are auth's own, events.AuthUsers and, for a day
// or two, events.AuthInbox, and nowhere else.
type Service struct {
	// Client says how to reach the cluster, and produces. Required.
	Client *kgo.Client
	// Tokens makes the tokens of those who log in, and reads them. Required.
	Tokens Tokens
	// Policies stand outside of the service's own, outermost first.
	Policies []wherry.Policy
	// Logger tells what the service does. Required.
	Logger *slog.Logger

	once      sync.Once
	patience  time.Duration // patience, but in tests
	passwords *passwords
	table     wherry.Table[account]      // to answer from
	rows      wherry.OwnedTable[account] // the same topic, to decide with
	decides   wherry.Consumer
	answers   wherry.Consumer
	ready     chan struct{}
}

func (s *Service) init() {
	s.once.Do(func() {
		s.ready = make(chan struct{})
		s.passwords, s.patience = newPasswords(), patience
		s.table = wherry.Table[account]{Client: s.Client, Topic: events.AuthUsers, Logger: s.Logger}
		s.rows = wherry.OwnedTable[account]{Topic: events.AuthUsers}
		s.decides = wherry.Consumer{
			Client:   s.Client,
			Group:    DecidingGroup,
			Handlers: []wherry.Route{inbox.Handler(s.decide)},
			Order:    wherry.ByKey,
			Delivery: wherry.ExactlyOnce,
			Tables:   []wherry.Owned{&s.rows},
			// What the inbox no longer holds was never confirmed to anybody.
			OnReset: func(e *wherry.OffsetRangeError) (int64, error) { return e.Start, nil },
			Policies: slices.Concat(s.Policies, []wherry.Policy{
				&dlq.Queue{Topic: DeadLetters, Redact: redact},
				retry.Policy{Attempts: 6, Initial: 200 * time.Millisecond},
			}),
			Logger: s.Logger,
		}
		s.answers = wherry.Consumer{
			Client:      s.Client,
			Group:       events.GetUser.Group,
			Handlers:    []wherry.Route{events.GetUser.Handler(s.getUser)},
			Order:       wherry.Unordered,
			Concurrency: 64,
			// Its caller hears of a request that fails; nobody else misses it.
			Policies: slices.Concat(s.Policies, []wherry.Policy{reqreply.Faults{Done: true}}),
			Logger:   s.Logger,
		}
	})
}

// Ready is closed when users can register, log in and be asked for. The fields
// must be set before.
func (s *Service) Ready() <-chan struct{} {
	s.init()
	return s.ready
}

func (s *Service) isReady() bool {
	select {
	case <-s.Ready():
		return true
	default:
		return false
	}
}

// Run is the service until ctx is done; it then returns nil. A table that is
// lost, and a record that cannot be handed on as a dead letter either, end it with
// an error. It can be called once.
func (s *Service) Run(ctx context.Context) error {
	s.init()
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{s.table.Run, s.decides.Run, s.answers.Run} {
		g.Go(func() error { return run(ctx) })
	}
	g.Go(func() error {
		for _, ready := range []<-chan struct{}{s.table.Ready(), s.decides.Ready(), s.answers.Ready()} {
			select {
			case <-ready:
			case <-ctx.Done():
				return nil
			}
		}
		close(s.ready)
		return nil
	})
	return g.Wait()
}

// getUser is Find for who asks over Kafka.
func (s *Service) getUser(ctx context.Context, id string) (*events.User, error) {
	user, err := s.Find(ctx, id)
	s.Logger.InfoContext(ctx, "auth: asked for a user", "user", fmt.Sprintf("%.100s", id), "found", user != nil)
	return user, err
}
