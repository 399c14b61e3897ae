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
	// exit code 2, a partialError 3, flag.ErrHelp 0, a codeError its own, any
	// other error 1.
	run func(ctx context.Context, args []string, stdout, stderr io.Writer) error
}

// commands returns all subcommands, in the order of the help.
func commands() []command {
	return []command{
		brokerCommand,
		dlqCommand,
		sagaCommand,
		doctorCommand,
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

// partialError says that the work was done but for some of it.
type partialError struct{ text string }

func (e *partialError) Error() string { return e.text }

// codeError is an error with an exit code of its own. Without an err all has
// been said.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *codeError) Unwrap() error { return e.err }

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
		name, args = args[0], append(args[1:], "-help")
	}
	return exitCode(choose(ctx, commands(), "", name, args, stdout, stderr), stderr)
}

// choose runs one of several commands. within is the name of the command that
// they belong to, with a space, or empty.
func choose(ctx context.Context, among []command, within, name string, args []string, stdout, stderr io.Writer) error {
	for _, c := range among {
		if c.name == name {
			return c.run(ctx, args, stdout, stderr)
		}
	}
	return &usageError{text: fmt.Sprintf("there is no command %q", within+name)}
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
		say(stderr, "wherry: %s: see \"wherry help\"\n", printable(err.Error()))
		return 2
	}
	coded, hasCode := errors.AsType[*codeError](err)
	if hasCode && coded.err == nil {
		return coded.code
	}
	say(stderr, "wherry: %s\n", printable(strings.ReplaceAll(err.Error(), "\n", "; ")))
	if hasCode {
		return coded.code
	}
	if _, partial := errors.AsType[*partialError](err); partial {
		return 3
	}
	return 1
}

// say writes for people: where nobody can read it there is nobody to tell.
func say(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

// help writes the list of commands.
func help(w io.Writer) {
	say(w, "wherry works with services over Apache Kafka.\n\nUsage:\n\n  wherry <command> [flags]\n\nCommands:\n\n")
	listCommands(w, commands())
	say(w, "\n\"wherry help <command>\" shows the flags of a command.\n")
}

func listCommands(w io.Writer, all []command) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, c := range all {
		say(table, "  %s\t%s\n", c.name, c.summary)
	}
	_ = table.Flush()
}

// parse parses the flags of the command that flags is named for, which takes
// no arguments beside them. Help goes to stdout, faults and the usage to
// stderr.
func parse(flags *flag.FlagSet, args []string, intro string, stdout, stderr io.Writer) error {
	_, err := parseOperands(flags, nil, nil, args, intro, stdout, stderr)
	return err
}

// many reports whether an operand may stand any number of times.
func many(operand string) bool { return strings.HasSuffix(operand, "...") }

// parseOperands is parse for a command with operands, which may stand before
// and after flags, and with groups of flags that other commands have too: each
// is a FlagSet named by its title. A last operand that ends in "..." stands for
// any number of them. After "--" all are operands.
func parseOperands(flags *flag.FlagSet, groups []*flag.FlagSet, operands, args []string, intro string, stdout, stderr io.Writer) ([]string, error) {
	own := flag.NewFlagSet("", flag.ContinueOnError)
	flags.VisitAll(func(f *flag.Flag) { own.Var(f.Value, f.Name, f.Usage) })
	for _, g := range groups {
		g.VisitAll(func(f *flag.Flag) { flags.Var(f.Value, f.Name, f.Usage) })
	}
	flags.Usage = func() {
		say(flags.Output(), "Usage: wherry %s", flags.Name())
		for _, o := range operands {
			form := " <%s>"
			if many(o) {
				form = " [%s]"
			}
			say(flags.Output(), form, o)
		}
		say(flags.Output(), " [flags]\n\n%s\n\nFlags:\n", intro)
		for _, g := range append([]*flag.FlagSet{own}, groups...) {
			if g.Name() != "" {
				say(flags.Output(), "\n%s\n", g.Name())
			}
			g.SetOutput(flags.Output())
			g.PrintDefaults()
		}
	}
	flags.SetOutput(stderr)
	for _, a := range args {
		if a == "-h" || a == "-help" || a == "--help" {
			flags.SetOutput(stdout)
		}
	}
	var given []string
	for {
		err := flags.Parse(args)
		switch {
		case errors.Is(err, flag.ErrHelp):
			return nil, err
		case err != nil:
			return nil, &usageError{text: err.Error(), told: true}
		}
		rest := flags.Args()
		if len(rest) == 0 {
			break
		}
		take := rest[:1]
		if read := len(args) - len(rest); read > 0 && args[read-1] == "--" {
			take = rest // no flags follow, whatever they look like
		}
		for _, a := range take {
			if len(given) >= len(operands) && (len(operands) == 0 || !many(operands[len(operands)-1])) {
				return nil, &usageError{text: fmt.Sprintf("%s takes no argument %q", flags.Name(), a)}
			}
			given = append(given, a)
		}
		args = rest[len(take):]
	}
	if len(given) < len(operands) && !many(operands[len(given)]) {
		return nil, &usageError{text: fmt.Sprintf("%s needs a <%s>", flags.Name(), operands[len(given)])}
	}
	return given, nil
}
