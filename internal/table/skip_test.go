package table_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/internal/table"
)

// log is a partition to skip in.
type log struct {
	fake *kfake.Cluster
	cl   *kgo.Client
}

func newLog(t *testing.T) *log {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.SeedTopics(1, "accounts"))
	require.NoError(t, err)
	t.Cleanup(fake.Close)
	l := &log{fake: fake}
	l.cl = l.open(t)
	return l
}

func (l *log) open(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(l.fake.ListenAddrs()...), kgo.DisableClientMetrics())...)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

func produce(t *testing.T, cl *kgo.Client, n int) {
	t.Helper()
	for range n {
		require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: "accounts", Key: []byte("a"), Value: []byte("1")}).FirstErr())
	}
}

func (l *log) deleteTo(t *testing.T, offset int64) {
	t.Helper()
	gone := kadm.Offsets{}
	gone.Add(kadm.Offset{Topic: "accounts", At: offset})
	_, err := kadm.NewClient(l.cl).DeleteRecords(t.Context(), gone)
	require.NoError(t, err)
}

func TestSkipPassesOnlyWhatIsGone(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		write  func(t *testing.T, l *log)
		at     int64
		end    int64
		passes int64 // where it then is
	}{
		{name: "records that are there", write: func(t *testing.T, l *log) { produce(t, l.cl, 3) }, end: 3},
		{name: "all were deleted", write: func(t *testing.T, l *log) { produce(t, l.cl, 3); l.deleteTo(t, 3) }, end: 3, passes: 3},
		{name: "some were deleted", write: func(t *testing.T, l *log) { produce(t, l.cl, 3); l.deleteTo(t, 2) }, end: 3, passes: 2},
		{name: "the end is not reached yet", write: func(t *testing.T, l *log) { produce(t, l.cl, 1) }, at: 1, end: 5, passes: 1},
		{name: "it is there already", write: func(t *testing.T, l *log) { produce(t, l.cl, 3); l.deleteTo(t, 3) }, at: 2, end: 2, passes: 2},
		{name: "an open transaction", write: func(t *testing.T, l *log) {
			tx := l.open(t, kgo.TransactionalID("tx"))
			require.NoError(t, tx.BeginTransaction())
			produce(t, tx, 2)
		}, end: 2},
		{name: "up to an open transaction", write: func(t *testing.T, l *log) {
			produce(t, l.cl, 2)
			tx := l.open(t, kgo.TransactionalID("tx"))
			require.NoError(t, tx.BeginTransaction())
			produce(t, tx, 2)
			l.deleteTo(t, 2)
		}, end: 4, passes: 2},
		// Its mark is a record that the client hands over.
		{name: "an aborted transaction", write: func(t *testing.T, l *log) {
			tx := l.open(t, kgo.TransactionalID("tx"))
			require.NoError(t, tx.BeginTransaction())
			produce(t, tx, 2)
			require.NoError(t, tx.EndTransaction(t.Context(), kgo.TryAbort))
		}, end: 3},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLog(t)
			test.write(t, l)
			s := table.New()
			s.Advance(0, test.at)
			require.NoError(t, s.Skip(t.Context(), l.cl, "accounts", map[int32]int64{0: test.end}))
			next, _ := s.Position(0)
			require.Equal(t, test.passes, next)
		})
	}
}

func TestSkipMovesNothingWhenTheBrokersDoNotAnswer(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	produce(t, l.cl, 3)
	s := table.New()
	l.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.TopicAuthorizationFailed})
	require.ErrorIs(t, s.Skip(t.Context(), l.cl, "accounts", map[int32]int64{0: 3}), kerr.TopicAuthorizationFailed)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, s.Skip(ctx, l.cl, "accounts", map[int32]int64{0: 3}))
	next, _ := s.Position(0)
	require.Zero(t, next)
}
