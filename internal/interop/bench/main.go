// Command bench measures POST /orders of the shop in Go and in NestJS on one
// broker, in turn:
//
//	go run ./internal/apache/with -- go run ./internal/interop/bench
//
// In each round a shop is started with all its services in one process, warmed
// up, and asked for orders by some clients at once for a few seconds. Each answer
// must be a 201, and each order must be listed as paid afterwards.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/internal/interop/nest"
)

// settings is what the command line tells.
type settings struct {
	brokers []string
	rounds  int
	clients int
	warm    time.Duration
	measure time.Duration
}

func main() {
	brokers := flag.String("brokers", os.Getenv("KAFKATEST_BROKERS"), "`host:port,…` of a Kafka on this machine")
	rounds := flag.Int("rounds", 5, "rounds of each shop")
	clients := flag.Int("clients", 64, "requests at once")
	warm := flag.Duration("warm", 5*time.Second, "requests before those that count")
	measure := flag.Duration("measure", 5*time.Second, "requests that count")
	flag.Parse()
	err := run(settings{strings.Split(*brokers, ","), *rounds, *clients, *warm, *measure})
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(s settings) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "wherry-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	shop := filepath.Join(dir, "shop")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", shop, "./examples/shop").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.brokers...))
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := wherry.EnsureTopics(ctx, cl, nest.Topics()...); err != nil {
		return err
	}
	results := map[string][]result{}
	names := []string{"NestJS", "Go"}
	for round := range s.rounds {
		for _, name := range names {
			var r result
			if name == "Go" {
				r, err = s.goRound(ctx, shop)
			} else {
				r, err = s.nestRound(ctx)
			}
			if err != nil {
				return fmt.Errorf("round %d, %s: %w", round+1, name, err)
			}
			fmt.Printf("round %d  %-6s  %s\n", round+1, name, r)
			results[name] = append(results[name], r)
		}
	}
	var ratios []float64
	for i := range s.rounds {
		ratios = append(ratios, results["Go"][i].rate()/results["NestJS"][i].rate())
	}
	slices.Sort(ratios)
	for _, name := range names {
		fmt.Printf("median of rates  %-6s  %.0f/s\n", name, median(results[name], result.rate))
	}
	fmt.Printf("Go / NestJS, round by round: median %.2f, of %.2f\n", ratios[len(ratios)/2], ratios)
	return nil
}

func median(all []result, of func(result) float64) float64 {
	var values []float64
	for _, r := range all {
		values = append(values, of(r))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

var services = []string{"orders", "billing", "auth", "notifications"}

func (s settings) nestRound(ctx context.Context) (result, error) {
	// The groups' names are those of the shop: neither has the other's orders to
	// catch up with.
	cmd, err := nest.Shop(ctx, s.brokers, services, "PORT=0", "LIMITS=off", "SHUTDOWN_HOOKS=on", "GROUP_POSTFIX=")
	if err != nil {
		return result{}, err
	}
	return s.round(ctx, cmd, nest.Listening, nest.Joined, nest.Joins(services...))
}

func (s settings) goRound(ctx context.Context, shop string) (result, error) {
	cmd := exec.CommandContext(ctx, shop, "-http", "127.0.0.1:0", "-brokers", strings.Join(s.brokers, ","), "-limits", "off")
	return s.round(ctx, cmd, `shop: starting.* http=(\S+)`, `shop: ready`, 1)
}

// round starts a shop, waits until it is ready, loads it and stops it.
func (s settings) round(ctx context.Context, cmd *exec.Cmd, address, ready string, n int) (r result, err error) {
	p, err := nest.Start(cmd)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	start, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	found, err := p.Await(start, address, 1)
	if err != nil {
		return r, err
	}
	if _, err := p.Await(start, ready, n); err != nil {
		return r, err
	}
	l := &load{url: found[1], clients: s.clients}
	if err := l.run(ctx, s.warm); err != nil {
		return r, fmt.Errorf("warming up: %w", err)
	}
	warm := len(l.ids)
	l.latencies = nil
	begun := time.Now()
	if err := l.run(ctx, s.measure); err != nil {
		return r, err
	}
	r = result{orders: len(l.ids) - warm, took: time.Since(begun), latencies: l.latencies}
	if r.paid, err = l.allPaid(ctx, begun); err != nil {
		return r, err
	}
	p.Stop(syscall.SIGTERM)
	r.cpu = p.CPU() / time.Duration(len(l.ids))
	return r, nil
}
