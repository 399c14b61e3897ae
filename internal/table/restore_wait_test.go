package table_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/internal/table"
	"github.com/wherry-go/wherry/kafkatest"
)

// restoring is a Restore of one partition under way.
type restoring struct {
	part *table.Part
	left chan int64 // what its progress said last
	done chan error
}

func start(ctx context.Context, cl *kgo.Client, part *table.Part, opts ...kgo.Opt) *restoring {
	r := &restoring{part: part, left: make(chan int64, 1), done: make(chan error, 1)}
	go func() {
		r.done <- table.Restore(ctx, cl, opts, "accounts", map[int32]*table.Part{0: part}, quiet, func(_ int32, left int64) {
			select {
			case <-r.left:
			default:
			}
			r.left <- left
		})
	}()
	return r
}

// stuckAt returns when n progress reports in a row said that left are left:
// there is one in each silence.
func (r *restoring) stuckAt(t *testing.T, left int64, n int) {
	t.Helper()
	ctx := limited(t)
	for seen := 0; seen < n; {
		select {
		case l := <-r.left:
			if seen++; l != left {
				seen = 0
			}
		case err := <-r.done:
			require.FailNow(t, "it has ended", "with %v", err)
		case <-ctx.Done():
			require.FailNow(t, "no progress was reported")
		}
	}
}

func (r *restoring) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-limited(t).Done():
		require.FailNow(t, "it does not end")
		return nil
	}
}

// The last stable offset is where the open transaction began, so who reads only
// up to it has neither what the transaction wrote nor what others wrote after.
func TestRestoreWaitsForOpenTransactionsBecauseTheLastStableOffsetIsNotEnough(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		end  kgo.TransactionEndTry
		want map[string]string
	}{
		"committed": {kgo.TryCommit, map[string]string{"a": "2", "b": "3", "d": "5"}},
		"aborted":   {kgo.TryAbort, map[string]string{"a": "1", "b": "3", "c": "4"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := compacted(t, 1)
			cl := manual(t, k)
			write(t, cl, 0, "a", "1")
			write(t, cl, 0, "c", "4")
			decide := transact(t, k, "tx", func(cl *kgo.Client) {
				write(t, cl, 0, "a", "2")
				write(t, cl, 0, "c")
				write(t, cl, 0, "d", "5")
			})
			write(t, cl, 0, "b", "3")
			stable, err := kadm.NewClient(cl).ListCommittedOffsets(t.Context(), "accounts")
			require.NoError(t, err)
			require.EqualValues(t, 2, stable["accounts"][0].Offset)
			require.EqualValues(t, 6, end(t, k, 0))

			r := start(t.Context(), k.Client(t), table.NewPart(nil))
			r.stuckAt(t, 4, 3) // longer than it takes to ask what is left
			require.Equal(t, map[string]string{"a": "1", "c": "4"}, values(r.part))
			decide(test.end)
			require.NoError(t, r.wait(t))
			require.Equal(t, test.want, values(r.part))
			require.GreaterOrEqual(t, r.part.Next(), int64(6))
		})
	}
}

// polled is a hook that calls f when the nth record was polled.
type polled struct {
	n    int64
	f    func()
	seen atomic.Int64
}

func (p *polled) OnFetchRecordUnbuffered(_ *kgo.Record, polled bool) {
	if polled && p.seen.Add(1) == p.n {
		p.f()
	}
}

// many writes n keys in values of 1,000 bytes, some of them twice, some deleted.
func many(t *testing.T, cl *kgo.Client, n int) {
	t.Helper()
	var rs []*kgo.Record
	for i := range n {
		r := &kgo.Record{Topic: "accounts", Key: fmt.Append(nil, i%(n*3/4)), Value: fmt.Appendf(nil, "%01000d", i)}
		if i%10 == 9 {
			r.Value = nil
		}
		rs = append(rs, r)
	}
	require.NoError(t, cl.ProduceSync(t.Context(), rs...).FirstErr())
}

// small makes a Restore read by and by.
func small() []kgo.Opt { return []kgo.Opt{kgo.FetchMaxPartitionBytes(20 << 10)} }

func TestRestoreGoesOnAfterItsContextEnded(t *testing.T) {
	t.Parallel()
	k := compacted(t, 1)
	cl := manual(t, k, kgo.ProducerBatchMaxBytes(10<<10), kgo.ProducerBatchCompression(kgo.NoCompression()))
	many(t, cl, 2000)
	want := newParts(1)
	restore(t, k, want)

	part := table.NewPart(nil)
	stop := errors.New("the partition was revoked")
	for i, last := 0, int64(0); ; i++ {
		require.Less(t, i, 10)
		ctx, cancel := context.WithCancelCause(limited(t))
		hook := &polled{n: 600, f: func() { cancel(stop) }}
		err := table.Restore(ctx, k.Client(t), append(small(), kgo.WithHooks(hook)), "accounts", map[int32]*table.Part{0: part}, quiet, nil)
		if err == nil {
			require.Less(t, hook.seen.Load(), int64(1000), "it began at the start again")
			break
		}
		require.Equal(t, stop, err)
		require.Greater(t, part.Next(), last, "it keeps what it took in")
		last = part.Next()
	}
	require.Equal(t, values(want[0]), values(part))
	require.Equal(t, want[0].Next(), part.Next())

	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	require.Equal(t, stop, table.Restore(ctx, k.Client(t), nil, "accounts", newParts(1), quiet, nil))
}

func TestRestoreOfHugeValues(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	k.Create(t, kafkatest.Topic{Name: "accounts", Partitions: 1, Config: map[string]string{"cleanup.policy": "compact", "retention.ms": "-1", "max.message.bytes": "9000000"}})
	cl := manual(t, k, kgo.ProducerBatchMaxBytes(8<<20), kgo.ProducerBatchCompression(kgo.NoCompression()))
	huge := string(make([]byte, 5<<20))
	for _, key := range []string{"a", "b", "a", "c"} {
		write(t, cl, 0, key, huge+key)
	}
	write(t, cl, 0, "b")
	part := newParts(1)
	restore(t, k, part)
	require.Equal(t, 2, part[0].Len())
	e, ok := part[0].Get("a")
	require.True(t, ok)
	require.Equal(t, huge+"a", string(e.Value))
}

func TestRestoreFollowsALeaderThatMoves(t *testing.T) {
	t.Parallel()
	k := compacted(t, 1)
	if !k.Embedded() {
		t.Skip("a single node has nobody to move to; see TestRestoreOutlivesALostLeader")
	}
	other := k.AddNode(t)
	many(t, manual(t, k, kgo.ProducerBatchMaxBytes(10<<10), kgo.ProducerBatchCompression(kgo.NoCompression())), 2000)
	want := newParts(1)
	restore(t, k, want)
	reading, moved := make(chan struct{}), make(chan struct{})
	hook := &polled{n: 300, f: func() { close(reading); <-moved }}
	r := start(limited(t), k.Client(t), table.NewPart(nil), append(small(), kgo.WithHooks(hook))...)
	<-reading
	k.MoveLeader(t, "accounts", 0, other)
	close(moved)
	require.NoError(t, r.wait(t))
	require.Equal(t, values(want[0]), values(r.part))
}

func TestRestoreOutlivesALostLeader(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts three nodes")
	}
	k := kafkatest.NewApache(t, kafkatest.ApacheConfig{Nodes: 3, Topics: []string{"accounts:1"}})
	many(t, manual(t, k.Cluster, kgo.ProducerBatchMaxBytes(10<<10), kgo.ProducerBatchCompression(kgo.NoCompression())), 2000)
	want := newParts(1)
	restore(t, k.Cluster, want)
	reading, killed := make(chan struct{}), make(chan struct{})
	hook := &polled{n: 300, f: func() { close(reading); <-killed }}
	r := start(limited(t), k.Client(t), table.NewPart(nil), append(small(), kgo.WithHooks(hook))...)
	<-reading
	k.Kill(t, k.Leader(t, "accounts", 0))
	close(killed)
	require.NoError(t, r.wait(t))
	require.Equal(t, values(want[0]), values(r.part))
}
