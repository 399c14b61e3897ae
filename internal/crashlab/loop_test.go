package crashlab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// flaw is what one often finds in loops that are written by hand.
type flaw int

const (
	careful       flaw = iota // none of them
	ignoresErrors             // of records: End commits what is left of a transaction
	keepsTables               // of what was aborted
	keepsLost                 // tables of partitions that were revoked meanwhile
)

// loop is kgo's GroupTransactSession as one writes it by hand, with tables in
// memory: one record after the other, a transaction for each poll. It is what
// the laboratory is tried out on: with care it is exactly once, and each flaw
// must be found.
func loop(f flaw) Subject {
	return func(ctx context.Context, m Member, ready func()) error {
		for ctx.Err() == nil {
			l := &looper{Member: m, flaw: f, tables: map[int32]map[string]int{}, written: map[int32]map[string]int{}}
			if err := l.session(ctx, ready); err != nil {
				m.Logger.Warn("loop: a new session", "error", err)
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
			}
		}
		return nil
	}
}

type looper struct {
	Member
	flaw flaw
	s    *kgo.GroupTransactSession

	mu      sync.Mutex
	tables  map[int32]map[string]int // as committed
	written map[int32]map[string]int // in the transaction
}

func (l *looper) session(ctx context.Context, ready func()) error {
	drop := func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.flaw == keepsLost {
			return
		}
		for _, p := range lost[l.Topics.In] {
			delete(l.tables, p)
		}
	}
	var joined sync.Once
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	s, err := kgo.NewGroupTransactSession(append(l.Opts,
		kgo.WithContext(life), kgo.ClientID(l.Name), kgo.TransactionalID(l.Topics.Group+"."+l.Name),
		kgo.ConsumerGroup(l.Topics.Group), kgo.ConsumeTopics(l.Topics.In), kgo.Balancers(kgo.RangeBalancer()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.TransactionTimeout(10*time.Second),
		kgo.SessionTimeout(l.Session), kgo.HeartbeatInterval(l.Session/10),
		kgo.BlockRebalanceOnPoll(), // see docs/traps.md
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { joined.Do(ready) }),
		kgo.OnPartitionsRevoked(drop), kgo.OnPartitionsLost(drop),
	)...)
	if err != nil {
		return err
	}
	l.s = s
	defer func() {
		// Or it may wait for a JoinGroup without end; see docs/traps.md.
		timer := time.AfterFunc(5*time.Second, end)
		defer timer.Stop()
		s.Client().CloseAllowingRebalance()
	}()
	for {
		fetches := s.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := l.transaction(ctx, fetches); err != nil {
			return err
		}
	}
}

// transaction handles what a poll returned.
func (l *looper) transaction(ctx context.Context, fetches kgo.Fetches) error {
	if err := l.s.Begin(); err != nil {
		return err
	}
	// Once the work is begun it is done: a context that ends in the middle of a
	// transaction is one more thing to get wrong.
	ctx = context.WithoutCancel(ctx)
	var (
		mu    sync.Mutex
		first error
	)
	promise := func(_ *kgo.Record, err error) {
		mu.Lock()
		defer mu.Unlock()
		first = cmp.Or(first, err)
	}
	var failed error
	fetches.EachRecord(func(r *kgo.Record) {
		if failed == nil {
			failed = l.handle(ctx, r, promise)
		}
	})
	flush, cancel := context.WithTimeout(ctx, 30*time.Second)
	failed = cmp.Or(failed, l.s.Client().Flush(flush))
	cancel()
	mu.Lock()
	if l.flaw != ignoresErrors {
		failed = cmp.Or(failed, first)
	}
	mu.Unlock()
	l.s.Client().PurgeTopicsFromProducing("no such topic") // see docs/traps.md
	l.s.AllowRebalance()
	end, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	// kgo writes the member's id where wherry has a finished set.
	end = kgo.PreTxnCommitFnContext(end, func(req *kmsg.TxnOffsetCommitRequest) error {
		for i := range req.Topics {
			for j := range req.Topics[i].Partitions {
				req.Topics[i].Partitions[j].Metadata = nil
			}
		}
		return nil
	})
	committed, err := l.s.End(end, kgo.TransactionEndTry(failed == nil))
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case committed || l.flaw == keepsTables:
		for p, table := range l.written {
			if l.tables[p] != nil || l.flaw == keepsTables {
				if l.tables[p] == nil {
					l.tables[p] = map[string]int{}
				}
				maps.Copy(l.tables[p], table)
			}
		}
	default:
		clear(l.tables) // to be read again
	}
	clear(l.written)
	return err
}

// handle does what the workload's handler does, with its policies.
func (l *looper) handle(ctx context.Context, r *kgo.Record, promise func(*kgo.Record, error)) error {
	in, err := readInput(r.Value)
	if err != nil {
		return err
	}
	if in.Dead() {
		l.s.Produce(ctx, &kgo.Record{Topic: l.Topics.Dead, Key: r.Key, Value: r.Value}, promise)
		return nil
	}
	count, err := l.get(ctx, r.Partition, in.Key)
	if err != nil {
		return err
	}
	attempt := 1
	if in.Fail(attempt) {
		attempt++ // of a loop, failed attempts leave nothing by construction
	}
	if err := work(ctx, in); err != nil {
		return err
	}
	count = in.Next(count)
	change := &kgo.Record{Topic: l.Topics.Table, Key: []byte(in.Key), Partition: r.Partition}
	if in.Kind != Reset {
		change.Value = l.value(in, r, count, attempt)
	}
	l.mu.Lock()
	if l.written[r.Partition] == nil {
		l.written[r.Partition] = map[string]int{}
	}
	l.written[r.Partition][in.Key] = count
	l.mu.Unlock()
	for _, out := range append(l.outputs(in, r, count, attempt), change) {
		l.s.Produce(ctx, out, promise)
	}
	return nil
}

// get returns a counter, of a table that is read when it is first asked for.
func (l *looper) get(ctx context.Context, partition int32, key string) (int, error) {
	l.mu.Lock()
	table, written := l.tables[partition], l.written[partition]
	count, ok := written[key]
	l.mu.Unlock()
	if ok {
		return count, nil
	}
	if table == nil {
		var err error
		if table, err = l.restore(ctx, partition); err != nil {
			return 0, err
		}
		l.mu.Lock()
		l.tables[partition] = table
		l.mu.Unlock()
	}
	return table[key], nil
}

// restore reads a partition of the table, to the high watermark of now: the
// record that asks was fetched after the group's stable offset.
func (l *looper) restore(ctx context.Context, partition int32) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ends, err := kadm.NewClient(l.s.Client()).ListEndOffsets(ctx, l.Topics.Table)
	if err != nil {
		return nil, err
	}
	end, ok := ends.Lookup(l.Topics.Table, partition)
	if !ok || end.Err != nil {
		return nil, errors.Join(errors.New("no end of the table"), end.Err)
	}
	table := map[string]int{}
	err = readPartition(ctx, l.Opts, l.Topics.Table, partition, end.Offset, func(r *kgo.Record) error {
		var out Output
		if r.Value == nil {
			delete(table, string(r.Key))
			return nil
		}
		err := json.Unmarshal(r.Value, &out)
		table[string(r.Key)] = out.Count
		return err
	})
	return table, err
}
