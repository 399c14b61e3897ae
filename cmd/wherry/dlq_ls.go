package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"strconv"
	"time"

	"github.com/wherry-go/wherry/dlq"
)

const listIntro = `Lists the dead letters of a topic that are not decided yet: those of a partition
in its order. On a terminal lines are cut to its width.

  wherry dlq ls billing.dlq -since 1d -cause undecodable
  wherry dlq ls billing.dlq -summary
  wherry dlq ls billing.dlq -json | jq -r 'select(.attempts > 3) | .key'`

// runList is "wherry dlq ls".
func runList(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var (
		conn    connection
		which   selecting
		flags   = flag.NewFlagSet("dlq ls", flag.ContinueOnError)
		asJSON  = flags.Bool("json", false, "write one JSON object for each letter and line")
		summary = flags.Bool("summary", false, "count the letters by cause, type, topic, group and age")
	)
	topics, err := parseOperands(flags, []*flag.FlagSet{which.flags(), conn.flags()}, []string{"topic"}, args, listIntro, stdout, stderr)
	if err != nil {
		return err
	}
	sel, err := which.selection(time.Now())
	if err != nil {
		return err
	}
	cl, err := conn.open(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	r := &dlq.Replayer{Client: cl, Topic: topics[0], Select: sel, Logger: logger(stderr)}
	if *summary {
		r.Action, r.DryRun = dlq.Discard, true // which counts, and looks at nothing else
		report, err := r.Run(ctx)
		if err != nil {
			return err
		}
		if *asJSON {
			return jsonTo(stdout).Encode(countsJSON(report.Counts))
		}
		say(stdout, "%d letters\n", report.Selected)
		writeCounts(stdout, report.Counts)
		return nil
	}
	return list(ctx, r, *asJSON, stdout, stderr)
}

func list(ctx context.Context, r *dlq.Replayer, asJSON bool, stdout, stderr io.Writer) error {
	head := []string{"LETTER", "FAILED", "CAUSE", "ORIGIN", "GROUP", "KEY", "TRIES"}
	if r.Select.Decided {
		head = append(head, "DECIDED")
	}
	out := newTable(stdout, append(head, "ERROR")...)
	lines := jsonTo(stdout)
	none := true
	for e, err := range r.List(ctx) {
		none = false
		if bad, ok := errors.AsType[*dlq.LetterError](err); ok {
			say(stderr, "wherry: %s\n", printable(bad.Error()))
		} else if err != nil {
			return err
		}
		if asJSON {
			err = lines.Encode(letterJSON(e))
		} else {
			err = out.row(listRow(e, r.Select.Decided)...)
		}
		if err != nil {
			return err // nobody reads on
		}
	}
	if asJSON {
		return nil
	}
	if none && r.Select.Decided {
		say(stderr, "wherry: there is no such letter in %s\n", r.Topic)
	} else if none {
		say(stderr, "wherry: no letter of %s is undecided, by these flags: -decided lists the others, too\n", r.Topic)
	}
	return out.flush()
}

// listRow is the line of a letter.
func listRow(e dlq.Entry, decided bool) []string {
	key := string(e.Key)
	if e.Key == nil {
		key = "-"
	}
	row := []string{
		place(e.Record.Partition, e.Record.Offset), clock(e.Failed), string(e.Cause), origin(e.Letter), e.Group, key, strconv.Itoa(e.Attempts),
	}
	if decided {
		state := ""
		if d := e.Decision; d != nil {
			state = string(d.Action) + " " + clock(d.At) + " by " + d.By
		}
		row = append(row, state)
	}
	text := e.Error
	if e.ErrorType != "" {
		text = e.ErrorType + ": " + text
	}
	return append(row, text)
}

func place(partition int32, offset int64) string {
	return strconv.Itoa(int(partition)) + "/" + strconv.FormatInt(offset, 10)
}

// origin is where a record failed.
func origin(l *dlq.Letter) string {
	switch {
	case l.Topic == "":
		return "?"
	case l.Offset < 0:
		return l.Topic
	}
	return l.Topic + "/" + place(l.Partition, l.Offset)
}

// clock is a time as people read it: local, to the second.
func clock(t time.Time) string {
	if t.IsZero() {
		return "?"
	}
	return t.Local().Format(time.DateTime)
}
