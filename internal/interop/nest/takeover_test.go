package nest_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/internal/interop/nest"
	"github.com/wherry-go/wherry/kafkatest"
)

// takeover starts examples/takeover.
func takeover(t *testing.T, k *kafkatest.Cluster, env ...string) *nest.Process {
	t.Helper()
	cmd := exec.Command(filepath.Join(binaries, "takeover"))
	cmd.Env = append(cmd.Environ(), append(env, "KAFKA_BROKERS="+strings.Join(k.Brokers(), ","))...)
	return start(t, cmd)
}

// What docs/nestjs.md goes through: billing of a system in NestJS is replaced by
// examples/takeover, in the same group, and put back.
func TestTakeover_ABillingInNestJSIsReplacedAndPutBack(t *testing.T) {
	need(t)
	t.Parallel()
	k := onACluster(t)
	rest := inNest(t, k, []string{"orders", "auth", "notifications"})
	s := shop{await(t, rest, nest.Listening, 1)[1]}
	var paid []string
	pays := func(id string) {
		t.Helper()
		s.becomes(t, id, "paid")
		paid = append(paid, id)
	}

	billing := inNest(t, k, []string{"billing"})
	pays(s.placed(t, "1.00"))

	// Side by side they cannot be: KafkaJS and franz-go do not share a group. The
	// second one ends, and the first goes on.
	early := takeover(t, k)
	await(t, early, "another client library.*: stop it first.*INCONSISTENT_GROUP_PROTOCOL", 1)
	<-early.Done()
	pays(s.placed(t, "2.00"))

	// One after the other. What comes in between waits in the topic.
	billing.Stop(terminate)
	between := s.placed(t, "3.00")
	billing = takeover(t, k)
	await(t, billing, "INFO ready", 1)
	pays(between)
	pays(s.placed(t, "4.00"))
	require.Zero(t, billing.Stop(terminate))

	// A payment that fails is told as before: NestJS's orders cancels.
	billing = takeover(t, k, "PAYMENTS=fail")
	failed := s.placed(t, "5.00")
	s.becomes(t, failed, "cancelled")
	await(t, rest, "order "+failed+" was cancelled", 2)
	require.Zero(t, billing.Stop(terminate))

	// And back.
	between = s.placed(t, "6.00")
	inNest(t, k, []string{"billing"})
	pays(between)
	pays(s.placed(t, "7.00"))

	count := counts(t, k, "order.created", "payment.created", "payment.failed", "billing.dlq", "order.cancelled")
	for _, id := range paid {
		require.Equal(t, []int{1, 1, 0, 0, 0}, count[id], "paid order %s", id)
	}
	require.Equal(t, []int{1, 0, 1, 1, 2}, count[failed])
	require.Len(t, count, len(paid)+1)
}
