//go:build synctests

package kafkatest_test

import "testing"

func skipUntagged(*testing.T) {}
