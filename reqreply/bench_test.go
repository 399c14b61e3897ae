package reqreply_test

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
)

// These compare a call with two hops by hand on the same client, in one run:
// read the ratio. docs/benchmarks.md has the results, and how to run them.

// payload is what goes both ways, 200 bytes.
var payload = strings.Repeat("x", 200)

// byHandPair is two hops by hand: a group member that answers from its poll
// loop, and a client that finds its calls by a number in the key.
type byHandPair struct {
	cl    *kgo.Client
	mu    sync.Mutex
	calls map[uint64]chan struct{}
	last  uint64
}

func newByHand(b *testing.B, k *kafkatest.Cluster) *byHandPair {
	b.Helper()
	server := k.Client(b, kgo.ConsumerGroup("by-hand"), kgo.ConsumeTopics("ask"), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	kafkatest.Run(b, kafkatest.RunFunc(func(ctx context.Context) error {
		for ctx.Err() == nil {
			server.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
				server.Produce(ctx, &kgo.Record{Topic: "ask.reply", Key: r.Key, Value: r.Value}, nil)
			})
		}
		return nil
	}))
	p := &byHandPair{calls: map[uint64]chan struct{}{}}
	p.cl = k.Client(b, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"ask.reply": {0: kgo.NewOffset().AtStart()}}),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	kafkatest.Run(b, kafkatest.RunFunc(func(ctx context.Context) error {
		for ctx.Err() == nil {
			p.cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
				p.mu.Lock()
				n := binary.BigEndian.Uint64(r.Key)
				done := p.calls[n]
				delete(p.calls, n)
				p.mu.Unlock()
				if done != nil {
					close(done)
				}
			})
		}
		return nil
	}))
	return p
}

func (p *byHandPair) call(ctx context.Context) error {
	done := make(chan struct{})
	p.mu.Lock()
	p.last++
	key := binary.BigEndian.AppendUint64(nil, p.last)
	p.calls[p.last] = done
	p.mu.Unlock()
	p.cl.Produce(ctx, &kgo.Record{Topic: "ask", Key: key, Value: []byte(payload)}, nil)
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func BenchmarkCall(b *testing.B) {
	for _, inFlight := range []int{1, 256} {
		name := map[int]string{1: "one at a time", 256: "256 in flight"}[inFlight]
		b.Run(name+"/by hand", func(b *testing.B) {
			k := kafkatest.NewCluster(b, "ask:4", "ask.reply:1")
			p := newByHand(b, k)
			measure(b, inFlight, p.call)
		})
		for _, order := range []wherry.Order{wherry.ByPartition, wherry.Unordered} {
			b.Run(name+"/wherry "+map[wherry.Order]string{wherry.ByPartition: "ByPartition", wherry.Unordered: "Unordered"}[order], func(b *testing.B) {
				k := kafkatest.NewCluster(b, "ask:4", "ask.reply:1")
				ask := reqreply.Method[string, string]{Topic: "ask"}
				kafkatest.Run(b, &wherry.Consumer{
					Client: k.Client(b), Group: "wherry", Order: order,
					Handlers: []wherry.Route{ask.Handler(func(_ context.Context, s string) (string, error) { return s, nil })},
				})
				c := &reqreply.Caller{Client: k.Client(b), Methods: []reqreply.AnyMethod{ask}}
				kafkatest.Run(b, c)
				measure(b, inFlight, func(ctx context.Context) error {
					_, err := ask.Call(ctx, c, payload)
					return err
				})
			})
		}
	}
}

// measure calls b.N times, so many at once, after some to warm up.
func measure(b *testing.B, inFlight int, call func(context.Context) error) {
	b.Helper()
	ctx := b.Context()
	for range 300 {
		require.NoError(b, call(ctx))
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	took := make([][]time.Duration, inFlight)
	var all sync.WaitGroup
	b.ResetTimer()
	for i := range inFlight {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				began := time.Now()
				if err := call(ctx); err != nil {
					b.Error(err)
					return
				}
				took[i] = append(took[i], time.Since(began))
			}
		})
	}
	all.Wait()
	b.StopTimer()
	each := slices.Sorted(slices.Values(slices.Concat(took...)))
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	b.ReportMetric(float64(each[len(each)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(each[len(each)*99/100].Microseconds()), "p99-µs")
}
