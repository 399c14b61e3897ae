package wherry_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The programs in the README are Examples, which the test suite runs: the one with
// func Example as it stands there, of the others each paragraph.
func TestReadme_ItsProgramsAreExamples(t *testing.T) {
	t.Parallel()
	programs := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(readPage(t, "README.md"), -1)
	require.NotEmpty(t, programs)
	require.True(t, slices.ContainsFunc(programs, func(program []string) bool {
		return strings.Contains(program[1], "func Example() {") && strings.Contains(readPage(t, "example_test.go"), program[1])
	}), "the first program is not that of example_test.go")
	files, err := filepath.Glob("example*_test.go")
	require.NoError(t, err)
	var examples strings.Builder
	for _, name := range files {
		examples.WriteString(readPage(t, name))
	}
	for _, program := range programs {
		for paragraph := range strings.SplitSeq(strings.TrimSpace(program[1]), "\n\n") {
			inFunction := regexp.MustCompile(`(?m)^(.)`).ReplaceAllString(paragraph, "\t$1")
			require.True(t, strings.Contains(examples.String(), inFunction) || strings.Contains(examples.String(), paragraph),
				"no Example has this:\n%s", paragraph)
		}
	}
}

// The links of the Markdown pages lead to files, and headings, that are there, and
// what the pages run is there too.
func TestReadme_ItsLinksAndCommandsAreThere(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]+))?\)`)
	command := regexp.MustCompile(`(?:go run |^)(\./[a-z/]+|scripts/[a-z-]+|\.ci/[a-z]+)`)
	pages := 0
	require.NoError(t, filepath.WalkDir(".", func(page string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			if page != "." && strings.HasPrefix(entry.Name(), ".") {
				return fs.SkipDir // .git, data folders
			}
			return err
		}
		if filepath.Ext(page) != ".md" {
			return nil
		}
		pages++
		text := readPage(t, page)
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			to := page
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(page), m[1])
			}
			require.FileExists(t, to, page)
			if m[2] != "" {
				require.Contains(t, anchors(readPage(t, to)), m[2], "%s has no such heading, to which %s links", to, page)
			}
		}
		for line := range strings.Lines(text) {
			for _, m := range command.FindAllStringSubmatch(line, -1) {
				_, err := os.Stat(m[1])
				require.NoError(t, err, page)
			}
		}
		return nil
	}))
	require.Greater(t, pages, 5)
}

// anchors are those that GitHub gives the headings of a page.
func anchors(page string) (all []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(page, -1) {
		plain := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, strings.ReplaceAll(plain, " ", "-"))
	}
	return all
}

// CONTRIBUTING names each module that go.mod requires, with its reason.
func TestContributing_NamesEachDependency(t *testing.T) {
	t.Parallel()
	_, dependencies, found := strings.Cut(readPage(t, "CONTRIBUTING.md"), "## Dependencies")
	require.True(t, found)
	dependencies, _, _ = strings.Cut(dependencies, "\n## ")
	var named []string
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(dependencies, -1) {
		named = append(named, "/"+strings.TrimPrefix(m[1], "/"))
	}
	direct := regexp.MustCompile(`(?m)^\t(\S+) v\S+$`).FindAllStringSubmatch(readPage(t, "go.mod"), -1)
	require.NotEmpty(t, direct)
	for _, m := range direct {
		require.True(t, slices.ContainsFunc(named, func(name string) bool { return strings.HasSuffix("/"+m[1], name) }),
			"%s is not among the dependencies of CONTRIBUTING.md", m[1])
	}
}

// What CONTRIBUTING's map of the house shows is there.
func TestContributing_ItsMapIsThatOfTheHouse(t *testing.T) {
	t.Parallel()
	_, house, found := strings.Cut(readPage(t, "CONTRIBUTING.md"), "## The map of the house\n\n```\n")
	require.True(t, found)
	house, _, _ = strings.Cut(house, "```")
	const column = 28 // where the descriptions begin
	shown := 0
	for line := range strings.Lines(house) {
		for _, name := range strings.Fields(line[:column]) {
			_, err := os.Stat(name)
			require.NoError(t, err)
			shown++
		}
	}
	require.Greater(t, shown, 20)
}

// readPage returns a file of the repository, with the line ends of Unix.
func readPage(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")))
}
