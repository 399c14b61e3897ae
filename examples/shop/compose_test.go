package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func TestComposeFileIsYAMLAndGivesTheWholeEnvironment(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("compose.yaml")
	require.NoError(t, err)
	var file struct {
		Services map[string]struct {
			Image       string
			Ports       []string
			Environment map[string]string
			Volumes     []string
		}
		Volumes map[string]any
	}
	require.NoError(t, yaml.Unmarshal(b, &file))
	require.Len(t, file.Services, 1)
	kafka := file.Services["kafka"]
	// Of Apache's two images, the one whose user may write to the volume.
	require.Equal(t, "apache/kafka:4.1.1", kafka.Image)
	require.Equal(t, []string{"127.0.0.1:9092:9092"}, kafka.Ports)
	require.Contains(t, file.Volumes, "kafka")
	// Without any one of these a node of both roles does not start, or its
	// internal topics want three replicas.
	for _, name := range []string{
		"KAFKA_NODE_ID", "KAFKA_PROCESS_ROLES", "KAFKA_CONTROLLER_QUORUM_VOTERS", "KAFKA_LISTENERS",
		"KAFKA_ADVERTISED_LISTENERS", "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "KAFKA_CONTROLLER_LISTENER_NAMES",
		"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR", "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR",
		"KAFKA_TRANSACTION_STATE_LOG_MIN_ISR",
	} {
		require.NotEmpty(t, kafka.Environment[name], name)
	}
	require.Equal(t, []string{"kafka:" + kafka.Environment["KAFKA_LOG_DIRS"]}, kafka.Volumes)
}
