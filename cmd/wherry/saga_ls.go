package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wherry-go/wherry/saga"
)

const sagaListIntro = `Lists the sagas of a name that have not ended, the oldest first, from the state topic:
no engine is asked. On a terminal lines are cut to its width.

  wherry saga ls order -phase parked -phase quarantined
  wherry saga ls order -all -since 1d
  wherry saga ls order -summary
  wherry saga ls order -stuck -json | jq -r .id`

const sagaSelectionTitle = `Selection flags. They narrow each other; those marked + can be given more than once, and
then any of their values will do.`

// sagaSelecting is the flags that select sagas.
type sagaSelecting struct {
	f            saga.Filter
	phases       values
	since, until string
	all          bool
}

func (s *sagaSelecting) flags() *flag.FlagSet {
	f := flag.NewFlagSet(sagaSelectionTitle, flag.ContinueOnError)
	f.BoolVar(&s.all, "all", false, "also those that have ended")
	f.Var(&s.phases, "phase", "+ `phase`: "+strings.Join(slices.Sorted(maps.Keys(phases())), ", "))
	f.BoolVar(&s.f.Stuck, "stuck", false, "only those that are stuck")
	f.BoolVar(&s.f.Paused, "paused", false, "only those that are paused")
	f.StringVar(&s.f.Step, "step", "", "`step` that is in hand")
	f.IntVar(&s.f.Version, "version", 0, "`version` of the definition")
	f.StringVar(&s.since, "since", "", "began at that `time` or later: 2h, 3d or 1w ago, 2026-01-31, 2026-01-31T15:04 (local), or RFC 3339")
	f.StringVar(&s.until, "until", "", "began before that `time`")
	return f
}

// phases are those that there are, by their names.
func phases() map[string]saga.Phase {
	all := map[string]saga.Phase{}
	for p := saga.Early; p <= saga.Undone; p++ {
		all[p.String()] = p
	}
	return all
}

// filter returns what the flags select. Times that are ago are so from now.
func (s *sagaSelecting) filter(now time.Time) (f saga.Filter, err error) {
	f = s.f
	for _, name := range s.phases {
		p, ok := phases()[name]
		if !ok {
			return f, &usageError{text: fmt.Sprintf("-phase %q: give one of %s", name, strings.Join(slices.Sorted(maps.Keys(phases())), ", "))}
		}
		f.Phases = append(f.Phases, p)
	}
	f.Open = !s.all && len(f.Phases) == 0
	for _, at := range []struct {
		name, text string
		to         *time.Time
	}{{"since", s.since, &f.Since}, {"until", s.until, &f.Until}} {
		if at.text == "" {
			continue
		}
		if *at.to, err = parseTime(at.text, now); err != nil {
			return f, &usageError{text: "-" + at.name + " " + err.Error()}
		}
	}
	return f, nil
}

// runSagaList is "wherry saga ls".
func runSagaList(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var (
		conn    connection
		which   sagaSelecting
		flags   = flag.NewFlagSet("saga ls", flag.ContinueOnError)
		asJSON  = flags.Bool("json", false, "write one JSON object for each saga and line")
		summary = flags.Bool("summary", false, "count all there are, by phase and version")
	)
	names, err := parseOperands(flags, []*flag.FlagSet{which.flags(), conn.flags()}, []string{"name"}, args, sagaListIntro, stdout, stderr)
	if err != nil {
		return err
	}
	f, err := which.filter(time.Now())
	if err != nil {
		return err
	}
	i, done, err := conn.inspect(ctx, names[0], stderr)
	if err != nil {
		return err
	}
	defer done()
	if *summary {
		return countSagas(ctx, i, *asJSON, stdout)
	}
	var all []saga.Snapshot
	var faults []error
	for s, err := range i.List(ctx, f) {
		switch {
		case err != nil && s.ID == "":
			return err
		case err != nil:
			faults = append(faults, err)
			say(stderr, "wherry: %s\n", printable(err.Error()))
		default:
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(a, b saga.Snapshot) int { return a.Began.Compare(b.Began) })
	if err := listSagas(all, *asJSON, stdout); err != nil {
		return err
	}
	switch {
	case len(all) > 0 || *asJSON:
	case f.Open:
		say(stderr, "wherry: no saga of %s is under way, by these flags: -all lists those that have ended, too\n", names[0])
	default:
		say(stderr, "wherry: there is no such saga of %s\n", names[0])
	}
	if len(faults) > 0 {
		return &partialError{fmt.Sprintf("%d sagas cannot be read", len(faults))}
	}
	return nil
}

func listSagas(all []saga.Snapshot, asJSON bool, stdout io.Writer) error {
	if asJSON {
		lines := jsonTo(stdout)
		for _, s := range all {
			if err := lines.Encode(sagaJSON(s)); err != nil {
				return err // nobody reads on
			}
		}
		return nil
	}
	out := newTable(stdout, "ID", "PHASE", "STEP", "BEGAN", "NEXT", "WHY")
	for _, s := range all {
		if err := out.row(s.ID, phaseText(s), inHand(s), clock(s.Began), next(s), reason(s)); err != nil {
			return err
		}
	}
	return out.flush()
}

func phaseText(s saga.Snapshot) string {
	text := s.Phase.String()
	if s.Stuck {
		text += ", stuck"
	}
	if s.Paused {
		text += ", paused"
	}
	return text
}

// inHand are the steps in hand, and which attempt it is.
func inHand(s saga.Snapshot) string {
	var all []string
	for _, r := range s.Reason().Steps {
		text := r.Step
		if r.Undo {
			text = "undo " + text
		}
		if r.Attempt > 1 {
			text += fmt.Sprintf(" (%d)", r.Attempt)
		}
		all = append(all, text)
	}
	return cmp.Or(strings.Join(all, ", "), "-")
}

func next(s saga.Snapshot) string {
	if s.Next.IsZero() {
		return "-"
	}
	return clock(s.Next)
}

// reason is why a saga is where it is, if there is something wrong.
func reason(s saga.Snapshot) string {
	if s.Why != "" {
		return s.Why
	}
	for _, r := range s.Reason().Steps {
		if r.Last != "" {
			return r.Last
		}
	}
	return ""
}

func countSagas(ctx context.Context, i *saga.Inspector, asJSON bool, stdout io.Writer) error {
	c, err := i.Count(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return jsonTo(stdout).Encode(sagaCountsJSON(c))
	}
	total := 0
	for _, n := range c.Phases {
		total += n
	}
	say(stdout, "%s\n\nby phase\n", number(total, "saga"))
	for _, p := range slices.Sorted(maps.Keys(c.Phases)) {
		say(stdout, "%7d %v\n", c.Phases[p], p)
	}
	say(stdout, "\nby version\n")
	for _, v := range slices.Sorted(maps.Keys(c.Versions)) {
		say(stdout, "%7d version %d\n", c.Versions[v], v)
	}
	say(stdout, "\n%7d stuck\n%7d paused\n", c.Stuck, c.Paused)
	if c.Unreadable > 0 {
		say(stdout, "%7d unreadable\n", c.Unreadable)
	}
	if !c.Oldest.IsZero() {
		say(stdout, "\nThe oldest that has not ended began %s.\n", clock(c.Oldest))
	}
	return nil
}
