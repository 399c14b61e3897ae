package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/user"

	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/saga"
)

// sagaVerb is a command that does something to sagas.
type sagaVerb struct {
	name    saga.VerbName
	summary string
	intro   string
	step    bool // whether it is about a step
	asks    bool // whether it cannot be taken back
}

// sagaVerbs are those that there are, in the order of the help.
var sagaVerbs = []sagaVerb{
	{saga.Cancel, "reject the step in hand, and undo what was done", `Cancels sagas, before their pivot: waits for attempts that are out, and for an event that
is awaited, and then undoes what was done, in reverse. "undo" does not wait.

  wherry saga cancel order o-1 -reason "the customer called"`, false, false},
	{saga.Retry, "try the step in hand again now", `Tries the step in hand again now, and counts its attempts from the start again; also
for sagas that are parked, stuck or quarantined. If an attempt is out the step may be
done twice, under the same idempotency key.

  wherry saga retry order o-1 -reason "the bank is open"`, true, false},
	{saga.Skip, "pass over the step in hand", `Passes over the step in hand, doing or undoing, as if it were nothing: what it should
have done is not done.

  wherry saga skip order o-1 -step notify -reason "no address"`, true, false},
	{saga.Complete, "count the step in hand as done, because somebody did it", `Counts the step in hand as done, or as undone, because somebody did it by hand. -state
gives the saga another state from then on.

  wherry saga complete order o-1 -step pay -reason "paid in cash"`, true, false},
	{saga.Undo, "cancel without waiting for attempts that are out", `Undoes sagas now: attempts that are out count as unknown, so that their steps are undone
too. "cancel" waits for them first.

  wherry saga undo order o-1 -reason "fraud" -yes`, false, true},
	{saga.Pause, "begin no further attempts", `Pauses sagas: no further attempt begins; answers and events are still taken in.

  wherry saga pause order o-1 -reason "the warehouse moves"`, false, false},
	{saga.Resume, "end a pause or a quarantine", `Ends a pause, or a quarantine once what was wrong is mended.

  wherry saga resume order o-1 -reason "the warehouse has moved"`, false, false},
	{saga.Purge, "forget a saga at once, whatever it was doing", `Forgets sagas at once, whatever they were doing: nothing is undone, and nobody is told.
For what no other verb can help.

  wherry saga purge order o-1 -reason "test data" -yes`, false, true},
}

func (v sagaVerb) run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var (
		conn   connection
		by     saga.By
		state  string
		flags  = flag.NewFlagSet("saga "+string(v.name), flag.ContinueOnError)
		asJSON = flags.Bool("json", false, "write one JSON object for each saga and line")
		yes    = new(bool)
	)
	flags.StringVar(&by.Reason, "reason", "", "`why`, for the history; required")
	flags.StringVar(&by.Actor, "by", "", "`who`, for the history (default user@host)")
	if v.step {
		flags.StringVar(&by.Step, "step", "", "`step` that is meant; without it the one in hand")
	}
	if v.name == saga.Complete {
		flags.StringVar(&state, "state", "", "the saga's `state` from then on, as its codec writes it, such as JSON")
	}
	if v.asks {
		flags.BoolVar(yes, "yes", false, "do it without asking")
	}
	given, err := parseOperands(flags, []*flag.FlagSet{conn.flags()}, []string{"name", "id..."}, args, v.intro, stdout, stderr)
	if err != nil {
		return err
	}
	name, ids := given[0], given[1:]
	if len(ids) == 0 {
		return &usageError{text: fmt.Sprintf("saga %s needs an <id>", v.name)}
	}
	if by.Reason == "" {
		return &usageError{text: fmt.Sprintf("saga %s needs a -reason: it stands in the history", v.name)}
	}
	if state != "" {
		by.State = []byte(state)
	}
	by.Actor = cmp.Or(by.Actor, userAtHost())
	if v.asks && !*yes {
		if _, terminal := terminal(os.Stdin); !terminal {
			return &usageError{text: fmt.Sprintf("saga %s: nobody can be asked, standard input is not a terminal: give -yes", v.name)}
		}
	}
	i, done, err := conn.inspect(ctx, name, stderr)
	if err != nil {
		return err
	}
	defer done()
	if v.asks && !*yes {
		if ok, err := ask(ctx, stderr, fmt.Sprintf("%s %d sagas of %s?", v.name, len(ids), name)); !ok {
			return err
		}
	}
	return v.do(ctx, i, ids, by, *asJSON, stdout, stderr)
}

// do does it to one after the other.
func (v sagaVerb) do(ctx context.Context, i *saga.Inspector, ids []string, by saga.By, asJSON bool, stdout, stderr io.Writer) error {
	var first error
	failed := 0
	for _, id := range ids {
		err := i.Do(ctx, id, v.name, by)
		if ctx.Err() != nil {
			return fmt.Errorf("ended early, at %q: %w", id, cmp.Or(err, context.Cause(ctx)))
		}
		if asJSON {
			j := jsonVerb{Saga: i.Name, ID: id, Verb: string(v.name), Actor: by.Actor, Reason: by.Reason, Applied: err == nil}
			if err != nil {
				j.Error = err.Error()
			}
			if err := jsonTo(stdout).Encode(j); err != nil {
				return err
			}
		}
		_, refused := errors.AsType[*saga.VerbError](err)
		_, answered := errors.AsType[*reqreply.Error](err) // its record cannot be read, say
		switch {
		case err == nil && !asJSON:
			say(stdout, "%s: %s, by %s\n", printable(id), v.name, printable(by.Actor))
		case err == nil:
		case !refused && !answered: // it would be the same for the others
			return advise(i.Name, err)
		default:
			if failed++; len(ids) > 1 {
				say(stderr, "wherry: %s\n", printable(err.Error()))
			}
			first = cmp.Or(first, err)
		}
	}
	if failed > 0 && len(ids) > 1 {
		return &partialError{fmt.Sprintf("%d of %d sagas refused", failed, len(ids))}
	}
	return first
}

// userAtHost is who runs the command.
func userAtHost() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}
