package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/examples/shop/web"
	"github.com/wherry-go/wherry/internal/embedded"
)

// run is one process of the shop: it works until ctx is done, and then returns
// nil, or until a part of it fails. In either case requests in hand are
// answered first, then the services end, and the broker last, when nobody is
// left to talk to it.
func run(ctx context.Context, cfg config) error {
	limits, closeLimits := newLimiter(cfg)
	defer closeLimits()
	server := &web.Server{Addr: cfg.http, Logger: cfg.log, Limits: limits, Proxies: cfg.proxies, Metrics: cfg.metrics}
	// First what can only go wrong at once: a taken port is told before the
	// broker has touched its folder.
	if err := server.Listen(ctx); err != nil {
		return err
	}
	defer server.Close()

	// From here on, whatever ends, ends all: a shop that lacks a part would only
	// look as if it worked.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up := &stages{ended: cancel}
	brokers := cfg.brokers
	if brokers == nil {
		broker := &embedded.Broker{Dir: cfg.data, Addr: cfg.embedded, Fallback: true, Logger: cfg.log}
		up.start(ctx, broker.Run)
		select {
		case <-broker.Ready():
			brokers = []string{broker.Address()}
		case <-ctx.Done():
			return up.end()
		}
	}
	cl, err := newClient(cfg, brokers)
	if err != nil {
		return errors.Join(err, up.end())
	}
	services := assemble(cfg, cl)
	server.Routes = routes(services)
	server.Health = func() map[string]bool {
		health := map[string]bool{}
		for _, s := range services {
			health[s.name] = s.healthy() && ctx.Err() == nil
		}
		return health
	}

	tellStart(cfg, server.Address(), brokers)
	up.start(ctx, func(ctx context.Context) error {
		defer cl.Close()
		return runServices(ctx, cl, services, func() { tellReady(cfg, server.Address(), brokers[0]) })
	})
	// It serves while the services start, so that /healthz can tell of them.
	up.start(ctx, server.Run)
	if cfg.started != nil {
		cfg.started(server.Address(), brokers)
	}
	<-ctx.Done()
	cfg.log.Info("shop: stopping")
	return up.end()
}

// runServices makes the topics and runs the services until ctx is done or one
// of them fails, which ends all. It calls ready when all of them are.
func runServices(ctx context.Context, cl *kgo.Client, services []*part, ready func()) error {
	err := wherry.EnsureTopics(ctx, cl, events.Topics()...)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // stopped while it waited for a broker, which is no failure
	}
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range services {
		g.Go(func() error {
			defer s.over.Store(true)
			if err := s.Run(ctx); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			return nil
		})
	}
	g.Go(func() error {
		for _, s := range services {
			select {
			case <-s.Ready():
			case <-ctx.Done():
				return nil
			}
		}
		ready()
		return nil
	})
	return g.Wait()
}
