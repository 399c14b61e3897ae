package saga_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/saga"
)

// startAll starts n sagas from many goroutines and waits until as many have come
// to where arrived counts them.
func startAll(b *testing.B, e *saga.Engine[order], prefix string, n int, state order, arrived func() int) {
	b.Helper()
	var starters sync.WaitGroup
	const many = 4000
	before := arrived()
	for i := range many {
		starters.Go(func() {
			for j := i; j < n; j += many {
				if err := e.Start(b.Context(), prefix+strconv.Itoa(j), state); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	starters.Wait()
	for arrived() < before+n {
		time.Sleep(time.Millisecond)
	}
}

// remote runs an Engine of three remote steps, and their participants.
func remote(b *testing.B, delivery wherry.Delivery) *saga.Engine[order] {
	b.Helper()
	k := kafkatest.NewCluster(b, "one:8", "two:8", "three:8")
	d := saga.Definition[order]{Name: "bench"}
	for i, name := range []string{"one", "two", "three"} {
		m := reqreply.Method[order, order]{Topic: name}
		call := saga.Call(m, func(o order) order { return o }, nil)
		d.Steps = append(d.Steps, saga.Step[order]{Name: name, Do: call, Undo: call, Pivot: i == 2})
		if i == 2 {
			d.Steps[i].Undo, d.Steps[i].NoUndo = nil, true
		}
		kafkatest.Run(b, &wherry.Consumer{
			Client: k.Client(b), Group: name, Delivery: delivery, Order: wherry.ByKey,
			Handlers: []wherry.Route{m.Handler(func(_ context.Context, o order) (order, error) { return o, nil })},
		})
	}
	e := &saga.Engine[order]{Client: k.Client(b), Topics: wherry.TopicSpec{Partitions: 8}, Definitions: []saga.Definition[order]{d}}
	kafkatest.Run(b, e)
	return e
}

// BenchmarkSagasRemote: sagas of three remote steps, engine, starters and
// participants in one process.
func BenchmarkSagasRemote(b *testing.B) {
	for name, delivery := range map[string]wherry.Delivery{"exactly once": wherry.ExactlyOnce, "at least once": wherry.AtLeastOnce} {
		b.Run(name, func(b *testing.B) {
			e := remote(b, delivery)
			ended := func() int { return e.Status().Ended }
			startAll(b, e, "warm-", 5_000, order{}, ended)
			b.ResetTimer()
			startAll(b, e, "o-", b.N, order{}, ended)
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sagas/s")
		})
	}
}

// BenchmarkSagaOneAtATime: from before Start until the engine knows of the end.
func BenchmarkSagaOneAtATime(b *testing.B) {
	nothing := saga.Do(func(context.Context, order) error { return nil })
	for name, engine := range map[string]func(*testing.B) *saga.Engine[order]{
		"three local": func(b *testing.B) *saga.Engine[order] {
			e := &saga.Engine[order]{
				Client: kafkatest.NewCluster(b).Client(b), Topics: wherry.TopicSpec{Partitions: 8},
				Definitions: []saga.Definition[order]{{Name: "bench", Steps: []saga.Step[order]{
					{Name: "a", Do: nothing, Undo: nothing}, {Name: "b", Do: nothing, Undo: nothing}, {Name: "c", Do: nothing, NoUndo: true},
				}}},
			}
			kafkatest.Run(b, e)
			return e
		},
		"three remote, exactly once":  func(b *testing.B) *saga.Engine[order] { return remote(b, wherry.ExactlyOnce) },
		"three remote, at least once": func(b *testing.B) *saga.Engine[order] { return remote(b, wherry.AtLeastOnce) },
	} {
		b.Run(name, func(b *testing.B) {
			e := engine(b)
			var took []time.Duration
			for i := range b.N + 100 {
				began, before := time.Now(), e.Status().Ended
				require.NoError(b, e.Start(b.Context(), strconv.Itoa(i), order{}))
				for e.Status().Ended == before {
					time.Sleep(100 * time.Microsecond)
				}
				took = append(took, time.Since(began))
			}
			took = took[100:]
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}

// BenchmarkSagasIdle: 1,000,000 sagas that wait for an event: their memory, beside
// the payload and the id, and how fast another process takes them over.
func BenchmarkSagasIdle(b *testing.B) {
	const n = 1_000_000
	k := kafkatest.NewCluster(b, "paid:8")
	payload := strings.Repeat("x", 100)
	newEngine := func() *saga.Engine[order] {
		return &saga.Engine[order]{
			Client: k.Client(b, kgo.MaxBufferedRecords(100_000)), Topics: wherry.TopicSpec{Partitions: 8},
			Definitions: []saga.Definition[order]{{Name: "bench", Steps: []saga.Step[order]{
				{Name: "pay", Do: saga.Await[order](saga.Success[order](wherry.Event[order]{Topic: "paid"}, nil)), NoUndo: true},
			}}},
		}
	}
	first := newEngine()
	stop := kafkatest.Run(b, first)
	before := heapInUse()
	startAll(b, first, "order-", n, order{Pad: payload}, func() int { return first.Status().Active })
	size := len(fmt.Sprintf(`{"pad":%q}`, payload)) + len("order-1234567")
	heap := (heapInUse() - before) / n
	require.NoError(b, stop())
	for b.Loop() {
		began := time.Now()
		second := newEngine()
		end := kafkatest.Run(b, second)
		took := time.Since(began)
		require.Equal(b, n, second.Status().Active)
		b.ReportMetric(n/took.Seconds(), "restored/s")
		require.NoError(b, end())
	}
	b.ReportMetric(heap-float64(size), "B/saga")
}

func heapInUse() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
