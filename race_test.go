//go:build race

package wherry_test

// The race detector takes ten times as long, and sees the same code at each
// strike: every third does.
const strideOfRaces = 3
