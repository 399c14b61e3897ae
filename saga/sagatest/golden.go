package sagatest

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Golden compares the transcript, all that has happened, with a file. With
// SAGATEST_UPDATE=1 in the environment it writes the file, to be reviewed; so it
// does with the flag -update, where the test's package has one.
func (s *Saga[S]) Golden(path string) {
	s.t.Helper()
	if at, ok := golden(s.t, path, s.transcript()); !ok {
		s.fail("the saga did not go as in %s\n%s\nIf it should be so now, write it anew with SAGATEST_UPDATE=1, and review it.", path, at)
	}
}

// updating reports whether golden files are to be written.
func updating() bool {
	if os.Getenv("SAGATEST_UPDATE") == "1" {
		return true
	}
	f := flag.Lookup("update") // the package's own: a second one of that name would panic
	return f != nil && f.Value.String() == "true"
}

// golden compares a text with a file, or writes it. Where they differ it says how.
func golden(t testing.TB, path, got string) (how string, ok bool) {
	t.Helper()
	if updating() {
		if err := write(path, got); err != nil {
			t.Fatalf("sagatest: %v", err)
		}
		t.Logf("sagatest: wrote %s", path)
		return "", true
	}
	want, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("sagatest: %s does not exist: write it with SAGATEST_UPDATE=1 go test, and review it. It would be:\n\n%s", path, got)
	}
	if err != nil {
		t.Fatalf("sagatest: %v", err)
	}
	return difference(strings.ReplaceAll(string(want), "\r\n", "\n"), got) // git may turn one into the other
}

func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o666)
}

// difference shows the first lines in which two texts differ.
func difference(want, got string) (how string, same bool) {
	if want == got {
		return "", true
	}
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	n := 0
	for n < len(w) && n < len(g) && w[n] == g[n] {
		n++
	}
	line := func(all []string) string {
		if n < len(all) {
			return all[n]
		}
		return "(the end)"
	}
	return fmt.Sprintf("line %d:\n  want %s\n  but  %s", n+1, strings.TrimSpace(line(w)), strings.TrimSpace(line(g))), false
}

// read returns a file's text, "" where it cannot be read.
func read(path string) string {
	b, _ := os.ReadFile(path) //nolint:gosec // the test names it
	return string(b)
}
