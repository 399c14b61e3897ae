package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kslog"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/shop/auth"
	"github.com/wherry-go/wherry/examples/shop/billing"
	"github.com/wherry-go/wherry/examples/shop/notifications"
	"github.com/wherry-go/wherry/examples/shop/orders"
)

// service is what the services have in common.
type service interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
}

// part is a service of this process, with its name.
type part struct {
	service
	name string
	over atomic.Bool // Run has returned, or is going to
}

// healthy reports whether the service is ready and still at work.
func (p *part) healthy() bool {
	select {
	case <-p.Ready():
		return !p.over.Load()
	default:
		return false
	}
}

// watch is the outermost policy of the service's consumer. An error that gets
// there stops the consumer, which takes it up to a second to finish what it
// has in hand; the service is unhealthy from now on.
func (p *part) watch(next wherry.Handler) wherry.Handler {
	return func(ctx context.Context, r *kgo.Record) error {
		err := next(ctx, r)
		if err != nil && ctx.Err() == nil { // else it was cut short, and comes again
			p.over.Store(true)
		}
		return err
	}
}

// newClient is the one client that the services of a process share: they
// produce with it, and what consumes opens clients of its own like it.
func newClient(cfg config, brokers []string) (*kgo.Client, error) {
	if len(cfg.unused) > 0 {
		cfg.log.Warn("shop: set without effect, the broker in this process asks for no login; -brokers names another", "variables", cfg.unused)
	}
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(brokers...),
		kgo.ClientID("shop"),
		kgo.ProducerLinger(0), // whoever places an order waits for it
		// A process that died without a word is missed after so long, and others,
		// or its next start, take over; kgo's default is 45 s.
		kgo.SessionTimeout(10 * time.Second),
		kgo.WithLogger(kslog.New(slog.New(atLeast{cfg.log.Handler(), slog.LevelWarn}))),
	}, cfg.security...)...)
	if err != nil {
		return nil, fmt.Errorf("making a Kafka client: %w", err)
	}
	return cl, nil
}

// assemble makes the services that cfg names. They share nothing but the
// client, the log and the key of tokens: auth makes those, and orders reads them.
func assemble(cfg config, cl *kgo.Client) []*part {
	tokens := newTokens(cfg)
	var parts []*part
	for _, name := range cfg.services {
		p := &part{name: name}
		policies := []wherry.Policy{wherry.Telemetry{}, wherry.Middleware(p.watch)}
		switch name {
		case ordersName:
			p.service = &orders.Service{
				Client: cl, AuthGroup: cfg.authGroup, Subject: tokens.Subject,
				Policies: policies, Logger: cfg.log,
			}
		case billingName:
			p.service = &billing.Service{
				Client: cl, Payments: cfg.payments, RetryInitial: cfg.retry,
				Policies: policies, Logger: cfg.log,
			}
		case authName:
			p.service = &auth.Service{Client: cl, Tokens: tokens, Policies: policies, Logger: cfg.log}
		case notificationsName:
			p.service = &notifications.Service{Client: cl, Policies: policies, Logger: cfg.log}
		}
		parts = append(parts, p)
	}
	return parts
}

// routes are those of the services that have an HTTP interface, orders and auth. A
// process with neither answers /healthz and /openapi.json alone.
func routes(parts []*part) (all []func(huma.API)) {
	for _, p := range parts {
		if s, ok := p.service.(interface{ Routes(api huma.API) }); ok {
			all = append(all, s.Routes)
		}
	}
	return all
}

// tellStart tells what runs where, before anything can be waited for.
func tellStart(cfg config, http string, brokers []string) {
	cfg.log.Info("shop: starting", "services", strings.Join(cfg.services, ","), "http", "http://"+http, "brokers", strings.Join(brokers, ","))
}

// tellReady tells that all services are ready, and what to try. The commands go
// out as they are, not as a log line, so that they can be copied.
func tellReady(cfg config, http, broker string) {
	cfg.log.Info("shop: ready", "health", "http://"+http+"/healthz")
	if slices.Contains(cfg.services, ordersName) {
		_, _ = fmt.Fprintf(cfg.out, `
  place an order:  curl -X POST http://%[1]s/orders -H "Content-Type: application/json" -d '{"totalAmount": "99.99", "status": "pending", "userId": "user1"}'
  list orders:     curl http://%[1]s/orders
  cancel one:      curl -X POST http://%[1]s/orders/ID/cancel
`, http)
	}
	if slices.Contains(cfg.services, authName) {
		_, _ = fmt.Fprintf(cfg.out, `  register:        curl -X POST http://%[1]s/auth/register -H "Content-Type: application/json" -d '{"email": "jo@example.com", "password": "correct horse battery", "name": "Jo"}'
  get a token:     curl -X POST http://%[1]s/auth/login -H "Content-Type: application/json" -d '{"email": "jo@example.com", "password": "correct horse battery"}'
`, http)
	}
	if cfg.brokers == nil {
		host, port, _ := net.SplitHostPort(http)
		next := "0"
		if port == "3000" {
			next = "3001"
		}
		if slices.Contains(cfg.services, ordersName) {
			_, _ = fmt.Fprintf(cfg.out, "  why one waits:   go run ./cmd/wherry saga why orders ID -brokers %s\n", broker)
		}
		_, _ = fmt.Fprintf(cfg.out, "  a second billing: go run ./examples/shop -brokers %s -services billing -http %s\n\n", broker, net.JoinHostPort(host, next))
	}
}
