package docs_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}

// The code of the page is compiled and run: each paragraph of it, indented or not,
// stands in one of these files.
func TestSagasPage_ItsCodeIsCompiled(t *testing.T) {
	t.Parallel()
	var code strings.Builder
	for _, name := range []string{"sagas_example_test.go", "../saga/example_test.go", "../examples/shop/orders/saga.go"} {
		code.WriteString(page(t, name))
	}
	programs := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(page(t, "sagas.md"), -1)
	require.NotEmpty(t, programs)
	for _, program := range programs {
		for paragraph := range strings.SplitSeq(strings.TrimRight(program[1], "\n"), "\n\n") {
			found := strings.Contains(code.String(), paragraph)
			for range 4 { // parts of a literal
				paragraph = regexp.MustCompile(`(?m)^(.)`).ReplaceAllString(paragraph, "\t$1")
				found = found || strings.Contains(code.String(), paragraph)
			}
			require.True(t, found, "no file has this:\n%s", paragraph)
		}
	}
}

var mermaid = regexp.MustCompile("(?s)```mermaid\n.*?```\n")

// SAGATEST_UPDATE=1 writes it.
func TestSagasPage_ItsDiagramIsThatOfTheDefinition(t *testing.T) {
	t.Parallel()
	text, diagram := page(t, "sagas.md"), "```mermaid\n"+checkout.Mermaid()+"```\n"
	if os.Getenv("SAGATEST_UPDATE") == "1" {
		drawn := mermaid.ReplaceAllLiteralString(text, diagram)
		require.NoError(t, os.WriteFile("sagas.md", []byte(drawn), 0o600))
		return
	}
	require.Equal(t, []string{diagram}, mermaid.FindAllString(text, -1))
}
