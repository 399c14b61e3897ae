package main

import (
	"flag"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
)

const selectionTitle = `Selection flags. They narrow each other; those marked + can be given more than once, and
then any of their values will do. Without them all letters are selected that are not decided.`

// selecting is the flags that select letters.
type selecting struct {
	sel           dlq.Selection
	since, until  string
	causes, types values
	at, headers   values
	keys          values
	topics        values
	groups        values
}

// values is a flag that can be given more than once.
type values []string

func (l *values) String() string { return strings.Join(*l, " ") }

func (l *values) Set(text string) error {
	*l = append(*l, text)
	return nil
}

func (s *selecting) flags() *flag.FlagSet {
	f := flag.NewFlagSet(selectionTitle, flag.ContinueOnError)
	f.StringVar(&s.since, "since", "", "failed at that `time` or later: 2h, 3d or 1w ago, 2026-01-31, 2026-01-31T15:04 (local), or RFC 3339")
	f.StringVar(&s.until, "until", "", "failed before that `time`")
	f.Var(&s.causes, "cause", "+ `cause`: failed, permanent, exhausted, undecodable, expired, rejected or panic")
	f.Var(&s.types, "type", "+ `type` of the error, whole")
	f.StringVar(&s.sel.ErrorContains, "error", "", "`part` of the error's text, upper and lower case being the same")
	f.Var(&s.keys, "key", "+ `key` of the record that failed, whole")
	f.Var(&s.headers, "header", "`name=value` of a header of the record that failed; given more than once, all must be there")
	f.Var(&s.topics, "origin", "+ `topic` that the record failed in")
	f.Var(&s.groups, "origin-group", "+ consumer `group` that it failed in")
	f.Var(&s.at, "at", "+ `place` in the dead-letter topic: partition 3, letter 3/17, or letters 3/17-20")
	f.BoolVar(&s.sel.Decided, "decided", false, "also letters that are decided already")
	f.IntVar(&s.sel.Limit, "limit", 0, "no more than so many `letters`")
	return f
}

// selection returns what the flags select. Times that are ago are so from now.
func (s *selecting) selection(now time.Time) (sel dlq.Selection, err error) {
	sel = s.sel
	for _, at := range []struct {
		name, text string
		to         *time.Time
	}{{"since", s.since, &sel.Since}, {"until", s.until, &sel.Until}} {
		if at.text == "" {
			continue
		}
		if *at.to, err = parseTime(at.text, now); err != nil {
			return sel, &usageError{text: "-" + at.name + " " + err.Error()}
		}
	}
	for _, c := range s.causes {
		sel.Causes = append(sel.Causes, wherry.Cause(c))
	}
	for _, text := range s.at {
		o, err := parseOffsets(text)
		if err != nil {
			return sel, &usageError{text: "-at " + err.Error()}
		}
		sel.Offsets = append(sel.Offsets, o)
	}
	for _, h := range s.headers {
		name, value, ok := strings.Cut(h, "=")
		if !ok {
			return sel, &usageError{text: fmt.Sprintf("-header %q: give name=value", h)}
		}
		if sel.Headers == nil {
			sel.Headers = map[string]string{}
		}
		sel.Headers[name] = value
	}
	sel.ErrorTypes, sel.Keys, sel.Topics, sel.Groups = s.types, s.keys, s.topics, s.groups
	if sel.Limit < 0 {
		return sel, &usageError{text: "-limit must not be negative"}
	}
	if !sel.Since.IsZero() && !sel.Until.IsZero() && !sel.Since.Before(sel.Until) {
		return sel, &usageError{text: "-since must be before -until"}
	}
	return sel, nil
}

// layouts are how times can be written, those without a zone in local time.
var layouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly}

// parseTime reads a time, or a duration as the time so long before now.
func parseTime(text string, now time.Time) (time.Time, error) {
	for _, layout := range layouts {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	ago, err := parseDuration(text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q: give a time such as 2026-01-31T15:04 or how long ago it was, such as 90m, 3d or 1w", text)
	}
	return now.Add(-ago), nil
}

// parseDuration is time.ParseDuration for durations that are not negative, and
// with days (24 h) and weeks before its units: 1w2d3h.
func parseDuration(text string) (time.Duration, error) {
	var sum time.Duration
	rest := text
	for _, unit := range []struct {
		letter string
		is     time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		number, after, ok := strings.Cut(rest, unit.letter)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 31)
		if err != nil || time.Duration(n) > (math.MaxInt64-sum)/unit.is {
			return 0, fmt.Errorf("duration %q", text)
		}
		sum, rest = sum+time.Duration(n)*unit.is, after
		if rest == "" {
			return sum, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > math.MaxInt64-sum {
		return 0, fmt.Errorf("duration %q", text)
	}
	return sum + d, nil
}

// parseOffsets reads a place: a partition, one letter of it, or the letters
// from one to another, both included.
func parseOffsets(text string) (o dlq.Offsets, err error) {
	wrong := fmt.Errorf("%q: give a partition, such as 3, a letter, such as 3/17, or letters, such as 3/17-20 or 3/17-", text)
	number := func(text string, bits int) (n int64) {
		u, parseErr := strconv.ParseUint(text, 10, bits)
		if parseErr != nil {
			err = wrong
		}
		return int64(u)
	}
	partition, offsets, one := strings.Cut(text, "/")
	o.Partition = int32(number(partition, 31))
	if !one {
		return o, err
	}
	from, to, several := strings.Cut(offsets, "-")
	o.From = number(from, 62)
	switch {
	case !several:
		o.To = o.From + 1
	case to != "":
		o.To = number(to, 62) + 1
	}
	if o.To != 0 && o.To <= o.From {
		err = wrong
	}
	return o, err
}
