package main

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/examples/checkout/checkout"
)

// The page shows this program: its TypeScript, its drawing, its flags.
func TestThePageShowsThisProgram(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("README.md")
	require.NoError(t, err)
	page := string(b)
	require.Contains(t, page, "```mermaid\n"+checkout.Definition(checkout.Pace{}).Mermaid()+"```\n")

	var sources strings.Builder
	files, err := filepath.Glob("nestjs/*.ts")
	require.NoError(t, err)
	for _, path := range files {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		sources.Write(text)
	}
	parts := regexp.MustCompile("(?s)```ts\n(.*?)```").FindAllStringSubmatch(page, -1)
	require.Len(t, parts, 2)
	for _, part := range parts {
		require.Contains(t, sources.String(), part[1])
	}

	flags, _ := newFlags()
	flags.VisitAll(func(f *flag.Flag) {
		require.Regexp(t, `(?m)^\| .*`+"`-"+f.Name+"`", page)
	})
}
