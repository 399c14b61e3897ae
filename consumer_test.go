package wherry_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

type order struct {
	ID    string `json:"id"`
	Total int    `json:"total"`
}

type payment struct {
	OrderID string `json:"orderId"`
}

var (
	orderPlaced = wherry.Event[order]{Topic: "order.placed"}
	paymentMade = wherry.Event[payment]{Topic: "payment.made"}
)

// patience bounds every wait of these tests; a cold broker under the race
// detector is slow.
const patience = 30 * time.Second

// background runs c and returns its end, and a function that asks for it.
func background(t *testing.T, c *wherry.Consumer) (end <-chan error, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ch := make(chan error, 1)
	done := make(chan struct{})
	go func() { defer close(done); ch <- c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return ch, cancel
}

func receive[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		require.FailNow(t, "waited in vain", what)
		panic("unreachable")
	}
}

// committed returns the group's offset of each partition of topic, without
// those that have none.
func committed(t *testing.T, k *kafkatest.Cluster, group, topic string) map[int32]int64 {
	t.Helper()
	all, err := kadm.NewClient(k.Client(t)).FetchOffsets(t.Context(), group)
	require.NoError(t, err)
	at := map[int32]int64{}
	for p, o := range all[topic] {
		if o.At >= 0 {
			at[p] = o.At
		}
	}
	return at
}

func sum(at map[int32]int64) (n int64) {
	for _, o := range at {
		n += o
	}
	return n
}

// recorder collects what a handler saw.
type recorder struct {
	mu   sync.Mutex
	seen []string
	ch   chan string
}

func newRecorder() *recorder { return &recorder{ch: make(chan string, 100_000)} }

func (r *recorder) handle(_ context.Context, o order) error {
	r.mu.Lock()
	r.seen = append(r.seen, o.ID)
	r.mu.Unlock()
	r.ch <- o.ID
	return nil
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.seen...)
}

func TestConsumer_HandlesAndPublishes(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed", "payment.made")
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t),
		Group:  "billing",
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
			if wherry.GroupFrom(ctx) != "billing" || wherry.RecordFrom(ctx).Topic != "order.placed" || wherry.Attempt(ctx) != 1 {
				t.Error("the context does not tell where the record came from")
			}
			return paymentMade.Publish(ctx, o.ID, payment{OrderID: o.ID})
		})},
	})
	kafkatest.Send(t, k, orderPlaced, "o-1", order{ID: "o-1", Total: 3})
	require.Equal(t, payment{OrderID: "o-1"}, kafkatest.Next(t, k, paymentMade))
	kafkatest.None(t, k, paymentMade, 100*time.Millisecond)
}

// Guarantee "at least once": an offset is committed only after its record's
// handler returned nil and its outputs were acknowledged.
func TestAtLeastOnce_OffsetIsCommittedAfterTheHandler(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1")
	kafkatest.Send(t, k, orderPlaced, "a", order{ID: "a"})
	kafkatest.Send(t, k, orderPlaced, "b", order{ID: "b"})

	began, goOn := make(chan string, 2), make(chan struct{})
	stop := kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "g",
		Handlers: []wherry.Route{orderPlaced.Handler(func(_ context.Context, o order) error {
			began <- o.ID
			if o.ID == "b" {
				<-goOn
			}
			return nil
		})},
	})
	require.Equal(t, "a", receive(t, began, "a"))
	require.Equal(t, "b", receive(t, began, "b"))
	require.Eventually(t, func() bool { return committed(t, k, "g", "order.placed")[0] == 1 }, patience, 10*time.Millisecond)
	require.Never(t, func() bool { return committed(t, k, "g", "order.placed")[0] != 1 }, 300*time.Millisecond, 50*time.Millisecond)
	close(goOn)
	require.Eventually(t, func() bool { return committed(t, k, "g", "order.placed")[0] == 2 }, patience, 10*time.Millisecond)
	require.NoError(t, stop())
}

func TestAtLeastOnce_WhatWasCutShortComesAgain(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1", "payment.made:1")
	kafkatest.Send(t, k, orderPlaced, "a", order{ID: "a"})

	began := make(chan error, 1)
	stop := kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "g", Drain: 50 * time.Millisecond,
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error {
			began <- nil
			<-ctx.Done()
			// Even a nil after the end does not count, and outputs are refused
			// or dropped.
			_ = paymentMade.Publish(ctx, "a", payment{OrderID: "cut"})
			return nil
		})},
	})
	receive(t, began, "the handler to begin")
	require.NoError(t, stop())
	require.Zero(t, committed(t, k, "g", "order.placed")[0])

	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "g",
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
			return paymentMade.Publish(ctx, o.ID, payment{OrderID: "done"})
		})},
	})
	require.Equal(t, payment{OrderID: "done"}, kafkatest.Next(t, k, paymentMade))
}

func TestAtLeastOnce_NothingIsLostOrSkippedAcrossRestarts(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed")
	const n = 300
	for i := range n {
		kafkatest.Send(t, k, orderPlaced, ids(i), order{ID: ids(i)})
	}
	seen := newRecorder()
	for len(unique(seen.all())) < n {
		stop := kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
			time.Sleep(time.Millisecond) // the work; a restart falls into the middle of it
			return seen.handle(ctx, o)
		})}})
		for range 50 {
			select {
			case <-seen.ch:
			case <-time.After(200 * time.Millisecond):
			}
		}
		require.NoError(t, stop())
	}
	require.Len(t, unique(seen.all()), n)
	require.Len(t, seen.all(), n, "a clean stop commits all that is done")
	require.EqualValues(t, n, sum(committed(t, k, "g", "order.placed")))
}

// Guarantee "order": as in the partition, also when every record has outputs
// that are acknowledged while later ones are handled.
func TestOrder_ByPartition(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed", "payment.made:1")
	const n = 500
	for i := range n {
		kafkatest.Send(t, k, orderPlaced, ids(i%7), order{ID: ids(i), Total: i})
	}
	var mu sync.Mutex
	last := map[int32]int64{}
	seen := newRecorder()
	// A slow broker may take longer than the default to acknowledge the last
	// outputs; what it had not would come again.
	stop := kafkatest.Run(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Drain: patience, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
		r := wherry.RecordFrom(ctx)
		mu.Lock()
		defer mu.Unlock()
		if before, ok := last[r.Partition]; ok && r.Offset != before+1 {
			t.Errorf("partition %d: offset %d after %d", r.Partition, r.Offset, before)
		}
		last[r.Partition] = r.Offset
		_ = seen.handle(ctx, o)
		return paymentMade.Publish(ctx, o.ID, payment{OrderID: o.ID})
	})}})
	for range n {
		receive(t, seen.ch, "all records")
	}
	require.NoError(t, stop())
	require.EqualValues(t, n, sum(committed(t, k, "g", "order.placed")))
	for range n {
		kafkatest.Next(t, k, paymentMade)
	}
}

// Law 4: an error that no policy handles stops the Consumer with a
// *RecordError and the offset uncommitted.
func TestStop_AnUnhandledErrorNamesItsRecord(t *testing.T) {
	t.Parallel()
	boom := errors.New("no money")
	for name, test := range map[string]struct {
		handler wherry.Route
		value   []byte
		cause   wherry.Cause
		is      error
	}{
		"failed":      {orderPlaced.Handler(func(context.Context, order) error { return boom }), []byte(`{}`), wherry.CauseFailed, boom},
		"permanent":   {orderPlaced.Handler(func(context.Context, order) error { return wherry.Permanent(boom) }), []byte(`{}`), wherry.CausePermanent, boom},
		"panic":       {orderPlaced.Handler(func(context.Context, order) error { panic(boom) }), []byte(`{}`), wherry.CausePanic, boom},
		"undecodable": {orderPlaced.Handler(func(context.Context, order) error { return nil }), []byte("\x00{"), wherry.CauseUndecodable, nil},
		"null":        {orderPlaced.Handler(func(context.Context, order) error { return nil }), nil, wherry.CauseUndecodable, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "order.placed:1", "payment.made:1")
			kafkatest.Send(t, k, orderPlaced, "fine", order{ID: "fine"})
			kafkatest.SendRecord(t, k, &kgo.Record{Topic: "order.placed", Value: test.value})
			kafkatest.Send(t, k, orderPlaced, "later", order{ID: "later"})
			fine := test.handler.Handler
			test.handler.Handler = func(ctx context.Context, r *kgo.Record) error {
				if r.Offset == 0 {
					return nil
				}
				if r.Offset > 1 {
					t.Error("the record after a failed one was handled")
				}
				if err := paymentMade.Publish(ctx, "", payment{OrderID: "half"}); err != nil {
					return err
				}
				return fine(ctx, r)
			}
			end, _ := background(t, &wherry.Consumer{Client: k.Client(t), Group: "g", Handlers: []wherry.Route{test.handler}})
			err := receive(t, end, "the Consumer to stop")
			var e *wherry.RecordError
			require.ErrorAs(t, err, &e)
			require.Equal(t, test.cause, e.Cause)
			require.Equal(t, "order.placed", e.Topic)
			require.EqualValues(t, 1, e.Offset)
			require.Equal(t, 1, e.Attempts)
			require.ErrorContains(t, err, "order.placed/0@1")
			if test.is != nil {
				require.ErrorIs(t, err, test.is)
			}
			require.Equal(t, test.cause == wherry.CausePanic, e.Stack != "")
			require.EqualValues(t, 1, committed(t, k, "g", "order.placed")[0], "what was done before is committed, the failed record is not")
			kafkatest.None(t, k, paymentMade, 50*time.Millisecond) // guarantee "no half outputs"
		})
	}
}

func ids(i int) string { return "o-" + string(rune('a'+i%26)) + "-" + time.Duration(i).String() }

func unique(all []string) map[string]int {
	m := map[string]int{}
	for _, s := range all {
		m[s]++
	}
	return m
}
