package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// command is a subcommand of wherry. Each stands in a file of its own and in
// the table below.
type command struct {
	name    string
	summary string // one line, for the list of commands
	// run does the work until it is done or ctx is. A usageError makes the
	// exit code 2, flag.ErrHelp 0, any other error 1.
	run func(ctx context.Context, args []string, stdout, stderr io.Writer) error
}

// commands returns all subcommands, in the order of the help.
func commands() []command {
	return []command{
		brokerCommand,
		versionCommand,
	}
}

// usageError is the error of a wrong call. The flag package has told the user
// already where told is true.
type usageError struct {
	text string
	told bool
}

func (e *usageError) Error() string { return e.text }

// run runs the subcommand that args name and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		help(stderr)
		return 2
	}
	name, args := args[0], args[1:]
	switch name {
	case "help", "-h", "-help", "--help":
		if len(args) == 0 {
			help(stdout)
			return 0
		}
		name, args = args[0], []string{"-help"}
	}
	for _, c := range commands() {
		if c.name == name {
			return exitCode(c.run(ctx, args, stdout, stderr), stderr)
		}
	}
	return exitCode(&usageError{text: fmt.Sprintf("there is no command %q", name)}, stderr)
}

// exitCode tells the user of err, in one line, and returns the exit code.
func exitCode(err error, stderr io.Writer) int {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	usage, wrong := errors.AsType[*usageError](err)
	switch {
	case wrong && usage.told:
		return 2
	case wrong:
		say(stderr, "wherry: %v: see \"wherry help\"\n", err)
		return 2
	}
	say(stderr, "wherry: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
	return 1
}

// say writes for people: where nobody can read it there is nobody to tell.
func say(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

// help writes the list of commands.
func help(w io.Writer) {
	say(w, "wherry works with services over Apache Kafka.\n\nUsage:\n\n  wherry <command> [flags]\n\nCommands:\n\n")
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, c := range commands() {
		say(table, "  %s\t%s\n", c.name, c.summary)
	}
	_ = table.Flush()
	say(w, "\n\"wherry help <command>\" shows the flags of a command.\n")
}

// parse parses the flags of the command that flags is named for. No command
// takes arguments beside them. Help goes to stdout, faults and the usage to
// stderr.
func parse(flags *flag.FlagSet, args []string, intro string, stdout, stderr io.Writer) error {
	flags.Usage = func() {
		say(flags.Output(), "Usage: wherry %s [flags]\n\n%s\n\nFlags:\n", flags.Name(), intro)
		flags.PrintDefaults()
	}
	flags.SetOutput(stderr)
	for _, a := range args {
		if a == "-h" || a == "-help" || a == "--help" {
			flags.SetOutput(stdout)
		}
	}
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil:
		return &usageError{text: err.Error(), told: true}
	case flags.NArg() > 0:
		return &usageError{text: fmt.Sprintf("%s takes no argument %q", flags.Name(), flags.Arg(0))}
	}
	return nil
}
