// Package participants_test has the tests of what saga offers to participants:
// those with databases need drivers, which are to stay out of the modules of those
// who import saga.
package participants_test

import (
	"log/slog"
	"os"
	"testing"
)

// TestMain keeps the log of the Consumers under test out of the way of what
// failed. WHERRY_TEST_LOG=1 shows it.
func TestMain(m *testing.M) {
	if os.Getenv("WHERRY_TEST_LOG") == "" {
		slog.SetDefault(slog.New(slog.DiscardHandler))
	}
	os.Exit(m.Run())
}
