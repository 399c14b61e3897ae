package sagatest_test

import (
	"log/slog"
	"os"
	"testing"
)

// TestMain keeps the log of Engines out of the way of what failed.
// WHERRY_TEST_LOG=1 shows it.
func TestMain(m *testing.M) {
	if os.Getenv("WHERRY_TEST_LOG") == "" {
		slog.SetDefault(slog.New(slog.DiscardHandler))
	}
	os.Exit(m.Run())
}
