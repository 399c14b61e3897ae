package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A service can be replaced by one in another language: what it has in common
// with the others is on the wire, and package events is that in Go. Package
// request is how those with an HTTP interface read what they are sent.
func TestServicesShareNothingButEvents(t *testing.T) {
	t.Parallel()
	const shop = "github.com/wherry-go/wherry/examples/shop"
	out, err := exec.Command("go", "list", "-f", `{{$from := .ImportPath}}{{range .Imports}}{{$from}} {{.}}{{"\n"}}{{end}}`,
		"./orders", "./billing", "./auth", "./notifications", "./request").Output()
	require.NoError(t, err)
	require.Contains(t, string(out), shop+"/billing "+shop+"/events\n")
	for line := range strings.Lines(string(out)) {
		from, imported, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(imported, shop) {
			allowed := []string{shop + "/events"}
			if from == shop+"/orders" || from == shop+"/auth" {
				allowed = append(allowed, shop+"/request")
			}
			require.Contains(t, allowed, imported, "imported by %s", from)
		}
	}
}
