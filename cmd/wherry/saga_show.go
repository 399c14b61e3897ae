package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/wherry-go/wherry/saga"
)

const sagaShowIntro = `Shows all about one saga: why it is where it is, its steps, its history and its state.
The engine that has it is asked; with -topic its last record in the state topic is
read instead, for which no engine need run.

  wherry saga show order o-1
  wherry saga show order o-1 -json | jq .state`

const sagaWhyIntro = `Says in a sentence what a saga waits for: for what, since when, which attempt it is, and
when something happens next. Times are UTC.

  wherry saga why order o-1`

const sagaGraphIntro = `Draws the definition of a saga as a flowchart of Mermaid, which GitHub and many editors
show: the newest version, or that of -version. With -id it writes the timeline of
one saga, as text. It reads the state topic.

  wherry saga graph order > order.mmd
  wherry saga graph order -id o-1`

// runSagaShow is "wherry saga show".
func runSagaShow(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var (
		conn   connection
		flags  = flag.NewFlagSet("saga show", flag.ContinueOnError)
		asJSON = flags.Bool("json", false, "write a JSON object")
		topic  = flags.Bool("topic", false, "read the state topic, and ask no engine")
	)
	return withSaga(ctx, &conn, flags, topic, args, sagaShowIntro, stdout, stderr, func(s saga.Snapshot) error {
		if *asJSON {
			out := jsonTo(stdout)
			out.SetIndent("", "  ")
			return out.Encode(sagaJSON(s))
		}
		return showSaga(stdout, s)
	})
}

// runSagaWhy is "wherry saga why".
func runSagaWhy(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var (
		conn  connection
		flags = flag.NewFlagSet("saga why", flag.ContinueOnError)
		topic = flags.Bool("topic", false, "read the state topic, and ask no engine")
	)
	return withSaga(ctx, &conn, flags, topic, args, sagaWhyIntro, stdout, stderr, func(s saga.Snapshot) error {
		say(stdout, "%s\n", printable(s.Reason().String()))
		return nil
	})
}

// withSaga finds the saga that the operands name.
func withSaga(ctx context.Context, conn *connection, flags *flag.FlagSet, topic *bool, args []string, intro string, stdout, stderr io.Writer, f func(saga.Snapshot) error) error {
	given, err := parseOperands(flags, []*flag.FlagSet{conn.flags()}, []string{"name", "id"}, args, intro, stdout, stderr)
	if err != nil {
		return err
	}
	i, done, err := conn.inspect(ctx, given[0], stderr)
	if err != nil {
		return err
	}
	defer done()
	var s saga.Snapshot
	if *topic {
		s, err = inTopic(ctx, i, given[1])
	} else {
		s, err = i.Get(ctx, given[1])
	}
	if err != nil {
		return advise(given[0], err)
	}
	return f(s)
}

// inTopic finds a saga in the state topic.
func inTopic(ctx context.Context, i *saga.Inspector, id string) (found saga.Snapshot, err error) {
	err = fmt.Errorf("saga %s: %q: %w", i.Name, id, saga.ErrNotFound)
	for s, bad := range i.List(ctx, saga.Filter{}) {
		if s.ID == "" || s.ID == id {
			return s, bad
		}
	}
	return found, err
}

// runSagaGraph is "wherry saga graph".
func runSagaGraph(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var (
		conn    connection
		flags   = flag.NewFlagSet("saga graph", flag.ContinueOnError)
		id      = flags.String("id", "", "`id` of the saga whose timeline is wanted")
		version = flags.Int("version", 0, "`version` of the definition; 0 is the newest")
	)
	names, err := parseOperands(flags, []*flag.FlagSet{conn.flags()}, []string{"name"}, args, sagaGraphIntro, stdout, stderr)
	if err != nil {
		return err
	}
	if *id != "" && *version != 0 {
		return &usageError{text: "saga graph: -version is for the definition, -id for one saga: give one of them"}
	}
	i, done, err := conn.inspect(ctx, names[0], stderr)
	if err != nil {
		return err
	}
	defer done()
	if *id != "" {
		s, err := inTopic(ctx, i, *id)
		if err != nil {
			return err
		}
		writeLines(stdout, s.Timeline())
		return nil
	}
	outlines, err := i.Outlines(ctx)
	if err != nil {
		return err
	}
	var known []string
	for n := len(outlines) - 1; n >= 0; n-- {
		if o := outlines[n]; *version == 0 || o.Version == *version {
			writeLines(stdout, o.Mermaid)
			return nil
		}
		known = append(known, strconv.Itoa(outlines[n].Version))
	}
	if len(known) == 0 {
		return fmt.Errorf("no engine of %q has written its definition down: start one", names[0])
	}
	return errors.New("there is no version " + strconv.Itoa(*version) + " of " + names[0] + ", but " + strings.Join(known, ", "))
}

// writeLines writes a text of several lines, each as it can be shown.
func writeLines(w io.Writer, text string) {
	for l := range strings.Lines(text) {
		say(w, "%s\n", printable(strings.TrimRight(l, "\r\n")))
	}
}

// showSaga writes all that is known of a saga.
func showSaga(w io.Writer, s saga.Snapshot) error {
	line := func(name, value string) {
		if value != "" {
			say(w, "%-9s %s\n", name, printable(value))
		}
	}
	line("saga", s.Saga)
	line("id", s.ID)
	line("version", strconv.Itoa(s.Version))
	line("phase", phaseText(s))
	line("began", clock(s.Began))
	if !s.Ended.IsZero() {
		line("ended", clock(s.Ended))
	}
	if !s.Next.IsZero() {
		line("next", clock(s.Next))
	}
	line("step", s.Step)
	line("why", s.Why)
	line("trace", s.Trace)
	say(w, "\n%s\n", printable(s.Reason().String()))
	if len(s.Steps) > 0 {
		say(w, "\n")
		out := newTable(w, "STEP", "STATUS", "ATTEMPT", "BEGAN", "DUE")
		for _, p := range s.Steps {
			status, attempt, began, due := p.Status, "-", "-", "-"
			if p.Doubt {
				status += ", in doubt"
			}
			if p.Attempt > 0 {
				attempt = strconv.Itoa(p.Attempt)
			}
			if !p.Began.IsZero() {
				began = clock(p.Began)
			}
			if !p.Due.IsZero() {
				due = clock(p.Due)
			}
			if err := out.row(p.Step, status, attempt, began, due); err != nil {
				return err
			}
		}
		if err := out.flush(); err != nil {
			return err
		}
	}
	for _, e := range s.Early {
		say(w, "\nevent of %s/%s waits since %s\n", printable(e.Topic), place(e.Partition, e.Offset), clock(e.Came))
	}
	block(w, "history", s.Timeline())
	content(w, "state", s.Raw)
	return nil
}
