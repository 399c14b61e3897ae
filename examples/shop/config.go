package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/examples/shop/billing"
	"github.com/wherry-go/wherry/examples/shop/events"
	"github.com/wherry-go/wherry/ratelimit"
)

// The services, in the order in which they are told of.
const (
	ordersName        = "orders"
	billingName       = "billing"
	authName          = "auth"
	notificationsName = "notifications"
)

var allServices = []string{ordersName, billingName, authName, notificationsName}

// embeddedAddr is where Kafka brokers listen by custom.
const embeddedAddr = "127.0.0.1:9092"

// config is what a process of the shop is told. parse makes one; its zero value
// is of no use.
type config struct {
	http     string   // "host:port" of the HTTP server
	data     string   // folder of the embedded broker
	brokers  []string // of a Kafka elsewhere; none means the embedded broker
	services []string // those that run in this process
	payments billing.Payments
	retry    time.Duration // the wait before the first retry of a payment

	authGroup string           // of those who answer user.getUser; "" means that none is asked for
	tokenKey  []byte           // signs tokens; nil means one of this process alone
	limits    []ratelimit.Tier // of each client and route; none means no limits
	redis     string           // "host:port" of where requests are counted; "" means in this process
	proxies   []netip.Prefix   // whose X-Forwarded-For is believed
	metrics   http.Handler     // answers GET /metrics; nil means that there is none

	security []kgo.Opt // how to log in at brokers
	unused   []string  // variables that are set and have no effect

	embedded string       // "host:port" of the embedded broker
	out      io.Writer    // what to try, for people
	log      *slog.Logger // all else
	// started is told where the process can be reached, before its services
	// are ready. nil is fine.
	started func(http string, brokers []string)
}

// parse reads the command line and the environment. Its error has all that is
// wrong with them, or is flag.ErrHelp after the help was printed.
func parse(args []string, getenv func(string) string) (config, error) {
	cfg := config{embedded: embeddedAddr, out: os.Stderr, log: slog.Default()}
	flags := flag.NewFlagSet("shop", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller tells of errors
	flags.StringVar(&cfg.http, "http", "127.0.0.1:3000", "`host:port` of the HTTP server; port 0 means a free one")
	flags.StringVar(&cfg.data, "data", ".wherry-shop", "`folder` of the embedded broker; \"\" keeps all in memory")
	brokers := flags.String("brokers", "", "`host:port,…` of a Kafka; else a broker runs in this process, on "+embeddedAddr+" or a free port where that is taken")
	services := flags.String("services", strings.Join(allServices, ","), "`names` of the services to run in this process")
	payments := flags.String("payments", "ok", "how payments `go`: ok, fail, flaky (twice for each order) or above=N (those of more than N fail)")
	flags.DurationVar(&cfg.retry, "retry-initial", time.Second, "the wait before a payment is tried again; the next two waits are twice and four times as long")
	flags.StringVar(&cfg.authGroup, "auth-group", events.GetUser.Group, "consumer `group` of the auth service that orders asks for users; that of a NestJS one is its groupId with -server; \"\" does not look whether anybody is there")
	limits := flags.String("limits", seedLimits, "how many requests a client may make to each route, as `requests/time,…`, or off")
	proxies := flags.String("trusted-proxies", "", "`networks` of the proxies before the shop, whose X-Forwarded-For is believed")
	flags.StringVar(&cfg.redis, "redis", "", "`host:port` of a Redis in which all processes count requests together; else each counts its own")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(os.Stdout)
			fmt.Println("Runs the shop. The flags:")
			flags.PrintDefaults()
		}
		return cfg, err
	}

	// All faults come at once: nobody likes to mend a command line in four steps.
	var faults []error
	if flags.NArg() > 0 {
		faults = append(faults, fmt.Errorf("%q is no flag: a flag begins with -", flags.Arg(0)))
	}
	// Given but empty is a fault: a script whose variable is not set should not
	// get a broker of its own.
	flags.Visit(func(f *flag.Flag) {
		if f.Name == "brokers" {
			var err error
			cfg.brokers, err = parseBrokers(*brokers)
			faults = append(faults, err)
		}
	})
	var err error
	cfg.services, err = parseServices(*services)
	faults = append(faults, err)
	if cfg.payments, err = billing.ParsePayments(*payments); err != nil {
		faults = append(faults, fmt.Errorf("-payments %q: %w", *payments, err))
	}
	if cfg.retry < time.Millisecond || cfg.retry > time.Minute {
		faults = append(faults, fmt.Errorf("-retry-initial %v: choose from 1ms to 1m", cfg.retry))
	}
	if cfg.tokenKey, err = parseTokenKey(getenv); err != nil {
		faults = append(faults, err)
	}
	if cfg.limits, err = parseLimits(*limits); err != nil {
		faults = append(faults, err)
	}
	if cfg.proxies, err = parseProxies(*proxies); err != nil {
		faults = append(faults, err)
	}
	if _, _, err := net.SplitHostPort(cfg.redis); cfg.redis != "" && err != nil {
		faults = append(faults, fmt.Errorf("-redis: %q is not host:port", cfg.redis))
	}
	cfg.security, cfg.unused, err = parseSecurity(getenv, cfg.brokers != nil)
	return cfg, errors.Join(append(faults, err)...)
}

// parseBrokers reads a list of addresses. A broker has no default port here: one
// that is left out is mostly a typing error.
func parseBrokers(list string) ([]string, error) {
	brokers := split(list)
	if len(brokers) == 0 {
		return nil, errors.New("-brokers is empty: give host:port, or leave it out to have a broker in this process")
	}
	var faults []error
	for _, b := range brokers {
		host, port, err := net.SplitHostPort(b)
		if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n == 0 || host == "" {
			faults = append(faults, fmt.Errorf("-brokers: %q is not host:port", b))
		}
	}
	return brokers, errors.Join(faults...)
}

// parseServices reads a list of names, each of which counts once.
func parseServices(list string) ([]string, error) {
	var names []string
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
