//go:build unix

package kafkatest

import (
	"errors"
	"os"
	"syscall"
)

// tryLock takes the lock on file, which goes with its descriptor, or returns
// errHeld.
func tryLock(file *os.File) error {
	err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errHeld
	}
	return err
}
