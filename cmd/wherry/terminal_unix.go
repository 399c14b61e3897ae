//go:build darwin || freebsd || linux || netbsd

package main

import (
	"os"
	"syscall"
	"unsafe"
)

// terminal returns the width of the terminal that f is, and whether it is one.
func terminal(f *os.File) (width int, ok bool) {
	if f == nil {
		return 0, false
	}
	raw, err := f.SyscallConn() // not Fd, which would make f block
	if err != nil {
		return 0, false
	}
	var size struct{ rows, columns, x, y uint16 }
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
	})
	if err != nil || errno != 0 {
		return 0, false
	}
	if size.columns == 0 { // it does not know
		return 80, true
	}
	return int(size.columns), true
}
