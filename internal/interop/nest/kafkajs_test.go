package nest_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/interop/nest"
)

func TestVersionIsThatOfTheManifest(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("package.json")
	require.NoError(t, err)
	var manifest struct{ Dependencies map[string]string }
	require.NoError(t, json.Unmarshal(b, &manifest))
	for _, name := range []string{"common", "core", "microservices", "platform-express"} {
		require.Equal(t, nest.Version, manifest.Dependencies["@nestjs/"+name])
	}
}

func TestLockNamesNoRegistry(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("package-lock.json")
	require.NoError(t, err)
	require.NotContains(t, string(b), `"resolved"`)
}

// NestJS reads what transactions committed and nothing else, and the marks at the
// end of a partition are not in its way, also when it comes back.
func TestKafkaJS_ReadsCommittedTransactionsAlone(t *testing.T) {
	need(t)
	t.Parallel()
	k := onACluster(t)
	notifications := inNest(t, k, []string{"notifications"})
	opts := []kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression())}
	plain := k.Client(t, opts...)
	gzip := k.Client(t, opts[0], kgo.ProducerBatchCompression(kgo.GzipCompression()))
	tx := k.Client(t, append(opts, kgo.TransactionalID("tx"))...)
	send := func(cl *kgo.Client, id string) {
		t.Helper()
		r := &kgo.Record{Topic: "order.created", Key: []byte(id), Value: []byte(`{"id":"` + id + `"}`)}
		require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())
	}
	transaction := func(id string, end kgo.TransactionEndTry) {
		t.Helper()
		require.NoError(t, tx.BeginTransaction())
		send(tx, id)
		require.NoError(t, tx.EndTransaction(t.Context(), end))
	}
	transaction("aborted-1", kgo.TryAbort)
	transaction("committed-1", kgo.TryCommit)
	send(plain, "plain-1")
	send(gzip, "gzip-1")
	transaction("aborted-2", kgo.TryAbort)
	transaction("committed-2", kgo.TryCommit)
	for _, id := range []string{"committed-1", "plain-1", "gzip-1", "committed-2"} {
		await(t, notifications, "order "+id+" was received", 1)
	}
	require.NotContains(t, notifications.Log(), "aborted")
	notifications.Stop(terminate)

	transaction("aborted-3", kgo.TryAbort)
	transaction("committed-3", kgo.TryCommit)
	notifications = inNest(t, k, []string{"notifications"})
	await(t, notifications, "order committed-3 was received", 1)
	require.Equal(t, 1, strings.Count(notifications.Log(), "was received"))
}
