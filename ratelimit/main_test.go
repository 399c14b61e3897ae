package ratelimit_test

import (
	"log/slog"
	"os"
	"testing"
)

// TestMain keeps the log of the Consumers out of the way of what failed.
// WHERRY_TEST_LOG=1 shows it. As a process of TestRedis_TwoProcesses it is that.
func TestMain(m *testing.M) {
	if os.Getenv("WHERRY_TEST_LOG") == "" {
		slog.SetDefault(slog.New(slog.DiscardHandler))
	}
	if os.Getenv(secondProcess) != "" {
		os.Exit(second())
	}
	os.Exit(m.Run())
}
