//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package embedded

import (
	"errors"
	"os"
	"runtime"
)

// unflock has nothing to undo.
func unflock(*os.File) error { return nil }

// flock refuses: without a lock two processes would write one folder.
func flock(*os.File) error {
	return errors.New("no file locks on " + runtime.GOOS + ": keep the data in memory")
}
