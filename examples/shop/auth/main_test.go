package auth_test

import (
	"log/slog"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // wherry.EnsureTopics tells of each topic
	os.Exit(m.Run())
}
