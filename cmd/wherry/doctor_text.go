package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wherry-go/wherry/cmd/wherry/internal/doctor"
)

const (
	// proseWidth is how wide texts are, where the terminal is not narrower.
	proseWidth = 96
	minProse   = 40
	// maxWhere is how many places of a finding are shown to people.
	maxWhere = 6
)

// prose writes texts in lines that people can read. Its first error is kept.
type prose struct {
	w     io.Writer
	width int
	err   error
}

func newProse(w io.Writer) *prose {
	p := &prose{w: w, width: proseWidth}
	f, _ := w.(*os.File)
	if width, ok := terminal(f); ok {
		p.width = max(minProse, min(width, proseWidth))
	}
	return p
}

// raw writes a line as it is.
func (p *prose) raw(text string) {
	if p.err == nil {
		_, p.err = io.WriteString(p.w, printable(text)+"\n")
	}
}

// space writes an empty line.
func (p *prose) space() {
	if p.err == nil {
		_, p.err = io.WriteString(p.w, "\n")
	}
}

// text writes a text that is broken between words, after a label, and with all
// further lines below its first word.
func (p *prose) text(label, text string) {
	indent := strings.Repeat(" ", utf8.RuneCountInString(label))
	line := label
	for _, word := range strings.Fields(text) {
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > p.width && strings.TrimSpace(line) != "" && line != label {
			p.raw(strings.TrimRight(line, " "))
			line = indent
		}
		if !strings.HasSuffix(line, " ") && line != "" {
			line += " "
		}
		line += word
	}
	p.raw(strings.TrimRight(line, " "))
}

// writeDoctor writes what was looked at and what was found.
func writeDoctor(w io.Writer, f *doctor.Facts, r doctor.Report) error {
	p := newProse(w)
	writeLooked(p, f)
	for _, x := range r.Findings {
		p.space()
		p.text(fmt.Sprintf("%-8s", strings.ToUpper(x.Severity.String())), x.What+" ["+x.Check+"]")
		if len(x.Where) > 0 {
			where := x.Where
			if more := len(where) - maxWhere; more > 0 {
				where = append(append([]string{}, where[:maxWhere]...), fmt.Sprintf("and %d more: -json has all", more))
			}
			p.text("  where ", strings.Join(where, "; "))
		}
		p.text("  why   ", x.Why)
		p.text("  mend  ", x.Mend)
		for _, c := range x.Commands {
			p.raw("          " + c)
		}
	}
	if len(r.Missed) > 0 {
		p.space()
		for _, m := range r.Missed {
			p.text("NOT CHECKED  ", m.What+": "+m.Why)
		}
	}
	p.space()
	p.text("", summary(f, r))
	return p.err
}

// writeLooked writes what was looked at.
func writeLooked(p *prose, f *doctor.Facts) {
	p.raw("Cluster " + f.ClusterID + " at " + f.Bootstrap)
	var up, down, silent []string
	var versions []string
	for _, b := range f.Brokers {
		id := strconv.Itoa(int(b.ID))
		switch {
		case b.Silent != "":
			silent = append(silent, id)
			continue
		case b.Down:
			down = append(down, id)
			continue
		}
		up = append(up, id)
		if b.Version != "" && !slices.Contains(versions, b.Version) {
			versions = append(versions, b.Version)
		}
	}
	brokers := strings.Join(up, ", ")
	if len(down) > 0 {
		brokers += "; down: " + strings.Join(down, ", ")
	}
	if len(silent) > 0 {
		brokers += "; no answer from " + strings.Join(silent, ", ")
	}
	if len(versions) == 1 {
		brokers += "; Kafka " + versions[0]
	}
	p.text("  brokers  ", brokers)
	looked := 0
	for _, t := range f.Topics {
		if t.Exists {
			looked++
		}
	}
	p.text("  topics   ", fmt.Sprintf("%d that may be seen, %d of them looked at", len(f.Seen), looked))
	for i := range f.Groups {
		if g := &f.Groups[i]; g.Exists {
			p.text("  group    ", groupLine(f, g))
		}
	}
	for _, c := range f.Clocks {
		p.text("  clock    ", clockLine(c))
	}
}

func groupLine(f *doctor.Facts, g *doctor.Group) string {
	lag := f.Lag(g)
	line := fmt.Sprintf("%s: %s, %s, %s protocol, lag %d in %s", g.Name, strings.ToLower(g.State), number(len(g.Members), "member"), g.Protocol, lag.Total, number(lag.Partitions, "partition"))
	if g.Assignor != "" {
		line = strings.Replace(line, " protocol", " protocol ("+g.Assignor+")", 1)
	}
	if lag.Most > 0 && lag.Partitions > 1 {
		line += fmt.Sprintf(", %d of it in %s", lag.Most, lag.Where)
	}
	return line
}

func clockLine(c doctor.Clock) string {
	d, way := c.Ahead.Round(time.Millisecond), "ahead of"
	if d < 0 {
		d, way = -d, "behind"
	}
	if c.Ahead.Abs() <= c.Give {
		return fmt.Sprintf("%s has the time of this machine (±%v)", c.Of, c.Give.Round(time.Millisecond))
	}
	return fmt.Sprintf("%s is %v %s this machine (±%v)", c.Of, d, way, c.Give.Round(time.Millisecond))
}

// summary is the last line.
func summary(f *doctor.Facts, r doctor.Report) string {
	text := fmt.Sprintf("%s, %s, %s.", number(r.Count(doctor.Error), "error"), number(r.Count(doctor.Warning), "warning"), number(r.Count(doctor.Note), "note"))
	if r.Count(doctor.Error)+r.Count(doctor.Warning) == 0 {
		text = "Nothing is wrong."
		if n := r.Count(doctor.Note); n > 0 {
			text = "Nothing is wrong; " + number(n, "note") + "."
		}
	}
	if n := len(r.Missed); n > 0 {
		text += " Not checked: " + number(n, "thing") + "."
	}
	if len(f.Groups) == 0 && len(f.Topics) == 0 && unseen(r) == "" {
		text += " No group or topic was named: name some to look at them too (-group, topics)."
	}
	return text
}

func number(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
