package sagatest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/wherry-go/wherry/saga"
)

// Shape pins a Definition: it compares [saga.Definition.Shape], all of it that sagas
// in flight rest on, with a file. An edit that changes it fails the test, which
// says what to do: sagas that were started before the edit would go on with steps
// that they do not know. With SAGATEST_UPDATE=1 the file is written, see
// [Saga.Golden].
func Shape[S any](t testing.TB, d saga.Definition[S], path string) {
	t.Helper()
	if err := d.Check(); err != nil {
		t.Fatalf("sagatest: %v", err)
	}
	shape := d.Shape()
	how, ok := golden(t, path, shape)
	if ok {
		return
	}
	was, now := versionOf(path, shape)
	advice := fmt.Sprintf(`Sagas of version %[1]s may be in flight, and would go on with the changed Definition.
Give the changed one Version %[2]s and a file of its own, and leave the old one, unchanged, beside it in
Engine.Definitions until no saga of it is left (wherry saga ls). If none was ever started, write the file anew with
SAGATEST_UPDATE=1.`, was, higher(now))
	if was != now {
		advice = fmt.Sprintf(`The file is that of version %s, and the Definition has Version %s: pin it in a file of its own, and keep this one with
the old Definition, until no saga of it is left.`, was, now)
	}
	t.Fatalf("sagatest: saga %s is not as in %s\n%s\n\n%s\n\nIt is now:\n%s", d.Name, path, how, advice, strings.TrimSpace(shape))
}

var version = regexp.MustCompile(`(?m)^saga \S+ version (\d+)$`)

// versionOf returns the versions that a file and a shape say they are of.
func versionOf(path, shape string) (was, now string) {
	of := func(text string) string {
		if m := version.FindStringSubmatch(text); m != nil {
			return m[1]
		}
		return "?"
	}
	return of(read(path)), of(shape)
}

// higher is the version after one.
func higher(v string) string {
	n, err := strconv.Atoi(v)
	if err != nil {
		return "that is higher"
	}
	return strconv.Itoa(n + 1)
}
