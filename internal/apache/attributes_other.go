//go:build !linux

package apache

import "syscall"

// attributes is empty where a process cannot be bound to its parent's life; so
// that Ctrl-C at least reaches it, it stays in our process group.
func attributes() *syscall.SysProcAttr { return nil }
