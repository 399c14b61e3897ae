//go:build unix

// Command soak runs the laboratory (internal/crashlab) on three real brokers for
// a time. .ci/soak builds and runs it. Its code is 3 when something was found.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/wherry-go/wherry/internal/crashlab"
)

func main() {
	crashlab.RunChild(crashlab.Subjects())
	minutes := flag.Float64("minutes", 30, "how long, in rounds of about a minute")
	dir := flag.String("dir", "", "folder of its state; required")
	report := flag.String("report", "", "file to write the results to, between its markers")
	plant := flag.String("plant", "", "a fault of internal/planted, which is to be found")
	only := flag.String("only", "", "the one variant of rounds, such as sagas")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := soak(ctx, time.Duration(*minutes*float64(time.Minute)), *dir, *report, *plant, crashlab.Variant(*only))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		if errors.Is(err, crashlab.ErrFound) {
			os.Exit(3)
		}
		os.Exit(1)
	}
}

func soak(ctx context.Context, long time.Duration, dir, report, plant string, only crashlab.Variant) error {
	if dir == "" {
		return errors.New("-dir is missing")
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	s := &crashlab.Soak{For: long, Dir: dir, Report: report, Program: program, Plant: plant, Only: only, Out: os.Stdout}
	return s.Run(ctx)
}
