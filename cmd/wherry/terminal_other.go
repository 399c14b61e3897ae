//go:build !(darwin || freebsd || linux || netbsd)

package main

import "os"

// terminal returns the width of the terminal that f is, and whether it is one:
// where that cannot be asked, a character device is, of 80 columns.
func terminal(f *os.File) (width int, ok bool) {
	if f == nil {
		return 0, false
	}
	info, err := f.Stat()
	return 80, err == nil && info.Mode()&os.ModeCharDevice != 0
}
