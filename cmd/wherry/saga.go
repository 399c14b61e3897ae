package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"

	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/saga"
)

var sagaCommand = command{
	name:    "saga",
	summary: "list and show sagas, and help those that need it",
	run:     runSaga,
}

const sagaIntro = `Works with the sagas of a name, without their code. Lists are read from the state
topic. Questions about a single saga, and verbs, go to the engine that has it, which
must run. A verb is applied once, in the order of the saga's inbox, and is recorded in
its history with who asked and why.

Usage:

  wherry saga <command> <name> [<id>...] [flags]

Commands:

`

const sagaExamples = `
"wherry help saga <command>" shows the flags of a command. For example:

  wherry saga ls order                                   what is under way
  wherry saga ls order -summary                          how many, by phase and version
  wherry saga ls order -stuck -phase parked              what needs an operator
  wherry saga why order o-1                              what one waits for, in a sentence
  wherry saga show order o-1                             all about it: steps, history, state
  wherry saga retry order o-1 -reason "the bank is open"
  wherry saga cancel order o-1 -reason "the customer called"
  wherry saga graph order > order.mmd                    the definition, as Mermaid

Exit codes: 0 all was done, 1 an error or a verb that was refused, 2 a wrong call, 3
of several sagas some refused: they are named on standard error.
`

// sagaCommands are the subcommands of "wherry saga".
func sagaCommands() []command {
	all := []command{
		{"ls", "list sagas, or count them", runSagaList},
		{"show", "show one: steps, history, state", runSagaShow},
		{"why", "say what one waits for, in a sentence", runSagaWhy},
		{"graph", "draw the definition as Mermaid, or one saga's timeline as text", runSagaGraph},
	}
	for _, v := range sagaVerbs {
		all = append(all, command{string(v.name), v.summary, v.run})
	}
	return all
}

// runSaga is "wherry saga".
func runSaga(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		sagaHelp(stderr)
		return &usageError{text: "saga needs a command", told: true}
	}
	switch args[0] {
	case "-h", "-help", "--help", "help":
		if len(args) == 1 || args[0] != "help" {
			sagaHelp(stdout)
			return flag.ErrHelp
		}
		args = append(args[1:], "-help")
	}
	slog.SetDefault(logger(stderr))
	return choose(ctx, sagaCommands(), "saga ", args[0], args[1:], stdout, stderr)
}

func sagaHelp(w io.Writer) {
	say(w, "%s", sagaIntro)
	listCommands(w, sagaCommands())
	say(w, "%s", sagaExamples)
}

// inspect returns who asks about the sagas of a name. The caller closes it.
func (c *connection) inspect(ctx context.Context, name string, stderr io.Writer) (*saga.Inspector, func(), error) {
	cl, err := c.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	return &saga.Inspector{Client: cl, Name: name, Logger: logger(stderr)}, cl.Close, nil
}

// advise says what to do about an error of an Inspector.
func advise(name string, err error) error {
	switch {
	case errors.Is(err, reqreply.ErrNoResponder):
		return fmt.Errorf("%w: no engine of %q runs: start one; \"wherry saga ls %s\" needs none", err, name, name)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: the engine that has it did not answer: look whether it is healthy, and how far it is behind (its group is %s.saga)", err, name)
	}
	return err
}
