package main

import (
	"encoding/json"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The programs of the page are parts of this one. (What it does is tested in
// internal/interop/nest, beside NestJS.)
func TestThePageShowsThisProgram(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/nestjs.md")
	require.NoError(t, err)
	program, err := os.ReadFile("main.go")
	require.NoError(t, err)
	parts := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllSubmatch(page, -1)
	require.NotEmpty(t, parts)
	for _, part := range parts {
		require.Contains(t, string(program), string(part[1]))
	}
}

func TestTimeIsWrittenAsByDate(t *testing.T) {
	t.Parallel()
	at := Time{time.Date(2026, 11, 27, 17, 57, 30, 889_999_999, time.FixedZone("CET", 3600))}
	b, err := json.Marshal(at)
	require.NoError(t, err)
	require.Equal(t, `"2026-11-27T16:57:30.889Z"`, string(b))
	var again Time
	require.NoError(t, json.Unmarshal(b, &again))
	require.WithinDuration(t, at.Time, again.Time, time.Millisecond)
}
