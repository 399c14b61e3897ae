package wherry_test

import (
	"context"
	"errors"
	"fmt"
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

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// compacted makes the topic that the tables of these tests follow.
func compacted(t *testing.T, k *kafkatest.Cluster, partitions int) {
	t.Helper()
	k.Create(t, kafkatest.Topic{Name: "accounts", Partitions: partitions, Config: map[string]string{"cleanup.policy": "compact", "retention.ms": "-1"}})
}

func accounts(cl *kgo.Client) *wherry.Table[order] {
	return &wherry.Table[order]{Client: cl, Topic: "accounts"}
}

// put writes a value, or deletes the key if it is nil, and returns when the
// broker has it.
func put(t *testing.T, cl *kgo.Client, key string, v *order) *kgo.Record {
	t.Helper()
	r, err := (&wherry.Table[*order]{Topic: "accounts"}).Record(key, v)
	require.NoError(t, err)
	require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())
	return r
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// contents are all keys of a table with their totals.
func contents(t *testing.T, table *wherry.Table[order]) map[string]int {
	t.Helper()
	all := map[string]int{}
	for m, err := range table.All(limited(t)) {
		require.NoError(t, err)
		all[string(m.Record.Key)] = m.Value.Total
	}
	return all
}

func TestTable_RestoresAndFollows(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	compacted(t, k, 3)
	cl := k.Client(t)
	put(t, cl, "a", &order{Total: 1})
	put(t, cl, "b", &order{Total: 2})
	put(t, cl, "a", &order{Total: 3})
	put(t, cl, "c", &order{Total: 4})
	put(t, cl, "c", nil)
	put(t, cl, "never", nil)
	put(t, cl, "", &order{Total: 5})

	table := accounts(cl)
	require.Equal(t, wherry.TableStatus{}, table.Status())
	kafkatest.Run(t, table)
	require.Equal(t, wherry.TableStatus{Ready: true, Keys: 3}, table.Status())
	require.Equal(t, map[string]int{"a": 3, "b": 2, "": 5}, contents(t, table))

	for _, step := range []struct {
		key  string
		v    *order
		want map[string]int
	}{
		{"a", &order{Total: 10}, map[string]int{"a": 10, "b": 2, "": 5}},
		{"b", nil, map[string]int{"a": 10, "": 5}},
		{"b", nil, map[string]int{"a": 10, "": 5}},
		{"b", &order{Total: 20}, map[string]int{"a": 10, "b": 20, "": 5}},
		{"", nil, map[string]int{"a": 10, "b": 20}},
	} {
		require.NoError(t, table.Wait(limited(t), put(t, cl, step.key, step.v)))
		require.Equal(t, step.want, contents(t, table))
	}
	got, ok, err := table.Get(limited(t), "a")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, 10, got.Total)
	got, ok, err = table.Get(limited(t), "never")
	require.NoError(t, err)
	require.False(t, ok)
	require.Zero(t, got)
	r := table.Tombstone("a")
	require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())
	require.NoError(t, table.Wait(limited(t), r))
	require.Equal(t, map[string]int{"b": 20}, contents(t, table))
}

func TestTable_AnEmptyTopicIsReadyAtOnce(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	compacted(t, k, 5)
	table := accounts(k.Client(t))
	kafkatest.Run(t, table)
	require.Empty(t, contents(t, table))
	require.NoError(t, table.Sync(limited(t)))
}

func TestTable_WaitsForATopicThatIsMadeLater(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	cl := k.Client(t)
	table := accounts(cl)
	kafkatest.Run(t, kafkatest.RunFunc(table.Run)) // as a RunFunc, so that Run does not wait
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, _, err := table.Get(ctx, "a")
	require.ErrorIs(t, err, context.DeadlineExceeded)

	compacted(t, k, 2)
	r := put(t, k.Client(t), "a", &order{Total: 1})
	require.NoError(t, table.Wait(limited(t), r))
	require.Equal(t, map[string]int{"a": 1}, contents(t, table))
}

func TestTable_AValueThatDoesNotDecodeStopsOnlyThoseWhoAsk(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	compacted(t, k, 1)
	cl := k.Client(t)
	put(t, cl, "good", &order{Total: 1})
	bad := &kgo.Record{Topic: "accounts", Key: []byte("bad"), Value: []byte("{")}
	require.NoError(t, cl.ProduceSync(t.Context(), bad).FirstErr())
	table := accounts(cl)
	kafkatest.Run(t, table)

	_, ok, err := table.Get(limited(t), "bad")
	var e *wherry.RecordError
	require.ErrorAs(t, err, &e)
	require.Equal(t, "accounts/0@1 undecodable", fmt.Sprintf("%s/%d@%d %s", e.Topic, e.Partition, e.Offset, e.Cause))
	require.False(t, ok)
	_, ok, err = table.Get(limited(t), "good")
	require.NoError(t, err)
	require.True(t, ok)
	var good, undecodable int
	for m, err := range table.All(limited(t)) {
		if err != nil {
			undecodable++
			require.Equal(t, "bad", string(m.Record.Key))
			continue
		}
		good++
	}
	require.Equal(t, []int{1, 1}, []int{good, undecodable})
	for range table.All(limited(t)) {
		break // a range may be left early
	}
}

func TestTable_CallersDoNotShareValues(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	compacted(t, k, 1)
	cl := k.Client(t)
	r := &kgo.Record{Topic: "accounts", Key: []byte("a"), Value: []byte(`[1,2]`), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}}
	require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())
	table := &wherry.Table[[]int]{Client: cl, Topic: "accounts"}
	kafkatest.Run(t, table)

	first, _, err := table.Get(limited(t), "a")
	require.NoError(t, err)
	first[0] = 99
	for m, err := range table.All(limited(t)) {
		require.NoError(t, err)
		m.Value[1] = 99
		copy(m.Record.Value, "[7,7]")
		m.Record.Headers[0].Value[0] = 'x'
		m.Record.Headers[0].Key = "x"
	}
	second, _, err := table.Get(limited(t), "a")
	require.NoError(t, err)
	require.Equal(t, []int{1, 2}, second)
	for m := range table.All(limited(t)) {
		require.Equal(t, r.Headers, m.Record.Headers)
		require.Equal(t, r.Timestamp.UnixMilli(), m.Record.Timestamp.UnixMilli())
		require.NotNil(t, m.Context)
	}
}

func TestTable_GetBeforeItIsReadyWaitsUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	compacted(t, k, 1)
	table := accounts(k.Client(t))
	stop := errors.New("the request is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	_, _, err := table.Get(ctx, "a")
	require.ErrorIs(t, err, stop)
	require.ErrorContains(t, err, "table accounts: waiting for it")
	for _, err := range table.All(ctx) {
		require.ErrorIs(t, err, stop)
	}
	require.ErrorIs(t, table.Sync(ctx), stop)
	require.ErrorIs(t, table.Wait(ctx, &kgo.Record{Topic: "accounts"}), stop)

	put(t, k.Client(t), "a", &order{Total: 1})
	got := make(chan int, 1)
	go func() {
		v, _, _ := table.Get(context.Background(), "a")
		got <- v.Total
	}()
	kafkatest.Run(t, table)
	require.Equal(t, 1, receive(t, got, "Get"))
}

func TestTable_EndsWithItsContextAndRunsOnce(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	compacted(t, k, 1)
	cl := k.Client(t)
	put(t, cl, "a", &order{Total: 1})
	table := accounts(cl)
	stop := kafkatest.Run(t, table)
	require.NoError(t, stop())
	require.ErrorContains(t, table.Run(t.Context()), "has run already")
	require.False(t, table.Status().Ready)

	// Handlers that drain may still read.
	v, ok, err := table.Get(t.Context(), "a")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, 1, v.Total)
	require.ErrorContains(t, table.Wait(limited(t), put(t, cl, "b", &order{})), "it has stopped")
	require.NoError(t, cl.Ping(t.Context()), "the lent client is not closed")
}

func TestTable_RefusesABadConfiguration(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	for name, table := range map[string]*wherry.Table[order]{
		"set Client":    {Topic: "accounts"},
		"set Topic":     {Client: k.Client(t)},
		"ConsumeTopics": {Client: k.Client(t, kgo.ConsumeTopics("accounts")), Topic: "accounts"},
	} {
		err := table.Run(t.Context())
		require.ErrorContains(t, err, name)
		_, _, getErr := table.Get(limited(t), "a")
		require.Equal(t, err, getErr, "who waits hears why")
	}
}

func TestTable_WaitOfAnotherTopicIsRefused(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, accounts(nil).Wait(t.Context(), &kgo.Record{Topic: "orders"}), "a record of topic orders")
}

func TestTable_SyncReadsWhatOthersWrote(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	compacted(t, k, 4)
	table := accounts(k.Client(t))
	kafkatest.Run(t, table)
	var writers sync.WaitGroup
	errs := make([]error, 4)
	for w := range errs {
		cl := k.Client(t)
		writers.Go(func() {
			for i := range 25 {
				key := fmt.Sprint(w, "-", i)
				r, err := table.Record(key, order{Total: i})
				if err == nil {
					err = cl.ProduceSync(t.Context(), r).FirstErr()
				}
				if err == nil {
					err = table.Sync(t.Context())
				}
				v, ok, getErr := table.Get(t.Context(), key)
				if err = errors.Join(err, getErr); err == nil && (!ok || v.Total != i) {
					err = fmt.Errorf("after Sync %s is %v, %v", key, v, ok)
				}
				errs[w] = errors.Join(errs[w], err)
			}
		})
	}
	var readers sync.WaitGroup
	ctx, stopReaders := context.WithCancel(t.Context())
	readers.Go(func() {
		for last := 0; ctx.Err() == nil; {
			n := 0
			for _, err := range table.All(context.Background()) {
				if err == nil {
					n++
				}
			}
			if n < last {
				panic("keys vanished")
			}
			last = n
		}
	})
	writers.Wait()
	stopReaders()
	readers.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Equal(t, 100, table.Status().Keys)
}

// transact writes key as part of a transaction and decides it, unless end is
// nil; what it returns decides it then.
func transact(t *testing.T, k *kafkatest.Cluster, id, key string, v *order) (end func(kgo.TransactionEndTry)) {
	t.Helper()
	cl := k.Client(t, kgo.TransactionalID(id))
	require.NoError(t, cl.BeginTransaction())
	put(t, cl, key, v)
	return func(how kgo.TransactionEndTry) {
		require.NoError(t, cl.EndTransaction(t.Context(), how))
	}
}

func TestTable_TailsOfTransactions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		write func(t *testing.T, k *kafkatest.Cluster)
		want  map[string]int
	}{
		{"a commit's mark is last", func(t *testing.T, k *kafkatest.Cluster) {
			transact(t, k, "tx", "a", &order{Total: 1})(kgo.TryCommit)
		}, map[string]int{"a": 1}},
		{"an abort's mark is last", func(t *testing.T, k *kafkatest.Cluster) {
			put(t, k.Client(t), "a", &order{Total: 1})
			transact(t, k, "tx", "a", &order{Total: 2})(kgo.TryAbort)
		}, map[string]int{"a": 1}},
		{"nothing but an abort", func(t *testing.T, k *kafkatest.Cluster) {
			transact(t, k, "tx", "a", &order{Total: 2})(kgo.TryAbort)
		}, map[string]int{}},
		{"transactions that overlap", func(t *testing.T, k *kafkatest.Cluster) {
			one, two := transact(t, k, "one", "a", &order{Total: 1}), transact(t, k, "two", "b", &order{Total: 2})
			put(t, k.Client(t), "c", &order{Total: 3})
			two(kgo.TryAbort)
			one(kgo.TryCommit)
		}, map[string]int{"a": 1, "c": 3}},
		{"a deletion that was aborted", func(t *testing.T, k *kafkatest.Cluster) {
			put(t, k.Client(t), "a", &order{Total: 1})
			transact(t, k, "tx", "a", nil)(kgo.TryAbort)
		}, map[string]int{"a": 1}},
		{"a deletion that was committed", func(t *testing.T, k *kafkatest.Cluster) {
			put(t, k.Client(t), "a", &order{Total: 1})
			transact(t, k, "tx", "a", nil)(kgo.TryCommit)
		}, map[string]int{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t)
			compacted(t, k, 1)
			test.write(t, k)
			table := accounts(k.Client(t))
			kafkatest.Run(t, table)
			require.Equal(t, test.want, contents(t, table))
			require.NoError(t, table.Sync(limited(t)))
			require.Zero(t, table.Status().Lag)
		})
	}
}

// Ready promises all that the topic held, so a transaction that was open when
// Run began must be decided first.
func TestTable_AnOpenTransactionIsWaitedFor(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]kgo.TransactionEndTry{"committed": kgo.TryCommit, "aborted": kgo.TryAbort} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t)
			compacted(t, k, 1)
			put(t, k.Client(t), "a", &order{Total: 1})
			decide := transact(t, k, "tx", "a", &order{Total: 2})
			put(t, k.Client(t), "b", &order{Total: 3})
			table := accounts(k.Client(t))
			kafkatest.Run(t, kafkatest.RunFunc(table.Run))
			select {
			case <-table.Ready():
				require.FailNow(t, "ready before the transaction was decided")
			case <-time.After(1500 * time.Millisecond): // longer than the table takes to look what is left
			}
			decide(end)
			receive(t, table.Ready(), "the table to be ready")
			require.Equal(t, map[string]int{"a": map[kgo.TransactionEndTry]int{kgo.TryCommit: 2, kgo.TryAbort: 1}[end], "b": 3}, contents(t, table))
		})
	}
}

func TestTable_ManyKeys(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("200,000 records")
	}
	const keys = 200_000
	k := kafkatest.NewCluster(t)
	compacted(t, k, 4)
	cl := k.Client(t, kgo.MaxBufferedRecords(keys), kgo.ProducerLinger(5*time.Millisecond))
	var records []*kgo.Record
	for i := range keys {
		records = append(records, &kgo.Record{Topic: "accounts", Key: []byte("key-" + strconv.Itoa(i)), Value: fmt.Appendf(nil, `{"id":"o-%d","total":%d}`, i, i)})
	}
	require.NoError(t, cl.ProduceSync(t.Context(), records...).FirstErr())
	table := accounts(k.Client(t))
	begin := time.Now()
	kafkatest.Run(t, table)
	took := time.Since(begin)
	require.Equal(t, keys, table.Status().Keys)
	v, ok, err := table.Get(t.Context(), "key-123456")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, 123456, v.Total)
	t.Logf("%d keys in %v, %.0f a second", keys, took.Round(time.Millisecond), keys/took.Seconds())
}

// virtual starts an embedded broker in a bubble with the topic accounts, and
// returns how to reach it.
func virtual(t *testing.T, settings ...string) (*kfake.Cluster, []kgo.Opt) {
	t.Helper()
	network := &kfake.VirtualNetwork{}
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(network.Listen),
		kfake.BrokerConfigs(map[string]string{"log.cleaner.backoff.ms": "315360000000"}))
	require.NoError(t, err)
	config := map[string]string{"cleanup.policy": "compact", "retention.ms": "-1"}
	for i := 0; i < len(settings); i += 2 {
		config[settings[i]] = settings[i+1]
	}
	require.NoError(t, fake.CreateTopic("accounts", 1, config))
	return fake, []kgo.Opt{kgo.SeedBrokers(fake.ListenAddrs()...), kgo.Dialer(network.DialContext), kgo.DisableClientMetrics(), kgo.MetadataMinAge(10 * time.Millisecond)}
}

// Its records are deleted after the table has learned how far it has to read.
func TestTable_IsReadyThoughItsTopicIsEmptiedWhileItIsRestored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake, opts := virtual(t)
		defer fake.Close()
		cl, err := kgo.NewClient(opts...)
		require.NoError(t, err)
		defer cl.Close()
		for i := range 3 {
			put(t, cl, strconv.Itoa(i), &order{Total: i})
		}
		// The first fetch is held until the records are gone.
		begun, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		fake.ControlKey(1, func(kmsg.Request) (kmsg.Response, error, bool) {
			once.Do(func() { close(begun) })
			fake.SleepControl(func() { <-release })
			return nil, nil, false
		})
		table := accounts(cl)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- table.Run(ctx) }()
		<-begun
		synctest.Wait()
		gone := kadm.Offsets{}
		gone.Add(kadm.Offset{Topic: "accounts", Partition: 0, At: 3})
		_, err = kadm.NewClient(cl).DeleteRecords(ctx, gone)
		require.NoError(t, err)
		close(release)

		begin := time.Now()
		receive(t, table.Ready(), "the table to be ready")
		require.Less(t, time.Since(begin), 10*time.Second)
		require.NoError(t, table.Sync(ctx))
		require.NoError(t, table.Wait(ctx, put(t, cl, "a", &order{Total: 1})))
		require.Equal(t, 1, contents(t, table)["a"])
		cancel()
		require.NoError(t, <-done)
	})
}

// As above, of a record that a caller waits for.
func TestTable_WaitAndSyncPassRecordsThatAreGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake, opts := virtual(t)
		defer fake.Close()
		cl, err := kgo.NewClient(opts...)
		require.NoError(t, err)
		defer cl.Close()
		table := accounts(cl)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- table.Run(ctx) }()
		receive(t, table.Ready(), "the table to be ready")

		begun, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		fake.ControlKey(1, func(kmsg.Request) (kmsg.Response, error, bool) {
			once.Do(func() { close(begun) })
			fake.SleepControl(func() { <-release })
			return nil, nil, false
		})
		<-begun // no fetch is under way that the record could end
		r := put(t, cl, "a", &order{Total: 1})
		gone := kadm.Offsets{}
		gone.Add(kadm.Offset{Topic: "accounts", Partition: 0, At: 1})
		_, err = kadm.NewClient(cl).DeleteRecords(ctx, gone)
		require.NoError(t, err)
		close(release)
		limit, stop := context.WithTimeout(ctx, 10*time.Second)
		defer stop()
		require.NoError(t, table.Wait(limit, r))
		require.NoError(t, table.Sync(limit))
		require.Empty(t, contents(t, table))
		cancel()
		require.NoError(t, <-done)
	})
}

// An embedded broker that was killed forgets the marks of transactions that
// were open: what they wrote stands in the log for ever and is read by nobody.
func TestTable_IsReadyThoughATailWasAbortedWithoutAMark(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func(dir string) (*kfake.Cluster, *kgo.Client) {
		fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(dir), kfake.BrokerConfigs(map[string]string{"log.cleaner.backoff.ms": "315360000000"}))
		require.NoError(t, err)
		t.Cleanup(fake.Close)
		cl, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.DisableClientMetrics())
		require.NoError(t, err)
		t.Cleanup(cl.Close)
		return fake, cl
	}
	fake, cl := open(dir)
	require.NoError(t, fake.CreateTopic("accounts", 1, map[string]string{"cleanup.policy": "compact", "retention.ms": "-1"}))
	put(t, cl, "a", &order{Total: 1})
	tx, err := kgo.NewClient(slices.Concat(cl.Opts(), []kgo.Opt{kgo.TransactionalID("tx")})...)
	require.NoError(t, err)
	defer tx.Close()
	require.NoError(t, tx.BeginTransaction())
	for i := range 3 {
		put(t, tx, "a", &order{Total: 2 + i})
	}
	killed := filepath.Join(t.TempDir(), "killed") // what a kill would leave
	copyDir(t, dir, killed)

	_, after := open(killed)
	ends, err := kadm.NewClient(after).ListEndOffsets(t.Context(), "accounts")
	require.NoError(t, err)
	require.EqualValues(t, 4, ends["accounts"][0].Offset, "the aborted records are still in the log")
	table := accounts(after)
	kafkatest.Run(t, table)
	require.Equal(t, map[string]int{"a": 1}, contents(t, table))
	require.NoError(t, table.Sync(limited(t)))
}

// copyDir copies a folder that is in use; what has been renamed away meanwhile
// is left out.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), b, 0o600)
	}))
}

func TestTable_IsReadyWhateverCompactionLeft(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		write func(t *testing.T, cl *kgo.Client)
		want  map[string]int
	}{
		{"superseded records", func(t *testing.T, cl *kgo.Client) {
			for i := range 5 {
				put(t, cl, "a", &order{Total: i})
			}
		}, map[string]int{"a": 4}},
		{"a tombstone is last", func(t *testing.T, cl *kgo.Client) {
			put(t, cl, "a", &order{Total: 1})
			put(t, cl, "b", &order{Total: 2})
			put(t, cl, "a", nil)
		}, map[string]int{"b": 2}},
		{"two tombstones are last", func(t *testing.T, cl *kgo.Client) {
			put(t, cl, "a", &order{Total: 1})
			put(t, cl, "a", nil)
			put(t, cl, "a", nil)
		}, map[string]int{}},
		{"a commit's mark is last", func(t *testing.T, cl *kgo.Client) {
			put(t, cl, "a", &order{Total: 1})
			inTransaction(t, cl, kgo.TryCommit, "a", &order{Total: 2})
		}, map[string]int{"a": 2}},
		{"an abort's mark is last", func(t *testing.T, cl *kgo.Client) {
			put(t, cl, "a", &order{Total: 1})
			inTransaction(t, cl, kgo.TryAbort, "a", &order{Total: 2})
		}, map[string]int{"a": 1}},
		{"a committed record that was superseded, and its mark", func(t *testing.T, cl *kgo.Client) {
			inTransaction(t, cl, kgo.TryCommit, "a", &order{Total: 1})
			put(t, cl, "a", &order{Total: 2})
		}, map[string]int{"a": 2}},
		{"one batch whose last records were superseded", func(t *testing.T, cl *kgo.Client) {
			var batch []*kgo.Record
			for i := range 10 {
				batch = append(batch, &kgo.Record{Topic: "accounts", Key: []byte(strconv.Itoa(i % 2)), Value: []byte(`{"total":1}`)})
			}
			require.NoError(t, cl.ProduceSync(t.Context(), batch...).FirstErr())
			put(t, cl, "0", &order{Total: 2})
			put(t, cl, "1", &order{Total: 2})
		}, map[string]int{"0": 2, "1": 2}},
	}
	for _, test := range tests {
		for _, retention := range []string{"-1", "1"} {
			t.Run(test.name+", retention.ms="+retention, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					fake, opts := virtual(t, "retention.ms", retention, "delete.retention.ms", "0")
					defer fake.Close()
					cl, err := kgo.NewClient(opts...)
					require.NoError(t, err)
					defer cl.Close()
					test.write(t, cl)
					<-time.After(time.Hour)
					fake.Compact()
					want := test.want
					if retention != "-1" {
						want = map[string]int{} // all of it was old
					}
					table := accounts(cl)
					ctx, cancel := context.WithCancel(t.Context())
					done := make(chan error, 1)
					go func() { done <- table.Run(ctx) }()
					receive(t, table.Ready(), "the table to be ready")
					require.Equal(t, want, contents(t, table))
					require.NoError(t, table.Sync(ctx))
					cancel()
					require.NoError(t, <-done)
				})
			})
		}
	}
}

func inTransaction(t *testing.T, cl *kgo.Client, end kgo.TransactionEndTry, key string, v *order) {
	t.Helper()
	tx, err := kgo.NewClient(slices.Concat(cl.Opts(), []kgo.Opt{kgo.TransactionalID("tx")})...)
	require.NoError(t, err)
	defer tx.Close()
	require.NoError(t, tx.BeginTransaction())
	put(t, tx, key, v)
	require.NoError(t, tx.EndTransaction(t.Context(), end))
}
