package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/wherry-go/wherry/dlq"
)

// deciding is a command that decides about letters.
type deciding struct {
	name, verb, intro string
	action            dlq.Action
}

var replayCommand = deciding{"replay", "Replay", `Replays dead letters: copies each record that failed, byte for byte, to the topic
that it failed in, and marks the letter in the ledger, so that another run does
not copy it again. A letter that was replayed -max-replays times already is parked
instead. An interrupted replay, also a killed one, is ended by starting it again:
copies and marks are in transactions of the id <topic>.replay, so that consumers
with isolation.level=read_committed see each copy once. Others also see those of
transactions that were aborted.

  wherry dlq replay billing.dlq -since 2h -dry-run
  wherry dlq replay billing.dlq -type '*pay.Timeout' -rate 50
  wherry dlq replay billing.dlq -at 0/17 -group billing
  wherry dlq replay billing.dlq -origin orders -to orders.repaired -yes`, dlq.Replay}

var parkCommand = deciding{"park", "Park", `Parks dead letters: copies each as it is, with its headers, to <topic>.parked, where
it waits for a person, and marks it in the ledger. What is parked is a topic of
dead letters like any.

  wherry dlq park billing.dlq -cause undecodable -why "needs the old schema"
  wherry dlq ls billing.dlq.parked`, dlq.Park}

var discardCommand = deciding{"discard", "Discard", `Discards dead letters: marks them in the ledger, so that they are passed over from
now on. They stay in the topic for as long as it keeps them; "ls -decided" lists
them, and "replay -decided" replays them after all.

  wherry dlq discard billing.dlq -key o-1 -why "paid by hand"
  wherry dlq discard billing.dlq -until 30d`, dlq.Discard}

func (d deciding) run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var (
		conn   connection
		which  selecting
		r      = &dlq.Replayer{Action: d.action, Logger: logger(stderr)}
		flags  = flag.NewFlagSet("dlq "+d.name, flag.ContinueOnError)
		dryRun = flags.Bool("dry-run", false, "only say what would be done")
		yes    = flags.Bool("yes", false, "do it without asking")
		asJSON = flags.Bool("json", false, "write the report as JSON")
	)
	flags.StringVar(&r.Why, "why", "", "`reason`, for the ledger")
	flags.StringVar(&r.By, "by", "", "`who` decides, for the ledger (default user@host)")
	if d.action != dlq.Discard {
		flags.Float64Var(&r.Rate, "rate", 0, "`copies` a second, evenly spread; 0 is no limit")
		flags.StringVar(&r.Parking, "parking", "", "`topic` to park letters in (default <topic>.parked)")
	}
	if d.action == dlq.Replay {
		flags.StringVar(&r.To, "to", "", "`topic` to copy to (default the one that each record failed in)")
		flags.StringVar(&r.Group, "group", "", "consumer `group` that the copies are for: wherry's Consumers of other groups pass them by")
		flags.IntVar(&r.MaxReplays, "max-replays", 3, "`times` that a record may be replayed; -1 is no limit")
		flags.BoolVar(&r.KeepTime, "keep-time", false, "give copies the timestamp of the record that failed; retention may remove them soon")
	}
	topics, err := parseOperands(flags, []*flag.FlagSet{which.flags(), conn.flags()}, []string{"topic"}, args, d.intro, stdout, stderr)
	if err != nil {
		return err
	}
	r.Topic = topics[0]
	if r.Select, err = which.selection(time.Now()); err != nil {
		return err
	}
	if r.Rate < 0 {
		return &usageError{text: "-rate must not be negative"}
	}
	if r.MaxReplays == 0 && d.action == dlq.Replay {
		return &usageError{text: "-max-replays 0 would replay nothing: see \"wherry dlq park\""}
	}
	if _, asked := terminal(os.Stdin); !asked && !*yes && !*dryRun {
		return &usageError{text: fmt.Sprintf("dlq %s: nobody can be asked, standard input is not a terminal: give -yes, or -dry-run to see what would be done", d.name)}
	}
	if r.Client, err = conn.open(ctx); err != nil {
		return err
	}
	defer r.Client.Close()

	if *dryRun || !*yes {
		r.DryRun = true
		report, err := r.Run(ctx)
		if err != nil || *dryRun {
			return d.finish(r, report, err, *asJSON, stdout, stderr)
		}
		if report.Selected == report.Failed { // there is nothing to ask about
			return d.finish(r, report, nil, *asJSON, stdout, stderr)
		}
		writeReport(stderr, r, report)
		if ok, err := ask(ctx, stderr, fmt.Sprintf("%s %d letters?", d.verb, report.Selected-report.Failed)); !ok {
			return err
		}
		r.DryRun, r.Ends = false, report.Ends // what came since was not shown
	}
	show, hide := progressTo(stderr)
	r.Progress = show
	report, err := r.Run(ctx)
	hide()
	return d.finish(r, report, err, *asJSON, stdout, stderr)
}

// finish writes the report and the failures, and returns what the exit code
// depends on.
func (d deciding) finish(r *dlq.Replayer, report dlq.Report, err error, asJSON bool, stdout, stderr io.Writer) error {
	if report.Run == "" {
		return err // it has not begun
	}
	if asJSON {
		if err := jsonTo(stdout).Encode(reportJSON(r, report)); err != nil {
			return err
		}
	} else {
		writeReport(stdout, r, report)
	}
	for _, f := range report.Failures {
		say(stderr, "wherry: %s\n", printable(f.Error()))
	}
	switch {
	case err != nil && ctxEnded(err):
		return fmt.Errorf("ended early, %d letters are done: start it again to go on: %w", report.Replayed+report.Parked+report.Discarded, err)
	case err != nil:
		return err
	case report.Failed > 0 && r.DryRun:
		return &partialError{fmt.Sprintf("%d of %d letters would fail", report.Failed, report.Selected)}
	case report.Failed > 0:
		return &partialError{fmt.Sprintf("%d of %d letters failed and stay undecided", report.Failed, report.Selected)}
	}
	return nil
}

// ask asks a question on the terminal. Only y and yes are yes.
func ask(ctx context.Context, w io.Writer, question string) (bool, error) {
	say(w, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() { // ends with the process, if nobody answers
		text, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(text))
	}()
	select {
	case <-ctx.Done():
		say(w, "\n")
		return false, context.Cause(ctx)
	case text := <-answer:
		if text == "y" || text == "yes" {
			return true, nil
		}
		return false, errors.New("the answer was no, nothing was done")
	}
}
