package table_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/internal/table"
)

// virtual is an embedded broker in a bubble, with the topic accounts of one
// partition. Its cleaner runs when told.
type virtual struct {
	*kfake.Cluster
	cl     *kgo.Client
	config map[string]string
}

// inBubble runs a test in virtual time.
func inBubble(t *testing.T, test func(t *testing.T, v *virtual), settings ...string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		network := &kfake.VirtualNetwork{}
		fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(network.Listen),
			kfake.BrokerConfigs(map[string]string{"log.cleaner.backoff.ms": "315360000000"}))
		require.NoError(t, err)
		defer fake.Close()
		v := &virtual{Cluster: fake, config: map[string]string{"cleanup.policy": "compact", "retention.ms": "-1"}}
		for pair := range slices.Chunk(settings, 2) {
			v.config[pair[0]] = pair[1]
		}
		require.NoError(t, fake.CreateTopic("accounts", 1, v.config))
		v.cl, err = kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.Dialer(network.DialContext), kgo.DisableClientMetrics(), kgo.MetadataMinAge(10*time.Millisecond))
		require.NoError(t, err)
		defer v.cl.Close()
		test(t, v)
	})
}

func (v *virtual) restore(t *testing.T, part *table.Part) error {
	t.Helper()
	return table.Restore(t.Context(), v.cl, nil, "accounts", map[int32]*table.Part{0: part}, quiet, nil)
}

func (v *virtual) transact(t *testing.T, end kgo.TransactionEndTry, writes func(cl *kgo.Client)) {
	t.Helper()
	tx, err := kgo.NewClient(slices.Concat(v.cl.Opts(), []kgo.Opt{kgo.TransactionalID("tx")})...)
	require.NoError(t, err)
	defer tx.Close()
	require.NoError(t, tx.BeginTransaction())
	writes(tx)
	require.NoError(t, tx.EndTransaction(t.Context(), end))
}

// held has the next fetch wait until release is called; begun is closed when it
// is there.
func (v *virtual) held() (begun <-chan struct{}, release func()) {
	there, free := make(chan struct{}), make(chan struct{})
	var once sync.Once
	v.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		once.Do(func() { close(there) })
		v.SleepControl(func() { <-free })
		return nil, nil, false
	})
	return there, sync.OnceFunc(func() { close(free) })
}

func deleteTo(t *testing.T, cl *kgo.Client, offset int64) {
	t.Helper()
	gone := kadm.Offsets{}
	gone.Add(kadm.Offset{Topic: "accounts", At: offset})
	_, err := kadm.NewClient(cl).DeleteRecords(t.Context(), gone)
	require.NoError(t, err)
}

func TestRestoreOfRecordsThatWereDeletedBefore(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		to   int64
		want map[string]string
	}{{1, map[string]string{"b": "2", "c": "3"}}, {2, map[string]string{"c": "3"}}, {3, map[string]string{}}} {
		t.Run(strconv.FormatInt(test.to, 10), func(t *testing.T) {
			t.Parallel()
			k := compacted(t, 1)
			cl := manual(t, k)
			for i, key := range []string{"a", "b", "c"} {
				write(t, cl, 0, key, strconv.Itoa(i+1))
			}
			if !k.Embedded() { // which deletes only from topics that may delete
				alter(t, cl, "cleanup.policy", "compact,delete")
			}
			warm := newParts(1)
			restore(t, k, warm)
			deleteTo(t, cl, test.to)
			cold := newParts(1)
			restore(t, k, cold)
			require.Equal(t, test.want, values(cold[0]))
			require.EqualValues(t, 3, cold[0].Next())
			restore(t, k, warm)
			require.Equal(t, test.want, values(warm[0]), "as if it had been read now")
		})
	}
}

func alter(t *testing.T, cl *kgo.Client, name, value string) {
	t.Helper()
	altered, err := kadm.NewClient(cl).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: name, Value: &value}}, "accounts")
	require.NoError(t, err)
	require.NoError(t, altered[0].Err)
}

// After Restore has learned how far it has to read.
func TestRestoreOfRecordsThatAreDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	for to, want := range map[int]map[string]string{1: {"1": "1", "2": "2"}, 3: {}} {
		t.Run(strconv.Itoa(to), func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, v *virtual) {
				for i := range 3 {
					write(t, v.cl, 0, strconv.Itoa(i), strconv.Itoa(i))
				}
				begun, release := v.held()
				part, done := table.NewPart(nil), make(chan error, 1)
				go func() { done <- v.restore(t, part) }()
				<-begun
				synctest.Wait()
				deleteTo(t, v.cl, int64(to))
				release()
				require.NoError(t, <-done)
				require.Equal(t, want, values(part))
				require.EqualValues(t, 3, part.Next())
			})
		})
	}
}

func TestRestoreOfATopicThatIsMadeAnewMeanwhile(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]int{"empty": 0, "shorter": 1, "longer": 5} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, v *virtual) {
				part := table.NewPart(nil)
				write(t, v.cl, 0, "old", "1")
				require.NoError(t, v.restore(t, part))
				write(t, v.cl, 0, "older", "1")
				write(t, v.cl, 0, "oldest", "1")
				begun, release := v.held()
				done := make(chan error, 1)
				go func() { done <- v.restore(t, part) }()
				<-begun
				synctest.Wait()
				require.NoError(t, v.DeleteTopic("accounts"))
				require.NoError(t, v.CreateTopic("accounts", 1, v.config))
				want := map[string]string{}
				for i := range after {
					key := strconv.Itoa(i)
					write(t, v.anew(t), 0, key, "new")
					want[key] = "new"
				}
				release()
				require.NoError(t, <-done)
				require.Equal(t, want, values(part))
				require.EqualValues(t, after, part.Next())
			})
		})
	}
}

// anew opens a client that does not know the topics of before.
func (v *virtual) anew(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(slices.Concat(v.cl.Opts(), opts)...)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

func TestRestoreOfWhatCompactionLeft(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		write func(t *testing.T, v *virtual)
		want  map[string]string
	}{
		{"superseded records", func(t *testing.T, v *virtual) {
			for i := range 5 {
				write(t, v.cl, 0, "a", strconv.Itoa(i))
			}
		}, map[string]string{"a": "4"}},
		{"two tombstones are last", func(t *testing.T, v *virtual) {
			write(t, v.cl, 0, "a", "1")
			write(t, v.cl, 0, "b", "2")
			write(t, v.cl, 0, "a")
			write(t, v.cl, 0, "a")
		}, map[string]string{"b": "2"}},
		{"nothing but tombstones", func(t *testing.T, v *virtual) {
			write(t, v.cl, 0, "a", "1")
			write(t, v.cl, 0, "a")
		}, map[string]string{}},
		{"a commit's mark is last", func(t *testing.T, v *virtual) {
			write(t, v.cl, 0, "a", "1")
			v.transact(t, kgo.TryCommit, func(cl *kgo.Client) { write(t, cl, 0, "a", "2") })
		}, map[string]string{"a": "2"}},
		{"an abort's mark is last", func(t *testing.T, v *virtual) {
			write(t, v.cl, 0, "a", "1")
			v.transact(t, kgo.TryAbort, func(cl *kgo.Client) { write(t, cl, 0, "a", "2") })
		}, map[string]string{"a": "1"}},
		{"one batch whose last records were superseded", func(t *testing.T, v *virtual) {
			var batch []*kgo.Record
			for i := range 10 {
				batch = append(batch, &kgo.Record{Topic: "accounts", Key: []byte(strconv.Itoa(i % 2)), Value: []byte("1")})
			}
			require.NoError(t, v.cl.ProduceSync(t.Context(), batch...).FirstErr())
			write(t, v.cl, 0, "0", "2")
			write(t, v.cl, 0, "1", "2")
		}, map[string]string{"0": "2", "1": "2"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, v *virtual) {
				test.write(t, v)
				<-time.After(time.Hour)
				v.Compact()
				part := table.NewPart(nil)
				require.NoError(t, v.restore(t, part))
				require.Equal(t, test.want, values(part))
				require.Equal(t, v.PartitionInfo("accounts", 0).HighWatermark, part.Next())
			}, "delete.retention.ms", "0")
		})
	}
}

// An embedded broker that was killed forgets the marks of transactions that
// were open: what they wrote stands in the log for ever and is read by nobody.
// That others write to another partition does not keep Restore from asking.
func TestRestoreOfATailThatWasAbortedWithoutAMark(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func(dir string) (*kfake.Cluster, *kgo.Client) {
		fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(dir), kfake.BrokerConfigs(map[string]string{"log.cleaner.backoff.ms": "315360000000"}))
		require.NoError(t, err)
		t.Cleanup(fake.Close)
		cl, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.DisableClientMetrics(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		require.NoError(t, err)
		t.Cleanup(cl.Close)
		return fake, cl
	}
	fake, cl := open(dir)
	require.NoError(t, fake.CreateTopic("accounts", 2, map[string]string{"cleanup.policy": "compact", "retention.ms": "-1"}))
	write(t, cl, 0, "a", "1")
	tx, err := kgo.NewClient(slices.Concat(cl.Opts(), []kgo.Opt{kgo.TransactionalID("tx")})...)
	require.NoError(t, err)
	defer tx.Close()
	require.NoError(t, tx.BeginTransaction())
	for range 3 {
		write(t, tx, 0, "a", "2")
	}
	killed := filepath.Join(t.TempDir(), "killed") // what a kill would leave
	require.NoError(t, os.CopyFS(killed, live{os.DirFS(dir)}))

	after, cl := open(killed)
	require.EqualValues(t, 4, after.PartitionInfo("accounts", 0).HighWatermark, "the aborted records are still in the log")
	ctx, stop := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	defer writer.Wait()
	defer stop()
	writer.Go(func() {
		for ctx.Err() == nil {
			_ = cl.ProduceSync(ctx, &kgo.Record{Topic: "accounts", Partition: 1, Key: []byte("b"), Value: []byte("1")}).FirstErr()
		}
	})
	parts := newParts(2)
	require.NoError(t, table.Restore(limited(t), cl, nil, "accounts", parts, quiet, nil))
	require.Equal(t, map[string]string{"a": "1"}, values(parts[0]))
	require.EqualValues(t, 4, parts[0].Next())
}

// live is a folder in use, without the files that are about to be renamed.
type live struct{ fs.FS }

func (l live) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(l.FS, name)
	return slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return filepath.Ext(e.Name()) == ".tmp" }), err
}
