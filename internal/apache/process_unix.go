//go:build unix

package apache

import "syscall"

// pause freezes the process; it does not notice.
func (n *node) pause() error {
	if n.signal(syscall.SIGSTOP) == nil {
		return errDown
	}
	return nil
}

// resume lets it go on, frozen or not.
func (n *node) resume() error {
	if n.signal(syscall.SIGCONT) == nil {
		return errDown
	}
	return nil
}
