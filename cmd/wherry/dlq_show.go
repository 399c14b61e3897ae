package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/wherry-go/wherry/dlq"
)

const showIntro = `Shows one dead letter: where its record failed, the error with its stack, what was
decided about it, its key, headers and value. <letter> is its partition and
offset in the dead-letter topic, as "wherry dlq ls" shows them: 0/17.

  wherry dlq show billing.dlq 0/17
  wherry dlq show billing.dlq 0/17 -json | jq -r .value`

// runShow is "wherry dlq show".
func runShow(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var (
		conn   connection
		flags  = flag.NewFlagSet("dlq show", flag.ContinueOnError)
		asJSON = flags.Bool("json", false, "write a JSON object")
	)
	given, err := parseOperands(flags, []*flag.FlagSet{conn.flags()}, []string{"topic", "letter"}, args, showIntro, stdout, stderr)
	if err != nil {
		return err
	}
	at, err := parseOffsets(given[1])
	if err == nil && at.To != at.From+1 {
		err = fmt.Errorf("%q is no letter: give its partition and offset, such as 0/17", given[1])
	}
	if err != nil {
		return &usageError{text: "dlq show " + err.Error()}
	}
	cl, err := conn.open(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	r := &dlq.Replayer{Client: cl, Topic: given[0], Logger: logger(stderr), Select: dlq.Selection{Offsets: []dlq.Offsets{at}, Decided: true}}
	for e, err := range r.List(ctx) {
		if bad, ok := errors.AsType[*dlq.LetterError](err); ok {
			say(stderr, "wherry: %s\n", printable(bad.Error()))
		} else if err != nil {
			return err
		}
		if *asJSON {
			out := jsonTo(stdout)
			out.SetIndent("", "  ")
			return out.Encode(letterJSON(e))
		}
		show(stdout, e)
		return nil
	}
	return fmt.Errorf("topic %s has no letter %s: \"wherry dlq ls %s -decided\" lists those it has", given[0], given[1], given[0])
}

// show writes all that is known of a letter.
func show(w io.Writer, e dlq.Entry) {
	line := func(name, value string) {
		if value != "" {
			say(w, "%-13s %s\n", name, printable(value))
		}
	}
	line("letter", e.Record.Topic+"/"+place(e.Record.Partition, e.Record.Offset))
	line("format", string(e.Format))
	line("origin", origin(e.Letter))
	line("group", e.Group)
	if !e.Timestamp.IsZero() {
		line("produced", clock(e.Timestamp))
	}
	line("cause", string(e.Cause))
	line("type", e.ErrorType)
	if e.Attempts > 0 {
		line("attempts", strconv.Itoa(e.Attempts))
	}
	if !e.FirstFailed.IsZero() {
		line("first failed", clock(e.FirstFailed))
	}
	line("failed", clock(e.Failed))
	if e.Replays > 0 {
		line("replays", strconv.Itoa(e.Replays))
	}
	if d := e.Decision; d != nil {
		line("decided", strings.TrimSpace(fmt.Sprintf("%s %s by %s", d.Action, clock(d.At), d.By)))
		line("why", d.Why)
		if d.To != "" {
			line("copy", d.To+"/"+place(d.ToPartition, d.ToOffset))
		}
		line("run", d.Run)
	}
	block(w, "error", e.Error)
	block(w, "stack", e.Stack)
	if e.Missing {
		say(w, "\nkey and value are not in the letter, but at its origin, if retention has left them there\n")
		return
	}
	if len(e.Headers) > 0 {
		say(w, "\nheaders\n")
		for _, h := range e.Headers {
			say(w, "  %s: %s\n", printable(h.Key), printable(string(h.Value)))
		}
	}
	content(w, "key", e.Key)
	content(w, "value", e.Value)
}

// block writes a text of several lines.
func block(w io.Writer, name, text string) {
	if text == "" {
		return
	}
	say(w, "\n%s\n", name)
	for l := range strings.Lines(text) {
		say(w, "  %s\n", printable(strings.TrimRight(strings.ReplaceAll(l, "\t", "    "), "\r\n")))
	}
}

// content writes bytes: JSON indented, text as it is, others as a hex dump.
func content(w io.Writer, name string, b []byte) {
	var pretty bytes.Buffer
	switch {
	case b == nil:
		say(w, "\n%s (null)\n", name)
	case len(b) == 0:
		say(w, "\n%s (empty)\n", name)
	case json.Indent(&pretty, b, "", "  ") == nil:
		block(w, name, pretty.String())
	case utf8.Valid(b):
		block(w, name, string(b))
	default:
		block(w, name, hex.Dump(b))
	}
}
