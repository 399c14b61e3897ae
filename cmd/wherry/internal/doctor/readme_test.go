package doctor_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/cmd/wherry/internal/doctor"
)

// TestChecks_AreNamedInTheReadmeAndTested reads the names of all checks in the
// source.
func TestChecks_AreNamedInTheReadmeAndTested(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	named := regexp.MustCompile(`(?i)\b(?:check: +|f\.Check, f\.Severity = )"([a-z-]+)"`)
	var tests strings.Builder
	checks := map[string]bool{"offsets-topic": true, "transaction-topic": true} // those of internals
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		if strings.HasSuffix(file, "_test.go") {
			tests.Write(text)
			continue
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			checks[m[1]] = true
		}
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(checks)), doctor.Checks)
	for check := range checks {
		require.Contains(t, string(readme), "`"+check+"`")
		require.Regexp(t, `"(note|warning|error) `+check+`"`, tests.String(), "no row has %s", check)
	}
}
