//go:build !unix

package apache

import "errors"

// Only Unix can freeze a process.
func (n *node) pause() error  { return errors.ErrUnsupported }
func (n *node) resume() error { return errors.ErrUnsupported }
