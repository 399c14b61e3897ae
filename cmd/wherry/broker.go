package main

import (
	"context"
	"flag"
	"io"
	"log/slog"

	"github.com/wherry-go/wherry/internal/embedded"
)

var brokerCommand = command{
	name:    "broker",
	summary: "run a local Kafka, without Docker or Java",
	run:     runBroker,
}

// defaultData is the data folder, in the current one.
const defaultData = ".wherry-broker"

const brokerIntro = `Runs one Kafka broker on this machine until it is stopped, for any Kafka client.
It is for development: one node, no passwords, no encryption. A clean stop
(Ctrl-C) keeps everything. After a kill -9 open transactions are aborted. A
power cut may lose records. A topic is created when a client first asks for it,
and nothing expires unless its topic says so; delete the data folder to start
afresh.`

// runBroker is "wherry broker". Logs go to stderr; stdout says where the
// broker is.
func runBroker(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("broker", flag.ContinueOnError)
	var (
		addr       = flags.String("addr", "127.0.0.1:9092", "`host:port` to listen on; port 0 is a free one")
		advertise  = flags.String("advertise", "", "`host` or host:port that clients are told to connect to; needed to listen on all interfaces (0.0.0.0)")
		data       = flags.String("data", "", "data `folder` (default "+defaultData+" in the current one)")
		memory     = flags.Bool("memory", false, "keep everything in memory, until it stops")
		partitions = flags.Int("partitions", 1, "`number` of partitions of a topic whose creator names none")
		verbose    = flags.Bool("v", false, "also log what is usual, and requests that failed")
	)
	if err := parse(flags, args, brokerIntro, stdout, stderr); err != nil {
		return err
	}
	switch {
	case *memory && *data != "":
		return &usageError{text: "broker: give either -memory or -data, not both"}
	case *partitions < 1:
		return &usageError{text: "broker: -partitions must be at least 1"}
	case !*memory && *data == "":
		*data = defaultData
	}
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	b := &embedded.Broker{
		Dir: *data, Addr: *addr, Advertise: *advertise, Partitions: *partitions, AutoCreate: true,
		Logger: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})),
	}

	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	select {
	case <-b.Ready():
		announce(stdout, b)
	case err := <-ended:
		return err
	}
	return <-ended
}

// announce writes where the broker is and what to try first. Its first line
// begins with "Kafka is at <host:port>,".
func announce(w io.Writer, b *embedded.Broker) {
	where := "its data in " + b.Dir
	if b.Dir == "" {
		where = "its data in memory"
	}
	say(w, `Kafka is at %[1]s, %[2]s. Ctrl-C stops it.

  kcat -b %[1]s -L
  echo hello | kcat -b %[1]s -t greetings -P
  kcat -b %[1]s -t greetings -C -o beginning -e

`, b.Address(), where)
}
