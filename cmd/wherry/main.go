// Command wherry is the operator's command of the wherry library. Its
// subcommands are listed by "wherry help": "wherry broker" runs a local Kafka
// without Docker or Java, "wherry dlq" works with the dead letters of any
// cluster, "wherry saga" with its sagas, "wherry doctor" finds what hurts in one.
//
// It exits with 0 after a clean end, also one of "wherry broker" that a signal
// asked for; with 1 after an error, which is one line on standard error, and
// when it was ended before its work was done; with 2 when it was called
// wrongly; with 3 when all was done but for some letters, or sagas. "wherry doctor" exits
// with 1 for what it found, and with 2 where it could not look. The first SIGINT
// or SIGTERM ends it cleanly, another one after half a second or more ends it at
// once, with 130.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// echo is how long after the first signal others are taken for the same one:
// timeout(1), and what passes a terminal's Ctrl-C on, deliver it twice.
const echo = 500 * time.Millisecond

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		for first := time.Now(); ; {
			<-signals
			if time.Since(first) > echo {
				os.Exit(130)
			}
		}
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
