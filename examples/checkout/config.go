package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/wherry-go/wherry/examples/checkout/checkout"
	"github.com/wherry-go/wherry/examples/checkout/trouble"
)

// The participants, and the saga itself.
const (
	stockName    = "stock"
	paymentsName = "payments"
	shippingName = "shipping"
	ledgerName   = "ledger"
	notifyName   = "notify"
	checkoutName = "checkout"
)

var allServices = []string{stockName, paymentsName, shippingName, ledgerName, notifyName, checkoutName}

// embeddedAddr is where Kafka brokers listen by custom.
const embeddedAddr = "127.0.0.1:9092"

// config is what a process is told.
type config struct {
	http     string   // "host:port" of the HTTP server, which the service checkout has
	data     string   // folder of the embedded broker and of the participants; "" means one for the time being
	brokers  []string // of a Kafka elsewhere; none means the embedded broker
	services []string // those that run in this process
	pace     checkout.Pace
	session  time.Duration // after which a process that died is missed

	reserve, pay, ship, capture, notify trouble.Mode

	embedded string // "host:port" of the embedded broker
	out      io.Writer
	log      *slog.Logger
	// started is told where the process can be reached, when it is ready. nil is
	// fine.
	started func(http string, brokers []string)
}

// arguments are the command line as it is read.
type arguments struct {
	config
	brokerList, serviceList string
}

// newFlags returns the flags, and where their values go.
func newFlags() (*flag.FlagSet, *arguments) {
	args := &arguments{config: config{
		embedded: embeddedAddr, out: os.Stderr, log: slog.Default(),
		reserve: trouble.OK, pay: trouble.OK, ship: trouble.OK, capture: trouble.OK, notify: trouble.OK,
	}}
	flags := flag.NewFlagSet("checkout", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller tells of errors
	flags.StringVar(&args.http, "http", "127.0.0.1:3100", "`host:port` of the HTTP server; port 0 means a free one")
	flags.StringVar(&args.data, "data", ".wherry-checkout", "`folder` of the embedded broker and of the participants; \"\" keeps nothing")
	flags.StringVar(&args.brokerList, "brokers", "", "`host:port,…` of a Kafka; else a broker runs in this process, on "+embeddedAddr+" or a free port where that is taken")
	flags.StringVar(&args.serviceList, "services", strings.Join(allServices, ","), "`names` of the services to run in this process")
	const how = " `go`: ok, refuse (it says no), fail (every attempt fails), flaky (the first two fail) or timeout (it is done and not answered)"
	flags.Var(&args.reserve, "reserve", "how reservations"+how)
	flags.Var(&args.pay, "pay", "how payments"+how)
	flags.Var(&args.ship, "ship", "how labels"+how)
	flags.Var(&args.capture, "capture", "how bookings"+how)
	flags.Var(&args.notify, "notify", "how notices"+how)
	flags.DurationVar(&args.pace.Timeout, "step-timeout", 3*time.Second, "how long an attempt may take")
	flags.DurationVar(&args.pace.Retry, "retry-initial", time.Second, "the wait before the second attempt; each later one is twice as long, up to 10s")
	flags.DurationVar(&args.pace.StuckAfter, "stuck-after", 15*time.Second, "how long what has to succeed may fail before the checkout shows as stuck")
	flags.DurationVar(&args.session, "session-timeout", 10*time.Second, "after how long a process that died without a word is missed, and others, or its next start, take over")
	return flags, args
}

// parse reads the command line. Its error has all that is wrong with it, or is
// flag.ErrHelp after the help was printed.
func parse(line []string) (config, error) {
	flags, args := newFlags()
	if err := flags.Parse(line); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(os.Stdout)
			fmt.Println("Runs a checkout and its participants. The flags:")
			flags.PrintDefaults()
		}
		return args.config, err
	}

	var faults []error
	if flags.NArg() > 0 {
		faults = append(faults, fmt.Errorf("%q is no flag: a flag begins with -", flags.Arg(0)))
	}
	// Given but empty is a fault: a script whose variable is not set should not
	// get a broker of its own.
	flags.Visit(func(f *flag.Flag) {
		if f.Name == "brokers" {
			if args.brokers = split(args.brokerList); len(args.brokers) == 0 {
				faults = append(faults, errors.New("-brokers is empty: give host:port, or leave it out to have a broker in this process"))
			}
		}
	})
	var err error
	args.services, err = parseServices(args.serviceList)
	return args.config, errors.Join(append(faults, err)...)
}

// parseServices reads a list of names, each of which counts once.
func parseServices(list string) (names []string, err error) {
	var faults []error
	for _, name := range split(list) {
		if !slices.Contains(allServices, name) {
			faults = append(faults, fmt.Errorf("-services: there is no service %q: choose from %s", name, strings.Join(allServices, ", ")))
		} else if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if names == nil && faults == nil {
		faults = append(faults, fmt.Errorf("-services is empty: choose from %s", strings.Join(allServices, ", ")))
	}
	return names, errors.Join(faults...)
}

// split returns the parts between commas, without spaces and empty ones.
func split(list string) (parts []string) {
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

// newLogger logs lines of text, each with the time of the day.
func newLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.String(slog.TimeKey, a.Value.Time().Format("15:04:05.000"))
			}
			return a
		},
	}))
}
