package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// printable returns text as it can be shown on a terminal: who writes records
// must not move its cursor. What is not printable is written as in Go.
func printable(text string) string {
	clean := true
	for _, r := range text {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			clean = false
			break
		}
	}
	if clean {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		if unicode.IsPrint(r) && (r != utf8.RuneError || size > 1) {
			b.WriteRune(r)
		} else {
			quoted := strconv.Quote(text[:size])
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		text = text[size:]
	}
	return b.String()
}

// jsonTo returns an encoder of JSON that can be shown on a terminal too.
func jsonTo(w io.Writer) *json.Encoder {
	out := json.NewEncoder(printableJSON{w})
	out.SetEscapeHTML(false)
	return out
}

// printableJSON escapes what is not printable in JSON, which leaves what it
// means as it is: control characters from 0x7f on stand in it as they are
// otherwise. It is given whole values.
type printableJSON struct{ w io.Writer }

func (p printableJSON) Write(b []byte) (int, error) {
	hides := func(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }
	if bytes.ContainsFunc(b, hides) {
		var out []byte
		for _, r := range string(b) {
			switch {
			case !hides(r):
				out = utf8.AppendRune(out, r)
			case r > 0xffff:
				high, low := utf16.EncodeRune(r)
				out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
			default:
				out = fmt.Appendf(out, `\u%04x`, r)
			}
		}
		if _, err := p.w.Write(out); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	return p.w.Write(b)
}

// cut cuts text to a number of characters, and says so.
func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	if width < 1 {
		return ""
	}
	return string([]rune(text)[:width-1]) + "…"
}

const (
	// sampleRows is how many rows are looked at to find how wide columns are:
	// more need not be in memory.
	sampleRows = 200
	// maxColumn is how wide a column may be on a terminal, but for the last.
	maxColumn = 32
	minLast   = 20
)

// table writes aligned columns. On a terminal lines are cut to its width,
// elsewhere nothing is.
type table struct {
	w       io.Writer
	width   int // of the terminal; 0 is none
	head    []string
	rows    [][]string // until widths are known
	widths  []int
	started bool
}

func newTable(w io.Writer, head ...string) *table {
	t := &table{w: w, head: head}
	f, _ := w.(*os.File)
	if width, ok := terminal(f); ok {
		t.width = max(width, minLast)
	}
	return t
}

// row adds a row. Its error is that of writing.
func (t *table) row(cells ...string) error {
	for i := range cells {
		cells[i] = printable(cells[i])
	}
	if t.started {
		return t.write(cells)
	}
	if t.rows = append(t.rows, cells); len(t.rows) < sampleRows {
		return nil
	}
	return t.flush()
}

// flush writes what was kept back. Without a row there is no head either.
func (t *table) flush() error {
	if t.started || len(t.rows) == 0 {
		return nil
	}
	t.started = true
	t.widths = make([]int, len(t.head))
	t.rows = append([][]string{t.head}, t.rows...)
	for _, row := range t.rows {
		for i, cell := range row {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
			if t.width > 0 {
				t.widths[i] = min(t.widths[i], maxColumn)
			}
		}
	}
	for _, row := range t.rows {
		if err := t.write(row); err != nil {
			return err
		}
	}
	t.rows = nil
	return nil
}

func (t *table) write(cells []string) error {
	var b strings.Builder
	last := len(cells) - 1
	for i, cell := range cells {
		if i == last {
			b.WriteString(cell)
			break
		}
		if t.width > 0 {
			cell = cut(cell, t.widths[i])
		}
		b.WriteString(cell)
		b.WriteString(strings.Repeat(" ", max(0, t.widths[i]-utf8.RuneCountInString(cell))+2))
	}
	line := strings.TrimRight(b.String(), " ")
	if t.width > 0 {
		line = cut(line, t.width)
	}
	_, err := io.WriteString(t.w, line+"\n")
	return err
}
