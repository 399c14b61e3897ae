package main

import (
	"context"
	"flag"
	"io"
	"log/slog"
)

var dlqCommand = command{
	name:    "dlq",
	summary: "list, show, replay, park and discard dead letters",
	run:     runDLQ,
}

const dlqIntro = `Works with the dead letters of a topic, whoever wrote them: wherry, Spring, Kafka
Connect, Kafka Streams and others. What is decided about a letter stands in the
topic's ledger, <topic>.ledger; the dead letters themselves are not changed.

Usage:

  wherry dlq <command> <topic> [flags]

Commands:

`

const dlqExamples = `
"wherry help dlq <command>" shows the flags of a command. For example:

  wherry dlq ls billing.dlq                              what waits for a decision
  wherry dlq ls billing.dlq -summary                     how many, by cause, type, topic, group and age
  wherry dlq show billing.dlq 0/17                       all about one
  wherry dlq replay billing.dlq -since 2h -dry-run       what a replay would do
  wherry dlq replay billing.dlq -since 2h -rate 50       do it, 50 in a second
  wherry dlq replay billing.dlq -at 0/17 -group billing  one, to one consumer group alone
  wherry dlq park billing.dlq -cause undecodable         put aside what no replay can mend
  wherry dlq discard billing.dlq -key o-1 -why "paid by hand"

Exit codes: 0 all was done, 1 an error or an early end, 2 a wrong call, 3 some
letters failed and stay undecided: they are named on standard error.
`

// dlqCommands are the subcommands of "wherry dlq".
func dlqCommands() []command {
	return []command{
		{"ls", "list letters, or count them", runList},
		{"show", "show one letter with its headers, value and stack", runShow},
		{"replay", "copy letters to the topics that their records failed in", replayCommand.run},
		{"park", "copy letters as they are to a topic where they wait", parkCommand.run},
		{"discard", "pass letters over from now on", discardCommand.run},
	}
}

// runDLQ is "wherry dlq".
func runDLQ(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		dlqHelp(stderr)
		return &usageError{text: "dlq needs a command", told: true}
	}
	switch args[0] {
	case "-h", "-help", "--help", "help":
		if len(args) == 1 || args[0] != "help" {
			dlqHelp(stdout)
			return flag.ErrHelp
		}
		args = append(args[1:], "-help")
	}
	slog.SetDefault(logger(stderr))
	return choose(ctx, dlqCommands(), "dlq ", args[0], args[1:], stdout, stderr)
}

func dlqHelp(w io.Writer) {
	say(w, "%s", dlqIntro)
	listCommands(w, dlqCommands())
	say(w, "%s", dlqExamples)
}
