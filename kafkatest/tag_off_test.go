//go:build !synctests

package kafkatest_test

import "testing"

func skipUntagged(t *testing.T) {
	t.Helper()
	t.Skip("needs -tags synctests")
}
