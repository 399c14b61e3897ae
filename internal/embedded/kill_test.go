package embedded_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/wherry-go/wherry/internal/embedded"
)

// A broker in a process of its own is killed, twice, with a transaction open.
func TestKill9(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kill := func(cmd *exec.Cmd) {
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
	}

	cmd, addr := startChild(t, dir)
	topic(t, addr, "t", 1, nil)
	send(t, client(t, addr), "plain")
	inTxn(t, client(t, addr, kgo.TransactionalID("other")), "committed")
	cl := client(t, addr, kgo.TransactionalID("x"))
	require.NoError(t, cl.BeginTransaction())
	send(t, cl, "open 1", "open 2")
	require.Equal(t, []string{"plain", "committed"}, read(t, addr, "t"))
	kill(cmd)

	want := []string{"plain", "committed"}
	for round := range 2 {
		cmd, addr = startChild(t, dir)
		require.Equal(t, want, read(t, addr, "t"), "round %d: open transactions are aborted, committed ones are there", round)
		same := client(t, addr, kgo.TransactionalID("x"))
		committed := fmt.Sprintf("after kill %d", round+1)
		inTxn(t, same, committed)
		want = append(want, committed)
		require.Equal(t, want, read(t, addr, "t"), "round %d: the same transactional id commits again", round)
		require.NoError(t, same.BeginTransaction())
		send(t, same, "open again")
		kill(cmd)
	}
	b := start(t, &embedded.Broker{Dir: dir})
	require.Equal(t, want, read(t, b.Address(), "t"))
	require.NoError(t, b.stop(t))
	require.Equal(t, want, read(t, start(t, &embedded.Broker{Dir: dir}).Address(), "t"), "after a clean end too")
}

func TestUncleanEndIsSaidOnce(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{Dir: t.TempDir(), AutoCreate: true})
	cl := client(t, b.Address(), kgo.AllowAutoTopicCreation(), kgo.TransactionalID("x"))
	require.NoError(t, cl.BeginTransaction())
	send(t, cl, "v")
	b = start(t, &embedded.Broker{Dir: killed(t, b)})
	require.Contains(t, b.logs.String(), "the last run did not end cleanly")
	require.Contains(t, b.logs.String(), "aborted a transaction")
	require.Contains(t, b.logs.String(), "transactional_id=x")
	require.NoError(t, b.stop(t))
	require.NotContains(t, start(t, &embedded.Broker{Dir: b.Dir}).logs.String(), "level=WARN")
}

// While a folder is repaired and compacted, a client can connect but gets no
// answer.
func TestNobodyIsLetInBeforeTheRepair(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		clean  bool
		during string // the log line at which to look
	}{
		"repair":     {false, "aborted a transaction"},
		"compaction": {true, "no compaction at this start"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t, &embedded.Broker{Dir: t.TempDir()})
			topic(t, b.Address(), "t", 1, map[string]string{"cleanup.policy": "compact", "retention.ms": "-1"})
			cl := client(t, b.Address(), kgo.TransactionalID("x"))
			require.NoError(t, cl.BeginTransaction())
			put(t, cl, "t", "k", "open", 0)
			dir := killed(t, b)
			if row.clean {
				require.NoError(t, b.stop(t))
				dir = b.Dir
			}

			hold := &holdAt{Handler: slog.DiscardHandler, message: row.during, reached: make(chan struct{}), release: make(chan struct{})}
			next := &embedded.Broker{Dir: dir, Addr: freeAddr(t), Logger: slog.New(hold)}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- next.Run(ctx) }()
			select {
			case <-hold.reached:
			case err := <-done:
				t.Fatal("Run returned", err)
			case <-time.After(limit):
				t.Fatal("no such line")
			}
			conn, err := net.Dial("tcp", next.Addr)
			require.NoError(t, err)
			defer conn.Close()
			_, err = conn.Write([]byte("\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x01\xff\xff")) // ApiVersions v0
			require.NoError(t, err)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
			_, err = conn.Read(make([]byte, 4))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			select {
			case <-next.Ready():
				t.Fatal("ready too early")
			default:
			}

			close(hold.release)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(limit)))
			_, err = conn.Read(make([]byte, 4))
			require.NoError(t, err)
			cancel()
			require.NoError(t, <-done)
		})
	}
}

// holdAt blocks the first logging of a message that begins with message.
type holdAt struct {
	slog.Handler
	message          string
	reached, release chan struct{}
}

func (h *holdAt) Enabled(context.Context, slog.Level) bool { return true }

func (h *holdAt) Handle(_ context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, h.message) {
		close(h.reached)
		<-h.release
	}
	return nil
}

// The kill comes after a batch was written and before its index was: kfake
// would take the open transaction's record for a committed one.
func TestKillBetweenBatchAndIndex(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{Dir: t.TempDir()})
	topic(t, b.Address(), "t", 1, nil)
	cl := client(t, b.Address(), kgo.TransactionalID("x"))
	inTxn(t, cl, "committed")
	require.NoError(t, cl.BeginTransaction())
	send(t, cl, "open")
	dir := killed(t, b)
	edit("partitions/t-0/0.idx", func(b []byte) []byte { return b[:len(b)-7] })(t, dir)

	b = start(t, &embedded.Broker{Dir: dir})
	require.Equal(t, []string{"committed"}, read(t, b.Address(), "t"))
	inTxn(t, client(t, b.Address(), kgo.TransactionalID("x")), "again")
	require.Equal(t, []string{"committed", "again"}, read(t, start(t, &embedded.Broker{Dir: killed(t, b)}).Address(), "t"))
}

// The kill comes when the commit stands in one partition and not yet in the
// other.
func TestKillInTheMiddleOfACommit(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{Dir: t.TempDir()})
	topic(t, b.Address(), "t", 1, nil)
	topic(t, b.Address(), "u", 1, nil)
	cl := client(t, b.Address(), kgo.TransactionalID("x"))
	both := func(cl *kgo.Client, value string) {
		require.NoError(t, cl.BeginTransaction())
		for _, name := range []string{"t", "u"} {
			require.NoError(t, cl.ProduceSync(timeout(t), &kgo.Record{Topic: name, Value: []byte(value)}).FirstErr())
		}
	}
	both(cl, "first")
	require.NoError(t, commit(timeout(t), cl))
	both(cl, "second")
	dir := killed(t, b)
	require.NoError(t, commit(timeout(t), cl))
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "partitions", "t-0")))
	require.NoError(t, os.CopyFS(filepath.Join(dir, "partitions", "t-0"), os.DirFS(filepath.Join(b.Dir, "partitions", "t-0"))))

	b = start(t, &embedded.Broker{Dir: dir})
	require.Contains(t, b.logs.String(), "completed a commit")
	want := []string{"first", "second"}
	require.Equal(t, want, read(t, b.Address(), "t"))
	require.Equal(t, want, read(t, b.Address(), "u"))
	cl = client(t, b.Address(), kgo.TransactionalID("x"))
	both(cl, "third")
	require.NoError(t, commit(timeout(t), cl))
	b = start(t, &embedded.Broker{Dir: killed(t, b)})
	require.Equal(t, append(want, "third"), read(t, b.Address(), "u"))
}

// Older clients keep one epoch for many transactions: the commit of one must
// not be taken for the commit of the next.
func TestKillAbortsTheTransactionOfAnOlderClient(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"in one run": false, "after a clean restart": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t, &embedded.Broker{Dir: t.TempDir()})
			topic(t, b.Address(), "t", 1, nil)
			cl := client(t, b.Address(), kgo.TransactionalID("x"), kgo.MaxVersions(kversion.V3_6_0()))
			inTxn(t, cl, "committed")
			if restart {
				require.NoError(t, b.stop(t))
				b = start(t, &embedded.Broker{Dir: b.Dir, Addr: b.Address()})
			}
			require.NoError(t, cl.BeginTransaction())
			send(t, cl, "open")

			b = start(t, &embedded.Broker{Dir: killed(t, b)})
			require.NotContains(t, b.logs.String(), "completed a commit")
			require.Equal(t, []string{"committed"}, read(t, b.Address(), "t"))
		})
	}
}

// A producer that has outlived the broker cannot commit what is left of its
// transaction.
func TestKillFencesTheOpenProducer(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{Dir: t.TempDir()})
	topic(t, b.Address(), "t", 1, nil)
	cl := client(t, b.Address(), kgo.TransactionalID("x"))
	require.NoError(t, cl.BeginTransaction())
	send(t, cl, "first half")
	dir := killed(t, b)
	require.NoError(t, b.stop(t))

	b = start(t, &embedded.Broker{Dir: dir, Addr: b.Address()})
	err := cl.ProduceSync(timeout(t), &kgo.Record{Value: []byte("second half")}).FirstErr()
	if err == nil {
		err = commit(timeout(t), cl)
	}
	require.Error(t, err)
	require.Empty(t, read(t, b.Address(), "t"))
}

// A transaction that is open at a clean end, goes on, and is then killed.
func TestKillAfterCleanRestartWithOpenTransaction(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{Dir: t.TempDir()})
	topic(t, b.Address(), "t", 1, nil)
	cl := client(t, b.Address(), kgo.TransactionalID("x"))
	require.NoError(t, cl.BeginTransaction())
	send(t, cl, "open")
	require.NoError(t, b.stop(t))
	b = start(t, &embedded.Broker{Dir: b.Dir})
	b = start(t, &embedded.Broker{Dir: killed(t, b)})
	send(t, client(t, b.Address()), "plain")
	require.Equal(t, []string{"plain"}, read(t, b.Address(), "t"))
}

// A kill at the very end, when kfake has noted that the transaction is open
// and the folder is not yet marked as clean.
func TestKillAtTheEndOfACleanEnd(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{Dir: t.TempDir()})
	topic(t, b.Address(), "t", 1, nil)
	cl := client(t, b.Address(), kgo.TransactionalID("x"))
	require.NoError(t, cl.BeginTransaction())
	send(t, cl, "open")
	require.NoError(t, b.stop(t))
	write("wherry.lock", "")(t, b.Dir)

	b = start(t, &embedded.Broker{Dir: b.Dir, Addr: b.Address()})
	send(t, client(t, b.Address()), "plain")
	require.Equal(t, []string{"plain"}, read(t, b.Address(), "t"), "nothing is open any more")
	require.Error(t, commit(timeout(t), cl))
	require.Equal(t, []string{"plain"}, read(t, b.Address(), "t"))
}

// kfake's own creation of topics on demand would lose topic and records.
func TestKillKeepsTopicsMadeOnDemand(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{Dir: t.TempDir(), AutoCreate: true})
	send(t, client(t, b.Address(), kgo.AllowAutoTopicCreation()), "v")
	b = start(t, &embedded.Broker{Dir: killed(t, b)})
	require.Equal(t, []string{"v"}, read(t, b.Address(), "t"))
}

// A batch whose acknowledgement was lost in the kill is sent again.
func TestKillStoresNothingTwice(t *testing.T) {
	t.Parallel()
	b := start(t, &embedded.Broker{Dir: t.TempDir()})
	topic(t, b.Address(), "t", 1, nil)
	cl := client(t, b.Address())
	send(t, cl, "a", "b", "c")
	require.NoError(t, b.stop(t)) // the sequence of now is saved
	b = start(t, &embedded.Broker{Dir: b.Dir, Addr: b.Address()})
	batches := producedBy(t, segment(t, b.Dir, "t-0"))
	send(t, cl, "d", "e")
	all := producedBy(t, segment(t, b.Dir, "t-0"))
	require.Greater(t, len(all), len(batches))
	dir := killed(t, b)

	b = start(t, &embedded.Broker{Dir: dir})
	for _, raw := range all[len(batches):] {
		clear(raw[:8]) // the offset is the broker's
		req := kmsg.NewPtrProduceRequest()
		req.Acks, req.TimeoutMillis = -1, 1000
		p := kmsg.NewProduceRequestTopicPartition()
		p.Records = raw
		rt := kmsg.NewProduceRequestTopic()
		rt.Topic, rt.Partitions = "t", []kmsg.ProduceRequestTopicPartition{p}
		req.Topics = append(req.Topics, rt)
		plain := client(t, b.Address(), kgo.MaxVersions(kversion.V2_8_0()))
		resp, err := req.RequestWith(timeout(t), plain.Broker(0))
		require.NoError(t, err)
		require.Zero(t, resp.Topics[0].Partitions[0].ErrorCode)
	}
	require.Equal(t, []string{"a", "b", "c", "d", "e"}, read(t, b.Address(), "t"))
}

// producedBy returns the record batches in a segment.
func producedBy(t *testing.T, path string) (batches [][]byte) {
	t.Helper()
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	for len(raw) > 0 {
		var b kmsg.RecordBatch
		require.NoError(t, b.ReadFrom(raw))
		size := 12 + int(b.Length)
		batches = append(batches, raw[:size:size])
		raw = raw[size:]
	}
	return batches
}

// A kill in the middle of writing a group's offset leaves half an entry:
// kfake would append behind it, and lose all that at the next kill.
func TestKillInTheMiddleOfALog(t *testing.T) {
	t.Parallel()
	commit := func(b *running, at int64) {
		offsets := kadm.Offsets{}
		offsets.Add(kadm.Offset{Topic: "t", Partition: 0, At: at, LeaderEpoch: -1})
		require.NoError(t, kadm.NewClient(client(t, b.Address())).CommitAllOffsets(timeout(t), "g", offsets))
	}
	b := start(t, &embedded.Broker{Dir: t.TempDir()})
	topic(t, b.Address(), "t", 1, nil)
	send(t, client(t, b.Address()), "a", "b", "c")
	commit(b, 1)
	commit(b, 2)
	dir := killed(t, b)
	edit("groups.log", func(b []byte) []byte { return b[:len(b)-3] })(t, dir)
	b = start(t, &embedded.Broker{Dir: dir})
	require.Contains(t, b.logs.String(), "file=groups.log")
	commit(b, 3)
	b = start(t, &embedded.Broker{Dir: killed(t, b)})
	group, err := kadm.NewClient(client(t, b.Address())).FetchOffsets(timeout(t), "g")
	require.NoError(t, err)
	at, ok := group.Lookup("t", 0)
	require.True(t, ok)
	require.EqualValues(t, 3, at.At)
}
