//go:build linux

package apache_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/internal/apache"
)

func TestFindSaysWhatBringsTheJars(t *testing.T) {
	needKafka(t) // also for Java, which Find looks for first
	t.Setenv("KAFKATEST_JARS", "")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	_, err := apache.Find()
	require.ErrorContains(t, err, "run scripts/kafka-jars")
}

func TestFindRefusesAFolderWithoutJars(t *testing.T) {
	needKafka(t)
	t.Setenv("KAFKATEST_JARS", t.TempDir())
	_, err := apache.Find()
	require.ErrorContains(t, err, "has no kafka_2.*.jar")
}
