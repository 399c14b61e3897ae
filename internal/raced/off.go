//go:build !race

// Package raced tells tests whether the race detector watches them. It takes ten
// times as long, and of many runs that go through the same code a few will do.
package raced

// On reports whether the race detector is on.
const On = false
