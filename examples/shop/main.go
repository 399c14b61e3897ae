// Command shop is a small shop made of services that talk over Kafka: orders,
// billing, auth and notifications. It is a whole system to read, run and take
// parts from; README.md beside it shows what to try.
//
// With Go alone it runs on a broker in its own process:
//
//	go run ./examples/shop
//
// The way of an order: POST /orders writes a row of the table of orders and
// then the event order.created; billing takes the money and tells of it with
// payment.created; orders sets the row to paid; notifications tells the user
// of both. Where no money can be had, -payments fail, billing tries again and
// at last tells payment.failed and writes a dead letter; orders then cancels the
// order and tells order.cancelled. Read on in this order: run in shop.go, then
// package events, then the services.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/redis/go-redis/v9/logging"
)

func main() {
	// The library logs through the default logger where it has no other.
	slog.SetDefault(newLogger(os.Stderr))
	logging.Disable() // the Redis client's, which tells of each connection that the limits miss
	cfg, err := parse(os.Args[1:], os.Getenv)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "shop: %v\nshop -h lists the flags\n", err)
		os.Exit(2)
	}
	// The first signal ends the shop in good order, a second one at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := observe(ctx, cfg); err != nil {
		fmt.Fprintf(os.Stderr, "shop: %v\n", err)
		os.Exit(1)
	}
}

// observe is run with telemetry, whose rest is sent at the end.
func observe(ctx context.Context, cfg config) error {
	t, err := startTelemetry(ctx, os.Getenv, cfg.log)
	if err != nil {
		return err
	}
	defer t.flush()
	cfg.metrics = t.metrics
	return run(ctx, cfg)
}
