package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/wherry-go/wherry/dlq"
)

// logger is for what the library tells: what it waits for.
func logger(stderr io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func ctxEnded(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// writeReport writes what was done, or would be.
func writeReport(w io.Writer, r *dlq.Replayer, report dlq.Report) {
	to := "to " + r.To
	if r.To == "" {
		to = "to the topics that the records failed in"
	}
	if r.Group != "" {
		to += ", for group " + r.Group + " alone"
	}
	parked := "to " + cmp.Or(r.Parking, r.Topic+".parked")
	if r.Action == dlq.Replay {
		parked += ": they were replayed too often"
	}
	would := ""
	if r.DryRun {
		would = "would be "
	}
	for _, line := range []struct {
		n    int
		what string
	}{
		{report.Replayed, would + "replayed " + to},
		{report.Parked, would + "parked " + parked},
		{report.Discarded, would + "discarded"},
		{report.Failed, "failed, and stay undecided"},
		{report.Unsettled, "unsettled: all of them are done or none is, another run finds out"},
		{report.Decided, "passed over, decided before"},
	} {
		if line.n > 0 {
			say(w, "%7d %s\n", line.n, printable(line.what))
		}
	}
	if report.Selected == 0 {
		say(w, "No letter is selected, of %d.\n", report.Read)
	}
	if !r.DryRun && report.Selected > 0 {
		why := ""
		if report.Why != "" {
			why = ": " + report.Why
		}
		say(w, "%s\n", printable("by "+report.By+", "+clock(report.Began)+", run "+report.Run+why))
	}
	if r.DryRun && report.Selected > 0 {
		writeCounts(w, report.Counts)
	}
}

// maxCounted is how many values of a kind are shown to people.
const maxCounted = 20

// writeCounts writes counts, the largest first.
func writeCounts(w io.Writer, c dlq.Counts) {
	if c.Newest.IsZero() {
		return
	}
	say(w, "\nfailed from %s to %s\n", clock(c.Oldest), clock(c.Newest))
	causes := map[string]int{}
	for cause, n := range c.Causes {
		causes[string(cause)] = n
	}
	for _, kind := range []struct {
		name   string
		counts map[string]int
	}{{"cause", causes}, {"type", c.ErrorTypes}, {"topic", c.Topics}, {"group", c.Groups}} {
		say(w, "\nby %s\n", kind.name)
		values := slices.SortedFunc(maps.Keys(kind.counts), func(a, b string) int {
			return cmp.Or(cmp.Compare(kind.counts[b], kind.counts[a]), cmp.Compare(a, b))
		})
		for i, v := range values {
			if i == maxCounted {
				say(w, "        and %d more: -json has all\n", len(values)-i)
				break
			}
			say(w, "%7d %s\n", kind.counts[v], printable(cmp.Or(v, "?")))
		}
	}
	say(w, "\nby age\n")
	for i, a := range c.Ages {
		name := "under " + days(a.Under)
		if a.Under == 0 {
			name = "over " + days(c.Ages[i-1].Under)
		}
		if a.Letters > 0 {
			say(w, "%7d %s\n", a.Letters, name)
		}
	}
}

func days(d time.Duration) string {
	if d < 24*time.Hour {
		return strconv.Itoa(int(d/time.Hour)) + "h"
	}
	return strconv.Itoa(int(d/(24*time.Hour))) + "d"
}

// quietProgress is how often progress is told where it is not a terminal.
const quietProgress = 10 * time.Second

// progressTo returns what shows how far a run is, and what ends that: one line
// that is written over on a terminal, and otherwise a line from time to time.
func progressTo(w io.Writer) (show func(dlq.Report), hide func()) {
	f, _ := w.(*os.File)
	_, live := terminal(f)
	shown, last := false, time.Now()
	show = func(r dlq.Report) {
		if !live && time.Since(last) < quietProgress {
			return
		}
		last, shown = time.Now(), true
		end := "\n"
		if live {
			end = "\x1b[K\r"
		}
		say(w, "wherry: %d letters read, %d replayed, %d parked, %d discarded, %d failed, %d passed over, %v%s",
			r.Read, r.Replayed, r.Parked, r.Discarded, r.Failed, r.Decided, r.Took.Round(time.Second), end)
	}
	return show, func() {
		if live && shown {
			say(w, "\x1b[K")
		}
	}
}
