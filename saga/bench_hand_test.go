package saga_test

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/kafkatest"
)

// byHand is the least that a saga whose steps are all local costs with the raw
// client: a loop of transactions that decodes the start, calls three functions,
// and writes one record of as many bytes as the engine's. It has no table, so it
// starts a saga twice that it is sent twice, and knows nothing after a restart.
func byHand(b *testing.B, k *kafkatest.Cluster, steps []func(context.Context, order) error, ended *atomic.Int64) {
	b.Helper()
	const size = 120 // of an ended saga of SagasLocal in the state topic, key and value
	ctx, stop := context.WithCancel(context.Background())
	s, err := kgo.NewGroupTransactSession(append(slices.Clone(k.Opts()),
		kgo.ConsumerGroup("hand"), kgo.ConsumeTopics("inbox"), kgo.TransactionalID("hand"),
		kgo.ProducerLinger(0), kgo.MetadataMinAge(50*time.Millisecond), kgo.ConcurrentTransactionsBackoff(2*time.Millisecond),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.TransactionTimeout(10*time.Second), kgo.BlockRebalanceOnPoll(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)...)
	require.NoError(b, err)
	done := make(chan struct{})
	b.Cleanup(func() { stop(); <-done })
	go func() {
		defer close(done)
		defer s.CloseAllowingRebalance()
		for {
			fetches := s.PollRecords(ctx, 2000)
			if ctx.Err() != nil {
				return
			}
			if fetches.NumRecords() == 0 {
				s.AllowRebalance()
				continue
			}
			if !handTransaction(ctx, b, s, fetches, steps, size) {
				continue
			}
			ended.Add(int64(fetches.NumRecords()))
		}
	}()
}

func handTransaction(ctx context.Context, b *testing.B, s *kgo.GroupTransactSession, fetches kgo.Fetches, steps []func(context.Context, order) error, size int) bool {
	if err := s.Begin(); err != nil {
		b.Error(err)
		return false
	}
	var failed atomic.Bool
	fetches.EachRecord(func(r *kgo.Record) {
		var o order
		err := json.Unmarshal(r.Value, &o)
		for _, step := range steps {
			if err == nil {
				err = step(ctx, o)
			}
		}
		state := make([]byte, size-len(r.Key))
		copy(state, r.Value)
		s.Produce(ctx, &kgo.Record{Topic: "state", Key: r.Key, Value: state}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Store(true)
			}
		})
		if err != nil {
			failed.Store(true)
		}
	})
	err := s.Client().Flush(ctx)
	s.AllowRebalance()
	ok, endErr := s.End(context.WithoutCancel(ctx), kgo.TransactionEndTry(!failed.Load() && err == nil))
	if endErr != nil {
		b.Error(endErr)
	}
	return ok
}

// startByHand is startAll with the raw client.
func startByHand(b *testing.B, cl *kgo.Client, prefix string, n int, ended *atomic.Int64) {
	b.Helper()
	var starters sync.WaitGroup
	const many = 4000
	before := ended.Load()
	for i := range many {
		starters.Go(func() {
			for j := i; j < n; j += many {
				value, err := json.Marshal(order{Total: j})
				if err == nil {
					err = cl.ProduceSync(b.Context(), &kgo.Record{Topic: "inbox", Key: []byte(prefix + strconv.Itoa(j)), Value: value}).FirstErr()
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	starters.Wait()
	for ended.Load() < before+int64(n) {
		time.Sleep(time.Millisecond)
	}
}
