// Command checkout is a saga whose participants are processes of their own: it
// reserves the goods, has them paid for and makes the label of the parcel at the
// same time, books the sale, and tells the customer. Up to the booking it undoes
// what it did when something is refused; after it, it goes on until it is done.
//
// With Go alone all of it runs in one process, on a broker in it:
//
//	go run ./examples/checkout
//
// README.md beside it shows what to try, each participant as a process, and the
// payments in NestJS. Read on in this order: checkout/definition.go, then package
// contract, then the participants.
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
)

func main() {
	slog.SetDefault(newLogger(os.Stderr)) // the library's, where it has no other
	cfg, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "checkout: %v\ncheckout -h lists the flags\n", err)
		os.Exit(2)
	}
	// The first signal ends it in good order, a second one at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintf(os.Stderr, "checkout: %v\n", err)
		os.Exit(1)
	}
}
