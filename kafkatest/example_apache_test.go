package kafkatest_test

import (
	"testing"

	"github.com/wherry-go/wherry/kafkatest"
)

// survivesAKill is a test on three real brokers: call it TestSurvivesAKill.
func survivesAKill(t *testing.T) {
	k := kafkatest.NewApache(t, kafkatest.ApacheConfig{Nodes: 3, Topics: []string{"order.placed"}})
	kafkatest.Send(t, k.Cluster, orderPlaced, "o-1", order{ID: "o-1", Amount: 42})
	k.Kill(t, 2) // SIGKILL
	kafkatest.Next(t, k.Cluster, orderPlaced)
	k.Restart(t, 2)
}

// It needs Java and Kafka's jars, and is skipped where they are missing.
func ExampleNewApache() {
	_ = []testing.InternalTest{{Name: "TestSurvivesAKill", F: survivesAKill}}
}
