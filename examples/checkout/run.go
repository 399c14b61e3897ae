package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kslog"
	"golang.org/x/sync/errgroup"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/examples/checkout/checkout"
	"github.com/wherry-go/wherry/examples/checkout/contract"
	"github.com/wherry-go/wherry/examples/checkout/ledger"
	"github.com/wherry-go/wherry/examples/checkout/notify"
	"github.com/wherry-go/wherry/examples/checkout/payments"
	"github.com/wherry-go/wherry/examples/checkout/shipping"
	"github.com/wherry-go/wherry/examples/checkout/stock"
	"github.com/wherry-go/wherry/internal/embedded"
)

// service is what the services have in common.
type service interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
}

// run is one process: it works until ctx is done, and then returns nil, or until
// a part of it fails, which ends all.
func run(ctx context.Context, cfg config) error {
	if cfg.data == "" {
		dir, err := os.MkdirTemp("", "wherry-checkout-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }() // nobody needs it any more
		cfg.data = dir
	}
	if err := os.MkdirAll(cfg.data, 0o700); err != nil {
		return err
	}
	return withBroker(ctx, cfg, func(ctx context.Context, brokers []string) error {
		cl, err := kgo.NewClient(
			kgo.SeedBrokers(brokers...),
			kgo.ClientID("checkout"),
			kgo.ProducerLinger(0), // whoever checks out waits for it
			kgo.SessionTimeout(cfg.session),
			kgo.WithLogger(kslog.New(slog.New(quiet{cfg.log.Handler()}))),
		)
		if err != nil {
			return err
		}
		defer cl.Close()
		cfg.log.Info("checkout: starting", "services", strings.Join(cfg.services, ","), "brokers", strings.Join(brokers, ","))
		return runServices(ctx, cfg, cl, brokers)
	})
}

// withBroker calls use with the brokers of cfg, or with one in this process,
// which ends last, when nobody is left to talk to it.
func withBroker(ctx context.Context, cfg config, use func(context.Context, []string) error) (err error) {
	if cfg.brokers != nil {
		return use(ctx, cfg.brokers)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	outlives, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	b := &embedded.Broker{Dir: filepath.Join(cfg.data, "broker"), Addr: cfg.embedded, Fallback: true, Logger: cfg.log}
	ended := make(chan error, 1)
	go func() {
		defer cancel()
		ended <- b.Run(outlives)
	}()
	select {
	case <-b.Ready():
		err = use(ctx, []string{b.Address()})
	case <-ctx.Done():
	}
	stop()
	return errors.Join(err, <-ended)
}

// runServices makes the topics and runs the services until ctx is done or one
// of them fails.
func runServices(ctx context.Context, cfg config, cl *kgo.Client, brokers []string) error {
	err := wherry.EnsureTopics(ctx, cl, contract.Topics()...)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // stopped while it waited for a broker, which is no failure
	}
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	var all []service
	address := ""
	for _, name := range cfg.services {
		s := assemble(cfg, cl, name)
		if engine, ok := s.(*checkout.Engine); ok {
			l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.http)
			if err != nil {
				return err
			}
			address = l.Addr().String()
			g.Go(func() error { return serve(ctx, l, checkout.Handler(engine, cfg.log)) })
		}
		all = append(all, s)
		g.Go(func() error {
			if err := s.Run(ctx); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	g.Go(func() error {
		for _, s := range all {
			select {
			case <-s.Ready():
			case <-ctx.Done():
				return nil
			}
		}
		tellReady(cfg, address, brokers)
		return nil
	})
	return g.Wait()
}

// assemble makes a service. They share nothing but the client.
func assemble(cfg config, cl *kgo.Client, name string) service {
	switch name {
	case stockName:
		return stock.New(cl, cfg.reserve, cfg.log)
	case paymentsName:
		return payments.New(cl, cfg.pay, cfg.log, filepath.Join(cfg.data, "payments.jsonl"))
	case shippingName:
		return shipping.New(cl, cfg.ship, cfg.log, filepath.Join(cfg.data, "shipping.db"))
	case ledgerName:
		return ledger.New(cl, cfg.capture, cfg.log)
	case notifyName:
		return notify.New(cl, cfg.notify, cfg.log)
	default:
		return checkout.New(cl, cfg.pace, cfg.log)
	}
}

// serve answers requests until ctx is done, and then those in hand.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = server.Shutdown(last) // who still waits is cut off
		return server.Close()
	}
}

// tellReady tells what to try.
func tellReady(cfg config, address string, brokers []string) {
	cfg.log.Info("checkout: ready", "services", strings.Join(cfg.services, ","), "http", address)
	if slices.Contains(cfg.services, checkoutName) {
		_, _ = fmt.Fprintf(cfg.out, `
  check out:       curl -X POST http://%[1]s/checkouts -H "Prefer: wait=10" -d '{"customer": "ada@example.com", "address": "St James Square 12, London", "item": "engine", "quantity": 1, "amount": 9999}'
  look at one:     curl http://%[1]s/checkouts/ID
  its story:       curl http://%[1]s/checkouts/ID/timeline
  all, by wherry:  go run ./cmd/wherry saga ls checkout -all -brokers %[2]s

`, address, brokers[0])
	}
	if cfg.started != nil {
		cfg.started(address, brokers)
	}
}

// quiet takes warnings and errors alone. The Kafka client gets it: it asks its
// logger what to bother with.
type quiet struct{ slog.Handler }

// Enabled reports whether a line of that level is taken.
func (h quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && h.Handler.Enabled(ctx, level)
}

// WithAttrs keeps the level.
func (h quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{h.Handler.WithAttrs(attrs)} }

// WithGroup keeps the level.
func (h quiet) WithGroup(name string) slog.Handler { return quiet{h.Handler.WithGroup(name)} }
