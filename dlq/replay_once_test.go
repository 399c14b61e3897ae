package dlq_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wherry-go/wherry/dlq"
	"github.com/wherry-go/wherry/kafkatest"
)

// desk is a cluster with dead letters in "dead", of two partitions, that failed
// in "orders", of three. Some were replayed too often and are to be parked, and
// some cannot be copied.
type desk struct {
	bench
	k       *kafkatest.Cluster
	letters []*kgo.Record
}

var deskTopics = []string{"orders:3", "dead:2"}

const deskLetters = 30

func newDesk(t *testing.T, k *kafkatest.Cluster) desk {
	t.Helper()
	d := desk{bench: bench{cl: k.Client(t), opts: k.Opts(), timeout: k.Timeout}, k: k}
	for i := range deskLetters {
		d.letters = append(d.letters, d.bury(t, letter(i, func(l *dlq.Letter) {
			switch i % 10 {
			case 4:
				l.Replays = 3
			case 7:
				l.Topic = "gone"
			}
		}))...)
	}
	return d
}

// process is a client of a process of its own.
func (d desk) process(t *testing.T, name string) bench {
	t.Helper()
	d.cl = d.k.Client(t, kgo.ClientID(name))
	return d.bench
}

// slowly makes a run one of several transactions, where time is virtual.
func slowly(r *dlq.Replayer) { r.Rate = 100 }

// check requires that each letter that can be copied is, once, as a reader of
// what is committed sees it, and that the ledger says where.
func (d desk) check(t *testing.T) {
	t.Helper()
	copies := map[string]*kgo.Record{}
	last := map[int32]int{}
	for _, topic := range []string{"orders", "dead.parked"} {
		for _, c := range d.content(t, topic) {
			require.NotContains(t, copies, string(c.Key), "copied twice")
			copies[string(c.Key)] = c
		}
	}
	require.Len(t, copies, deskLetters-deskLetters/10)
	decided := map[string]*dlq.Decision{}
	for e, err := range d.replayer(func(r *dlq.Replayer) { r.Select.Decided = true }).List(t.Context()) {
		require.NoError(t, err)
		decided[string(e.Key)] = e.Decision
		n, err := strconv.Atoi(string(e.Key[2:]))
		require.NoError(t, err)
		require.GreaterOrEqual(t, n, last[e.Record.Partition])
		last[e.Record.Partition] = n
	}
	require.Len(t, decided, deskLetters)
	for i := range deskLetters {
		key := fmt.Sprintf("k-%d", i)
		c, by := copies[key], decided[key]
		if i%10 == 7 {
			require.Nil(t, c, key)
			require.Nil(t, by, key)
			continue
		}
		require.NotNil(t, c, key)
		require.NotNil(t, by, key)
		require.Equal(t, i%10 == 4, by.Action == dlq.Park, key)
		require.Equal(t, []any{c.Topic, c.Partition, c.Offset}, []any{by.To, by.ToPartition, by.ToOffset}, key)
		require.Equal(t, []string{"tester", "a test"}, []string{by.By, by.Why}, key)
	}
	left := d.replayer(func(r *dlq.Replayer) { r.DryRun = true })
	report, err := left.Run(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int{deskLetters - deskLetters/10, deskLetters / 10}, []int{report.Decided, report.Failed})
}

// begin runs a Replayer beside the test. end stops it, unless it has ended.
func (b bench) begin(t *testing.T, change ...func(*dlq.Replayer)) (end func(stop bool) (dlq.Report, error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	type result struct {
		dlq.Report
		err error
	}
	done := make(chan result, 1)
	r := b.replayer(change...)
	go func() {
		report, err := r.Run(ctx)
		done <- result{report, err}
	}()
	return func(stop bool) (dlq.Report, error) {
		if stop {
			cancel()
		}
		res := <-done
		cancel()
		return res.Report, res.err
	}
}

// killAt kills a run at its n-th request, has another one finish what it left,
// and checks. It reports whether there were so many requests.
func killAt(t *testing.T, d desk, which kafkatest.Requests, after bool) bool {
	t.Helper()
	which.Client = "first"
	crash := d.k.Crash
	if after {
		crash = d.k.CrashAfter
	}
	fault := crash(t, which)
	first := d.process(t, "first")
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_, err := first.replayer(slowly).Run(ctx)
		ended <- err
	}()
	hit := make(chan struct{})
	go func() {
		defer close(hit)
		for fault.Hits() == 0 && ctx.Err() == nil {
			d.k.Sleep(t, time.Millisecond)
		}
	}()
	select {
	case <-hit:
	case err := <-ended:
		cancel()
		<-hit
		require.True(t, err == nil || fault.Hits() > 0, "%v", err)
		d.process(t, "second").run(t, slowly)
		d.check(t)
		return fault.Hits() > 0
	}
	successor := d.process(t, "second")
	report := successor.run(t, slowly)
	require.Equal(t, deskLetters, report.Decided+report.Selected)
	cancel() // what is left of the process can do no more harm
	<-ended
	d.check(t)
	return true
}

// The process of a run dies at each of its requests in turn, before the broker
// has got it or when it has done it.
func TestReplayOnce_AfterAKillAtAnyRequest(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		t.Run(map[bool]string{false: "before", true: "after"}[after], func(t *testing.T) {
			t.Parallel()
			killed := 0
			for more := true; more; {
				kafkatest.Test(t, deskTopics, func(t *testing.T, k *kafkatest.Cluster) {
					k.WallLimit(time.Minute)
					more = killAt(t, newDesk(t, k), kafkatest.Requests{Skip: killed}, after)
				})
				if t.Failed() {
					t.Fatalf("at request %d", killed+1)
				}
				killed++
			}
			t.Logf("killed at %d requests", killed-1)
			require.Greater(t, killed, 40)
		})
	}
}

// The points that matter most, on both brokers and in real time.
func TestReplayOnce_AfterAKillInATransaction(t *testing.T) {
	for name, row := range map[string]struct {
		which kafkatest.Requests
		after bool
	}{
		"copies are written":     {kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders", Skip: 1}, true},
		"marks are written":      {kafkatest.Requests{Keys: []kmsg.Key{kmsg.Produce}, Topic: "dead.ledger", Txn: dlq.ReplayID("dead")}, true},
		"before the commit":      {kafkatest.Requests{Keys: []kmsg.Key{kmsg.EndTxn}, Skip: 1}, false},
		"committed, no answer":   {kafkatest.Requests{Keys: []kmsg.Key{kmsg.EndTxn}, Skip: 1}, true},
		"the producer is opened": {kafkatest.Requests{Keys: []kmsg.Key{kmsg.InitProducerID}, Txn: dlq.ReplayID("dead")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, deskTopics...)
			require.True(t, killAt(t, newDesk(t, k), row.which, row.after))
		})
	}
}

// A run goes on whatever happens to one of its requests.
func TestReplayOnce_WhateverHappensToARequest(t *testing.T) {
	t.Parallel()
	for name, strike := range map[string]func(*kafkatest.Cluster, *testing.T, kafkatest.Requests) *kafkatest.Fault{
		"lost": func(k *kafkatest.Cluster, t *testing.T, r kafkatest.Requests) *kafkatest.Fault { return k.Drop(t, r) },
		"answer lost": func(k *kafkatest.Cluster, t *testing.T, r kafkatest.Requests) *kafkatest.Fault {
			return k.DropAfter(t, r)
		},
		"15 s late": func(k *kafkatest.Cluster, t *testing.T, r kafkatest.Requests) *kafkatest.Fault {
			return k.Delay(t, r, 15*time.Second)
		},
		"brokers gone": func(k *kafkatest.Cluster, t *testing.T, r kafkatest.Requests) *kafkatest.Fault {
			r.Count = 40
			return k.Drop(t, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := 0
			for more := true; more; n++ {
				kafkatest.Test(t, deskTopics, func(t *testing.T, k *kafkatest.Cluster) {
					k.WallLimit(time.Minute)
					d := newDesk(t, k)
					fault := strike(k, t, kafkatest.Requests{Client: "first", Skip: n})
					report, err := d.process(t, "first").replayer(slowly).Run(t.Context())
					more = fault.Hits() > 0
					require.NoError(t, err)
					require.Equal(t, []int{0, deskLetters / 10}, []int{report.Unsettled, report.Failed})
					d.check(t)
				})
				if t.Failed() {
					t.Fatalf("at request %d", n+1)
				}
			}
			t.Logf("%d requests", n-1)
			require.Greater(t, n, 40)
		})
	}
}

func TestReplayOnce_WhateverATransactionIsAnswered(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		key kmsg.Key
		err *kerr.Error
	}{
		{kmsg.Produce, kerr.UnknownServerError},
		{kmsg.Produce, kerr.TransactionAbortable},
		{kmsg.Produce, kerr.ConcurrentTransactions},
		{kmsg.Produce, kerr.InvalidProducerEpoch},
		{kmsg.Produce, kerr.ProducerFenced},
		{kmsg.Produce, kerr.InvalidTxnState},
		{kmsg.Produce, kerr.InvalidProducerIDMapping},
		{kmsg.Produce, kerr.OutOfOrderSequenceNumber},
		{kmsg.Produce, kerr.NotEnoughReplicas},
		{kmsg.EndTxn, kerr.UnknownServerError},
		{kmsg.EndTxn, kerr.TransactionAbortable},
		{kmsg.EndTxn, kerr.ConcurrentTransactions},
		{kmsg.EndTxn, kerr.InvalidProducerEpoch},
		{kmsg.EndTxn, kerr.ProducerFenced},
		{kmsg.EndTxn, kerr.CoordinatorLoadInProgress},
		{kmsg.EndTxn, kerr.NotCoordinator},
		{kmsg.EndTxn, kerr.RequestTimedOut},
		{kmsg.InitProducerID, kerr.ConcurrentTransactions},
		{kmsg.InitProducerID, kerr.CoordinatorNotAvailable},
		{kmsg.InitProducerID, kerr.CoordinatorLoadInProgress},
	} {
		t.Run(row.key.Name()+" "+row.err.Message, func(t *testing.T) {
			t.Parallel()
			hits := 0
			for n := range 4 {
				for _, count := range []int{1, 6} {
					kafkatest.Test(t, deskTopics, func(t *testing.T, k *kafkatest.Cluster) {
						d := newDesk(t, k)
						which := kafkatest.Requests{Keys: []kmsg.Key{row.key}, Txn: dlq.ReplayID("dead"), Client: "first", Skip: n, Count: count}
						fault := k.Refuse(t, which, row.err)
						report, err := d.process(t, "first").replayer(slowly).Run(t.Context())
						require.NoError(t, err)
						hits += fault.Hits()
						if count == 6 && row.err == kerr.UnknownServerError && row.key == kmsg.Produce {
							// Who is refused twice, alone, is taken to be to blame.
							require.GreaterOrEqual(t, report.Failed, deskLetters/10)
							d.process(t, "second").run(t)
							d.check(t)
							return
						}
						require.Equal(t, []int{0, deskLetters / 10}, []int{report.Unsettled, report.Failed})
						d.check(t)
					})
				}
			}
			require.Greater(t, hits, 5)
		})
	}
}
