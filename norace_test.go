//go:build !race

package wherry_test

const strideOfRaces = 1
