package checkout_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/examples/checkout/checkout"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Checkouts in flight rest on its shape: an edit that changes it needs a new
// Version.
func TestDefinition(t *testing.T) {
	t.Parallel()
	d := checkout.Definition(checkout.Pace{})
	require.NoError(t, d.Check())
	// What a saga cannot decide, and people have to. It is meant so.
	require.Equal(t, []string{`step "notify" comes after the pivot: if it is rejected, the saga is parked until an operator decides`}, d.Warnings())
	for name, text := range map[string]string{"shape.txt": d.Shape(), "checkout.mmd": d.Mermaid()} {
		path := filepath.Join("testdata", name)
		if *update {
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		}
		golden, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, string(golden), text, name)
	}
}
