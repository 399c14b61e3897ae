package embedded_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/embedded"
)

func put(t *testing.T, cl *kgo.Client, topic, key, value string, age time.Duration) {
	t.Helper()
	r := &kgo.Record{Topic: topic, Key: []byte(key), Value: []byte(value), Timestamp: time.Now().Add(-age)}
	require.NoError(t, cl.ProduceSync(timeout(t), r).FirstErr())
}

func TestCompactedAtStart(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{Dir: t.TempDir()})
	compacted := map[string]string{"cleanup.policy": "compact", "retention.ms": "-1"}
	topic(t, b.Address(), "state", 1, compacted)
	topic(t, b.Address(), "plain", 1, map[string]string{"cleanup.policy": "compact"})
	topic(t, b.Address(), "old", 1, nil)
	cl := client(t, b.Address())
	month := 30 * 24 * time.Hour
	for i := range 20 {
		put(t, cl, "state", "k", strconv.Itoa(i), month)
	}
	for _, name := range []string{"state", "plain", "old"} {
		put(t, cl, name, "other", "kept", month)
		put(t, cl, name, "last", "kept", 0)
	}
	require.Len(t, read(t, b.Address(), "state"), 22)
	require.NoError(t, b.stop(t))

	for range 2 {
		b = start(t, &embedded.Broker{Dir: b.Dir})
		require.Equal(t, []string{"19", "kept", "kept"}, read(t, b.Address(), "state"))
		require.Len(t, read(t, b.Address(), "plain"), 2, "Kafka's week of retention is not for compacted topics")
		require.Len(t, read(t, b.Address(), "old"), 2, "nothing expires unless the topic says so")
		require.NoError(t, b.stop(t))
	}
	require.NoDirExists(t, filepath.Join(b.Dir, "compacting"))
	require.NoDirExists(t, filepath.Join(b.Dir, "compacting.new"))
}

func TestRetentionOfTheTopicAtStart(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{Dir: t.TempDir()})
	topic(t, b.Address(), "t", 1, map[string]string{"retention.ms": "3600000"})
	cl := client(t, b.Address())
	put(t, cl, "t", "k", "old", 2*time.Hour)
	require.NoError(t, b.stop(t))

	// It runs empty, and the offsets go on all the same: at once, after a
	// clean end, and after a kill.
	b = start(t, &embedded.Broker{Dir: b.Dir})
	require.Empty(t, read(t, b.Address(), "t"))
	require.NoError(t, b.stop(t))
	b = start(t, &embedded.Broker{Dir: b.Dir})
	b = start(t, &embedded.Broker{Dir: killed(t, b)})
	require.Empty(t, read(t, b.Address(), "t"))
	put(t, client(t, b.Address()), "t", "k", "new", 0)
	got := records(t, b.Address(), "t")
	require.Len(t, got, 1)
	require.EqualValues(t, 1, got[0].Offset)
	require.NotContains(t, b.logs.String(), "damaged")
}

func TestDeletedRecordsLeaveTheirOffsets(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{Dir: t.TempDir()})
	topic(t, b.Address(), "t", 1, nil)
	send(t, client(t, b.Address()), "a", "b", "c")
	upTo := kadm.Offsets{}
	upTo.Add(kadm.Offset{Topic: "t", Partition: 0, At: 3})
	deleted, err := kadm.NewClient(client(t, b.Address())).DeleteRecords(timeout(t), upTo)
	require.NoError(t, err)
	require.NoError(t, deleted.Error())
	require.NoError(t, b.stop(t))

	b = start(t, &embedded.Broker{Dir: b.Dir})
	send(t, client(t, b.Address()), "new")
	got := records(t, b.Address(), "t")
	require.Len(t, got, 1)
	require.EqualValues(t, 3, got[0].Offset)
	require.NotContains(t, b.logs.String(), "level=WARN")
}

// Compacting inside an open transaction would lose the value before it.
func TestNoCompactionInsideATransaction(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{Dir: t.TempDir()})
	topic(t, b.Address(), "t", 1, map[string]string{"cleanup.policy": "compact", "retention.ms": "-1"})
	put(t, client(t, b.Address()), "t", "k", "committed", 0)
	cl := client(t, b.Address(), kgo.TransactionalID("x"))
	require.NoError(t, cl.BeginTransaction())
	put(t, cl, "t", "k", "open", 0)
	put(t, cl, "t", "l", "open", 0)
	require.NoError(t, b.stop(t))

	clean := start(t, &embedded.Broker{Dir: b.Dir, Addr: b.Address()})
	require.Contains(t, clean.logs.String(), "no compaction at this start")
	cut := start(t, &embedded.Broker{Dir: killed(t, clean)})
	require.Equal(t, []string{"committed"}, read(t, cut.Address(), "t"), "after a kill")
	require.NoError(t, cl.EndTransaction(timeout(t), kgo.TryAbort))
	require.Equal(t, []string{"committed"}, read(t, clean.Address(), "t"))
	require.NoError(t, clean.stop(t))
	require.Equal(t, []string{"committed"}, read(t, start(t, &embedded.Broker{Dir: b.Dir}).Address(), "t"))
}

func TestNoCompactionWithRetentionOfKeys(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{Dir: t.TempDir()})
	topic(t, b.Address(), "t", 1, map[string]string{"cleanup.policy": "compact", "retention.ms": "1000"})
	cl := client(t, b.Address())
	put(t, cl, "t", "k", "old", time.Hour)
	put(t, cl, "t", "l", "new", 0)
	require.NoError(t, b.stop(t))
	b = start(t, &embedded.Broker{Dir: b.Dir})
	require.Contains(t, b.logs.String(), "set its retention.ms and retention.bytes to -1")
	require.Equal(t, []string{"old", "new"}, read(t, b.Address(), "t"))
}

// The kill comes when kfake has deleted the old files and not written the new.
func TestCompactionCutShort(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{Dir: t.TempDir()})
	topic(t, b.Address(), "t", 1, map[string]string{"cleanup.policy": "compact", "retention.ms": "-1"})
	cl := client(t, b.Address())
	put(t, cl, "t", "k", "1", 0)
	put(t, cl, "t", "l", "2", 0)
	dir := killed(t, b)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "compacting"), 0o700))
	require.NoError(t, os.Rename(filepath.Join(dir, "partitions", "t-0"), filepath.Join(dir, "compacting", "t-0")))

	b = start(t, &embedded.Broker{Dir: dir})
	require.Contains(t, b.logs.String(), "in the middle of a compaction")
	require.Equal(t, []string{"1", "2"}, read(t, b.Address(), "t"))
	require.NoDirExists(t, filepath.Join(dir, "compacting"))
}
