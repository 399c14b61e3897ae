package wherry_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// batches notes the batches that it gets and answers as told.
type batches struct {
	mu     sync.Mutex
	seen   [][]string
	at     []time.Time
	answer func(ctx context.Context, n int, batch []wherry.Message[order]) []error // n counts from 0; nil is nil
}

func (b *batches) handle(ctx context.Context, batch []wherry.Message[order]) []error {
	ids := make([]string, len(batch))
	for i, m := range batch {
		ids[i] = m.Value.ID
	}
	b.mu.Lock()
	n := len(b.seen)
	b.seen, b.at = append(b.seen, ids), append(b.at, time.Now())
	b.mu.Unlock()
	if b.answer == nil {
		return nil
	}
	return b.answer(ctx, n, batch)
}

func (b *batches) all() [][]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.seen)
}

func (b *batches) route(size int, linger time.Duration) []wherry.Route {
	return []wherry.Route{orderPlaced.Batch(b.handle).Sized(size, linger)}
}

func TestBatch_SizeAndLinger(t *testing.T) {
	virtually(t, []string{"order.placed:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		b := &batches{}
		kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: b.route(3, time.Minute)})
		begin := time.Now()
		place(t, k, 0, many("a", 0, 7)...)
		k.Sleep(t, 30*time.Second)
		require.Equal(t, [][]string{{"a-0", "a-1", "a-2"}, {"a-3", "a-4", "a-5"}}, b.all())
		k.Sleep(t, 25*time.Second)
		require.Len(t, b.all(), 2)
		place(t, k, 0, "a-7")
		k.Sleep(t, 20*time.Second)
		require.Equal(t, []string{"a-6", "a-7"}, b.all()[2])
		require.InDelta(t, time.Minute, b.at[2].Sub(begin), float64(10*time.Second))
		place(t, k, 0, "a-8")
		k.Sleep(t, 50*time.Second)
		require.Len(t, b.all(), 3, "the linger of an earlier batch")
		k.Sleep(t, 20*time.Second)
		require.Equal(t, []string{"a-8"}, b.all()[3])
		require.EqualValues(t, 9, committed(t, k, "g", "order.placed")[0])
	})
}

// Each record has policies of its own: of a batch, those that failed are tried
// again together, and one that does not decode is not in it.
func TestBatch_AResultForEach(t *testing.T) {
	virtually(t, []string{"order.placed:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		place(t, k, 0, "a-0", "b-1")
		kafkatest.SendRecord(t, k, &kgo.Record{Topic: "order.placed", Key: []byte("c"), Value: []byte("{")})
		place(t, k, 0, "d-3", "e-4")
		b := &batches{answer: func(_ context.Context, n int, batch []wherry.Message[order]) []error {
			results := make([]error, len(batch))
			for i, m := range batch {
				if n == 0 && (m.Value.ID == "a-0" || m.Value.ID == "d-3") {
					results[i] = errors.New("again")
				}
			}
			return results
		}}
		var mu sync.Mutex
		var failed []string
		kafkatest.Run(t, &wherry.Consumer{
			Client: k.Client(t), Group: "g", Handlers: b.route(10, time.Minute),
			Policies: []wherry.Policy{
				wherry.Middleware(func(next wherry.Handler) wherry.Handler {
					return func(ctx context.Context, r *kgo.Record) error {
						if err := next(ctx, r); err != nil {
							mu.Lock()
							failed = append(failed, fmt.Sprint(r.Offset, " ", errors.As(err, new(*wherry.RecordError))))
							mu.Unlock()
						}
						return nil
					}
				}),
				wherry.Middleware(func(next wherry.Handler) wherry.Handler {
					return func(ctx context.Context, r *kgo.Record) error {
						err := next(ctx, r)
						if err == nil || errors.As(err, new(*wherry.RecordError)) {
							return err
						}
						if err := wherry.Wait(ctx, time.Now().Add(time.Hour/60)); err != nil {
							return err
						}
						return next(ctx, r)
					}
				}),
			},
		})
		k.Sleep(t, 10*time.Minute)
		require.Equal(t, [][]string{{"a-0", "b-1", "d-3", "e-4"}, {"a-0", "d-3"}}, b.all())
		require.Equal(t, []string{"2 true"}, failed)
		require.EqualValues(t, 5, committed(t, k, "g", "order.placed")[0])
	})
}

// nil is done for all; another number of results, or a panic, is a failure of
// each record.
func TestBatch_ResultsThatDoNotFit(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		answer func(n int) []error
		errors string // of each record; "" means none
		cause  wherry.Cause
	}{
		"nil":       {answer: func(int) []error { return nil }},
		"nils":      {answer: func(n int) []error { return make([]error, n) }},
		"too few":   {answer: func(n int) []error { return make([]error, n-1) }, errors: "returned 2 results for 3 records", cause: wherry.CausePermanent},
		"too many":  {answer: func(n int) []error { return make([]error, n+1) }, errors: "returned 4 results for 3 records", cause: wherry.CausePermanent},
		"empty":     {answer: func(int) []error { return []error{} }, errors: "returned 0 results for 3 records", cause: wherry.CausePermanent},
		"one panic": {answer: func(int) []error { panic("oh") }, errors: "oh", cause: wherry.CausePanic},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "order.placed:1")
			place(t, k, 0, "a-0", "b-1", "c-2")
			b := &batches{answer: func(_ context.Context, _ int, batch []wherry.Message[order]) []error { return test.answer(len(batch)) }}
			errs := make(chan error, 3)
			kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: b.route(3, time.Minute), Policies: []wherry.Policy{
				wherry.Middleware(func(next wherry.Handler) wherry.Handler {
					return func(ctx context.Context, r *kgo.Record) error { errs <- next(ctx, r); return nil }
				}),
			}})
			for range 3 {
				err := receive(t, errs, "a result")
				if test.errors == "" {
					require.NoError(t, err)
					continue
				}
				require.ErrorContains(t, err, test.errors)
				if test.cause == wherry.CausePermanent {
					require.ErrorIs(t, err, wherry.ErrPermanent)
				}
			}
			eventually(t, "it is committed", func() bool { return committed(t, k, "g", "order.placed")[0] == 3 })
		})
	}
}

// Publish with a message's Context stages for that record alone: what fails
// leaves nothing, and a refused output is that record's.
func TestBatch_OutputsAreOfTheirOwnRecord(t *testing.T) {
	virtually(t, []string{"order.placed:1", "payment.made:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		place(t, k, 0, "a-0", "b-1", "c-2")
		k.Create(t, kafkatest.Topic{Name: "refused", Partitions: 1, Config: map[string]string{"max.message.bytes": "200"}})
		noise := make([]byte, 1000) // that cannot be compressed
		_, _ = rand.Read(noise)
		b := &batches{answer: func(ctx context.Context, _ int, batch []wherry.Message[order]) []error {
			if err := paymentMade.Publish(ctx, "", payment{}); err == nil {
				t.Error("the context of the batch is that of no record")
			}
			if wherry.RecordFrom(ctx) != nil {
				t.Error("the context of the batch has a record")
			}
			results := make([]error, len(batch))
			for i, m := range batch {
				if wherry.RecordFrom(m.Context) != m.Record {
					t.Error("the context of a message has another record")
				}
				if err := paymentMade.Publish(m.Context, "", payment{OrderID: m.Value.ID}); err != nil {
					t.Error(err)
				}
				switch m.Value.ID {
				case "b-1":
					results[i] = errors.New("failed")
				case "c-2":
					results[i] = wherry.Publish(m.Context, &kgo.Record{Topic: "refused", Value: noise})
				}
			}
			return results
		}}
		errs := make(chan string, 3)
		kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: b.route(3, time.Minute), Policies: []wherry.Policy{
			wherry.Middleware(func(next wherry.Handler) wherry.Handler {
				return func(ctx context.Context, r *kgo.Record) error {
					if err := next(ctx, r); err != nil {
						errs <- fmt.Sprint(r.Offset, " ", errors.As(err, new(*wherry.OutputError)))
					}
					return nil
				}
			}),
		}})
		// That of c stands: it was acknowledged beside the one that was refused.
		require.ElementsMatch(t, []string{"a-0", "c-2"}, []string{kafkatest.Next(t, k, paymentMade).OrderID, kafkatest.Next(t, k, paymentMade).OrderID})
		require.Equal(t, "1 false", receive(t, errs, "b"))
		require.Equal(t, "2 true", receive(t, errs, "c"))
		k.Sleep(t, time.Minute)
		require.Len(t, b.all(), 1, "the neighbours of a refused output run once")
		require.EqualValues(t, 3, committed(t, k, "g", "order.placed")[0])
		kafkatest.None(t, k, paymentMade, time.Minute)
	})
}

// ByKey a batch has at most one record of each key, in the order of the key;
// ByPartition batches follow each other.
func TestBatch_Order(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]wherry.Order{"ByPartition": wherry.ByPartition, "ByKey": wherry.ByKey, "Unordered": wherry.Unordered} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "order.placed:1")
			place(t, k, 0, "a-0", "a-1", "b-2", "a-3", "-4", "-5", "b-6", "c-7", "a-8")
			var m meter
			b := &batches{answer: func(_ context.Context, _ int, batch []wherry.Message[order]) []error {
				m.begin()
				defer m.end()
				time.Sleep(5 * time.Millisecond)
				for i := range batch[1:] {
					if batch[i].Record.Offset >= batch[i+1].Record.Offset {
						t.Error("a batch is not in the order of the partition")
					}
				}
				return nil
			}}
			kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Order: kind, Handlers: b.route(4, 0)})
			eventually(t, "all is committed", func() bool { return committed(t, k, "g", "order.placed")[0] == 9 })
			last := map[string]string{}
			for _, batch := range b.all() {
				require.LessOrEqual(t, len(batch), 4)
				keys := map[string]bool{}
				for _, id := range batch {
					key, _, _ := strings.Cut(id, "-")
					if kind == wherry.Unordered || kind == wherry.ByKey && key == "" {
						continue
					}
					require.Less(t, last[key], id)
					require.False(t, kind == wherry.ByKey && keys[key], "two of a key in %v", batch)
					last[key], keys[key] = id, true
				}
			}
			if kind == wherry.ByPartition {
				require.EqualValues(t, 1, m.most.Load())
				require.Equal(t, []string{"a-0", "a-1", "b-2", "a-3", "-4", "-5", "b-6", "c-7", "a-8"}, slices.Concat(b.all()...))
			}
		})
	}
}

func TestBatch_CountsAsOneOfConcurrency(t *testing.T) {
	virtually(t, []string{"order.placed:4"}, func(t *testing.T, k *kafkatest.Cluster) {
		for p := range int32(4) {
			place(t, k, p, many("a", 0, 20)...)
		}
		var m meter
		b := &batches{answer: func(ctx context.Context, n int, batch []wherry.Message[order]) []error {
			m.begin()
			time.Sleep(time.Second)
			m.end()
			if n%3 == 0 { // with either context, and the place is given away
				for _, ctx := range []context.Context{ctx, batch[len(batch)/2].Context} {
					if err := wherry.Wait(ctx, time.Now().Add(time.Minute)); err != nil {
						t.Error(err)
					}
				}
			}
			m.begin()
			time.Sleep(time.Second)
			m.end()
			return nil
		}}
		kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Concurrency: 2, Order: wherry.Unordered, Timeout: 10 * time.Second, Handlers: b.route(5, time.Second)})
		k.Sleep(t, 10*time.Minute)
		require.EqualValues(t, 80, sum(committed(t, k, "g", "order.placed")))
		require.EqualValues(t, 2, m.most.Load())
		require.Less(t, b.at[len(b.at)-1].Sub(b.at[0]), 4*time.Minute, "a batch that waits keeps its place")
	})
}

// The Timeout of a batch ends the contexts of all of it.
func TestBatch_Timeout(t *testing.T) {
	virtually(t, []string{"order.placed:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		place(t, k, 0, "a-0", "b-1", "c-2")
		b := &batches{answer: func(ctx context.Context, n int, batch []wherry.Message[order]) []error {
			if n > 0 {
				return nil
			}
			begin := time.Now()
			if err := wherry.Wait(batch[0].Context, begin.Add(time.Minute)); err != nil {
				t.Error(err)
			}
			<-ctx.Done()
			for _, m := range batch {
				<-m.Context.Done()
				if !errors.Is(context.Cause(m.Context), context.DeadlineExceeded) {
					t.Error(context.Cause(m.Context))
				}
			}
			if took := time.Since(begin); took != time.Minute+10*time.Second {
				t.Error(took)
			}
			return slices.Repeat([]error{ctx.Err()}, len(batch))
		}}
		errs := make(chan error, 10)
		kafkatest.Run(t, &wherry.Consumer{
			Client: k.Client(t), Group: "g", Timeout: 10 * time.Second, Handlers: b.route(3, time.Minute),
			Policies: []wherry.Policy{again(2, time.Second, func(err error) { errs <- err })},
		})
		k.Sleep(t, 10*time.Minute)
		for range 3 {
			require.ErrorIs(t, receive(t, errs, "an error"), context.DeadlineExceeded)
		}
		require.Equal(t, [][]string{{"a-0", "b-1", "c-2"}, {"a-0", "b-1", "c-2"}}, b.all())
		require.EqualValues(t, 3, committed(t, k, "g", "order.placed")[0])
	})
}

// A batch that is cut short in a wait is cut short as a whole: none of it is a
// failure, and all of it comes again. One that lingers does not begin.
func TestBatch_Drain(t *testing.T) {
	virtually(t, []string{"order.placed:1"}, func(t *testing.T, k *kafkatest.Cluster) {
		for name, which := range map[string]func(ctx context.Context, batch []wherry.Message[order]) context.Context{
			"the batch's context": func(ctx context.Context, _ []wherry.Message[order]) context.Context { return ctx },
			"a message's context": func(_ context.Context, batch []wherry.Message[order]) context.Context { return batch[1].Context },
		} {
			place(t, k, 0, "a-0", "b-1", "c-2", "d-3")
			j := &judge{}
			b := &batches{answer: func(ctx context.Context, _ int, batch []wherry.Message[order]) []error {
				err := wherry.Wait(which(ctx, batch), time.Now().Add(time.Minute))
				return slices.Repeat([]error{err}, len(batch))
			}}
			stop := kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: name, Policies: []wherry.Policy{j}, Handlers: b.route(3, time.Hour)})
			k.Sleep(t, 10*time.Second)
			require.NoError(t, stop(), name)
			require.Equal(t, [][]string{{"a-0", "b-1", "c-2"}}, b.all(), name)
			require.EqualValues(t, 3, j.interrupted.Load(), name)
			require.Zero(t, j.failed.Load(), name)
			require.Zero(t, committed(t, k, name, "order.placed")[0], name)
		}
	})
}
