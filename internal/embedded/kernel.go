package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kfake"
)

// kernelLog is kfake's logger. It passes warnings and errors on as they are,
// and all else, which is about single requests, at debug level.
//
// kfake reports faults of the disk only by logging. While gather is on, they
// are collected instead, to become an error.
type kernelLog struct {
	log *slog.Logger

	mu     sync.Mutex
	gather bool
	faults []string
}

// Logf implements kfake.Logger. kfake calls it from several goroutines.
func (k *kernelLog) Logf(level kfake.LogLevel, format string, args ...any) {
	to := slog.LevelDebug
	switch {
	case level == kfake.LogLevelDebug:
		to = slog.LevelDebug - 4
	case strings.HasPrefix(format, "txn: EndTxn slow"): // a busy machine, not a fault
	case level == kfake.LogLevelWarn:
		to = slog.LevelWarn
	case level == kfake.LogLevelError:
		to = slog.LevelError
	}
	if to >= slog.LevelWarn && k.collect(format, args) {
		return
	}
	if ctx := context.Background(); k.log.Enabled(ctx, to) {
		k.log.Log(ctx, to, "kfake", "says", fmt.Sprintf(format, args...))
	}
}

// collect keeps the line if gather is on, and reports whether it did.
func (k *kernelLog) collect(format string, args []any) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gather {
		k.faults = append(k.faults, fmt.Sprintf(format, args...))
	}
	return k.gather
}

// during calls f and returns what kfake complained about meanwhile, as an
// error instead of in the log. It must not be nested.
func (k *kernelLog) during(f func()) error {
	k.mu.Lock()
	k.gather, k.faults = true, nil
	k.mu.Unlock()
	f()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gather = false
	if len(k.faults) == 0 {
		return nil
	}
	return fmt.Errorf("kfake: %s", strings.Join(k.faults, "; "))
}
