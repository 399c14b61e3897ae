// Command with runs a command beside a real Apache Kafka:
//
//	go run ./internal/apache/with [-nodes 1|3] -- go test ./...
//
// It starts a cluster, runs the command with KAFKATEST_BROKERS set to its
// addresses, passes SIGINT and SIGTERM on, stops the cluster and exits with the
// command's code. An error of its own is code 125.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/wherry-go/wherry/internal/apache"
)

// failed is the code of an error that is not the command's, as that of env and
// timeout in the GNU tools.
const failed = 125

func main() {
	nodes := flag.Int("nodes", 1, "number of Kafka nodes, 1 or 3")
	heap := flag.Int("heap", 0, "heap of each node in MB, 0 for the default")
	flag.Usage = func() {
		_, _ = fmt.Fprintln(flag.CommandLine.Output(), "usage: with [-nodes 1|3] [-heap MB] -- COMMAND ARGS…")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(failed)
	}
	code, err := run(&apache.Cluster{Nodes: *nodes, HeapMB: *heap}, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "with:", err)
	}
	os.Exit(code)
}

// run runs the command beside the cluster and returns its code.
func run(cluster *apache.Cluster, command []string) (code int, err error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	begin := time.Now()
	go func() { ended <- cluster.Run(ctx) }()
	stop := func(err error) error {
		cancel()
		return errors.Join(err, <-ended)
	}

	select {
	case err := <-ended:
		cancel()
		return failed, err
	case s := <-signals:
		return failed, stop(fmt.Errorf("%v while the cluster started", s))
	case <-cluster.Ready():
	}
	brokers := strings.Join(cluster.Brokers(), ",")
	fmt.Fprintf(os.Stderr, "with: Apache Kafka at %s, ready after %v\n", brokers, time.Since(begin).Round(time.Millisecond))

	//nolint:noctx // the command ends by itself or by a signal
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "KAFKATEST_BROKERS="+brokers)
	if err := cmd.Start(); err != nil {
		return failed, stop(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s) // fails only when it has ended
		case err := <-ended:
			// Without its cluster the command would only run into time-outs.
			cancel()
			_ = cmd.Process.Signal(syscall.SIGTERM)
			return failed, errors.Join(err, <-exited)
		case err := <-exited:
			if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
				return failed, stop(err)
			}
			err = stop(nil)
			code := cmd.ProcessState.ExitCode()
			if code < 0 {
				return failed, errors.Join(fmt.Errorf("the command ended by %v", cmd.ProcessState), err)
			}
			if code == 0 && err != nil {
				code = failed
			}
			return code, err
		}
	}
}
