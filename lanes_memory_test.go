//go:build !race

package wherry_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// (The race detector takes 8,128 goroutines at most.)

// 100,000 keys that wait at once: what each of them costs, and that it does not
// grow while they wait.
func TestLanes_AHundredThousandKeysWait(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some 200 MB")
	}
	k := kafkatest.NewCluster(t, "order.placed:4")
	const keys = 100_000
	cl := k.Client(t)
	value := []byte(`{"id":"` + strings.Repeat("x", 93) + `"}`)
	for i := range keys {
		cl.Produce(t.Context(), &kgo.Record{Topic: "order.placed", Key: fmt.Append(nil, i), Value: value}, nil)
	}
	require.NoError(t, cl.Flush(t.Context()))
	used := func() (heap, stack uint64) {
		for range 4 { // each halves the stacks that have grown
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc, m.StackInuse
	}
	var waiting, failed atomic.Int32
	heap, stack := used()
	goroutines := runtime.NumGoroutine()
	stop := kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "g", Order: wherry.ByKey, MaxHeld: keys, Drain: patience,
		Policies: []wherry.Policy{wherry.Middleware(func(next wherry.Handler) wherry.Handler {
			return func(ctx context.Context, r *kgo.Record) error {
				if err := next(ctx, r); err == nil {
					return nil
				}
				waiting.Add(1)
				err := wherry.Wait(ctx, time.Now().Add(4*time.Minute))
				if !wherry.Interrupted(ctx) {
					failed.Add(1)
				}
				return err
			}
		})},
		Handlers: []wherry.Route{orderPlaced.Handler(func(context.Context, order) error { return errors.New("again") })},
	})
	require.Eventually(t, func() bool { return waiting.Load() == keys }, 2*patience, 10*time.Millisecond)
	heapAt, stackAt := used()
	t.Logf("%d B of heap and %d B of stack for each key that waits", (int(heapAt)-int(heap))/keys, (int(stackAt)-int(stack))/keys)
	require.Less(t, (heapAt-heap+stackAt-stack)/keys, uint64(20_000))
	require.InDelta(t, goroutines+keys, runtime.NumGoroutine(), 200)
	time.Sleep(500 * time.Millisecond) // of commits, heartbeats and polls
	heapLater, stackLater := used()
	require.InDelta(t, heapAt+stackAt, heapLater+stackLater, float64(heapAt+stackAt)/10, "it grows while they wait")
	begin := time.Now()
	require.NoError(t, stop())
	t.Logf("ended in %v", time.Since(begin))
	require.Zero(t, failed.Load())
	require.Eventually(t, func() bool { return runtime.NumGoroutine() < goroutines+200 }, patience, 10*time.Millisecond)
}
