package wherry_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
)

// "After its partition was taken away, Publish returns an error."
func TestBreak_PublishAfterTheEndOfTheContextReturnsAnError(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 1, "payment.made": 1})
	c.fill(t, 1, 1)
	began, published := make(chan string, 1), make(chan error, 1)
	end, stop := background(t, &wherry.Consumer{
		Client: c.client(t), Group: "g", Drain: 50 * time.Millisecond,
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
			began <- o.ID
			<-ctx.Done()
			published <- paymentMade.Publish(ctx, "", payment{OrderID: "late"})
			return nil
		})},
	})
	receive(t, began, "the handler")
	stop()
	require.Error(t, receive(t, published, "the handler to publish"))
	require.NoError(t, receive(t, end, "the end"))
	require.Empty(t, c.outcomes(t))
}

// Forwarding the very record in hand, as users of kgo do: when the broker
// refuses it, the Consumer stops with an error that names the record as it was
// read. (The second run of the chain must find its way too.)
func TestBreak_TheRecordInHandIsForwardedAndRefused(t *testing.T) {
	t.Parallel()
	apart(t, func(t *testing.T) {
		c := newFaulty(t, map[string]int32{"order.placed": 1})
		c.fill(t, 1, 1)
		end, _ := background(t, &wherry.Consumer{Client: c.client(t), Group: "g", Handlers: []wherry.Route{{
			Topic: "order.placed",
			Handler: func(ctx context.Context, r *kgo.Record) error {
				r.Topic = "no.such.topic"
				return wherry.Publish(ctx, r)
			},
		}}})
		var e *wherry.RecordError
		require.ErrorAs(t, receive(t, end, "the Consumer to stop"), &e)
		require.Equal(t, "order.placed", e.Topic)
		require.Equal(t, wherry.CauseRejected, e.Cause)
	})
}

// The record in hand may be published as it is (a copy, with another topic):
// what RecordFrom and the policies see stays as it was read.
func TestBreak_ForwardingACopyLeavesTheRecordInHandAlone(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 1, "payment.made": 4})
	c.fill(t, 1, 50)
	var mu sync.Mutex
	var changed []kgo.Record
	keeps := wherry.Middleware(func(next wherry.Handler) wherry.Handler {
		return func(ctx context.Context, r *kgo.Record) error {
			before := *r
			err := next(ctx, r)
			mu.Lock()
			defer mu.Unlock()
			if r.Topic != before.Topic || r.Offset != before.Offset || r.Partition != before.Partition || r.Context != before.Context || wherry.RecordFrom(ctx) != r {
				changed = append(changed, *r)
			}
			return err
		}
	})
	end, stop := background(t, &wherry.Consumer{Client: c.client(t), Group: "g", Policies: []wherry.Policy{keeps}, Handlers: []wherry.Route{{
		Topic: "order.placed",
		Handler: func(ctx context.Context, r *kgo.Record) error {
			out := *r
			out.Topic = "payment.made"
			wherry.ToPartition(&out, 3)
			return wherry.Publish(ctx, &out)
		},
	}}})
	require.Eventually(t, func() bool { return c.committed("g", "order.placed", 0) == 50 }, patience, 5*time.Millisecond)
	stop()
	require.NoError(t, receive(t, end, "the end"))
	require.Empty(t, changed)
	require.EqualValues(t, 50, c.PartitionInfo("payment.made", 3).HighWatermark)
}

// One record given to Publish twice is sent twice, or refused; it is not sent
// in a form of its own.
func TestBreak_OneRecordPublishedTwice(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 1, "payment.made": 1})
	c.fill(t, 1, 20)
	refused := make(chan error, 100)
	end, stop := background(t, &wherry.Consumer{Client: c.client(t), Group: "g", Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
		r, err := paymentMade.Record(o.ID, payment{OrderID: o.ID})
		if err != nil {
			return err
		}
		if err = wherry.Publish(ctx, r, r); err != nil {
			refused <- err
			return paymentMade.Publish(ctx, o.ID, payment{OrderID: o.ID})
		}
		return nil
	})}})
	require.Eventually(t, func() bool { return c.committed("g", "order.placed", 0) == 20 }, patience, 5*time.Millisecond)
	stop()
	require.NoError(t, receive(t, end, "the end"))
	want := 2
	if len(refused) > 0 {
		want = 1
	}
	got := c.outcomes(t)
	require.Len(t, got, 20)
	for id, n := range got {
		require.Equal(t, want, n, id)
	}
}

// Policies that call next as they like: what the last call staged is sent, and
// nothing else.
func TestBreak_PoliciesThatCallNextAsTheyLike(t *testing.T) {
	t.Parallel()
	calls := func(n int) wherry.Middleware {
		return func(next wherry.Handler) wherry.Handler {
			return func(ctx context.Context, r *kgo.Record) (err error) {
				for i := range n {
					if err := paymentMade.Publish(ctx, "", payment{OrderID: "policy"}); err != nil && i == 0 {
						return err
					}
					err = next(wherry.WithAttempt(ctx, i+1), r)
				}
				return err
			}
		}
	}
	for name, test := range map[string]struct {
		policies []wherry.Policy
		want     map[string]int
	}{
		"never":        {[]wherry.Policy{calls(0)}, map[string]int{}},
		"twice":        {[]wherry.Policy{calls(2)}, map[string]int{"policy": 2, "handler": 1}},
		"often":        {[]wherry.Policy{calls(1000)}, map[string]int{"policy": 1000, "handler": 1}},
		"each in turn": {[]wherry.Policy{calls(3), calls(4)}, map[string]int{"policy": 3 + 4, "handler": 1}},
		"another's ctx": {[]wherry.Policy{wherry.Middleware(func(next wherry.Handler) wherry.Handler {
			return func(_ context.Context, r *kgo.Record) error { _ = next(context.Background(), r); return nil }
		})}, map[string]int{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newFaulty(t, map[string]int32{"order.placed": 1, "payment.made": 1})
			c.fill(t, 1, 1)
			end, stop := background(t, &wherry.Consumer{Client: c.client(t), Group: "g", Policies: test.policies, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error {
				return paymentMade.Publish(ctx, "", payment{OrderID: "handler"})
			})}})
			require.Eventually(t, func() bool { return c.committed("g", "order.placed", 0) == 1 }, patience, 5*time.Millisecond)
			stop()
			require.NoError(t, receive(t, end, "the end"))
			require.Equal(t, test.want, c.outcomes(t))
		})
	}
}

// "A failed attempt's outputs are never sent": nor are they where the handler
// succeeded and a policy around it then failed the attempt. What an outer policy
// stages about that stands alone.
func TestBreak_AnAttemptThatAPolicyFailedLeavesNothing(t *testing.T) {
	t.Parallel()
	letters := wherry.Middleware(func(next wherry.Handler) wherry.Handler {
		return func(ctx context.Context, r *kgo.Record) error {
			if err := next(ctx, r); err != nil {
				return paymentMade.Publish(ctx, "", payment{OrderID: "letter"})
			}
			return nil
		}
	})
	for name, fail := range map[string]func() error{
		"returns an error": func() error { return errors.New("too late") },
		"panics":           func() error { panic("too late") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newFaulty(t, map[string]int32{"order.placed": 1, "payment.made": 1})
			c.fill(t, 1, 1)
			fails := wherry.Middleware(func(next wherry.Handler) wherry.Handler {
				return func(ctx context.Context, r *kgo.Record) error { return errors.Join(next(ctx, r), fail()) }
			})
			end, stop := background(t, &wherry.Consumer{Client: c.client(t), Group: "g", Policies: []wherry.Policy{letters, fails}, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error {
				return paymentMade.Publish(ctx, "", payment{OrderID: "payment"})
			})}})
			require.Eventually(t, func() bool { return c.committed("g", "order.placed", 0) == 1 }, patience, 5*time.Millisecond)
			stop()
			require.NoError(t, receive(t, end, "the end"))
			require.Equal(t, map[string]int{"letter": 1}, c.outcomes(t))
		})
	}
}

// Handlers that publish from several goroutines, and from ones that outlive
// them.
func TestBreak_PublishFromGoroutines(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"order.placed": 4, "payment.made": 2})
	c.fill(t, 4, 50)
	leaked := make(chan error, 1000)
	var leaks sync.WaitGroup
	type returnedKey struct{}
	tells := wherry.Middleware(func(next wherry.Handler) wherry.Handler {
		return func(ctx context.Context, r *kgo.Record) error {
			returned := make(chan struct{})
			defer close(returned)
			return next(context.WithValue(ctx, returnedKey{}, returned), r)
		}
	})
	end, stop := background(t, &wherry.Consumer{Client: c.client(t), Group: "g", Policies: []wherry.Policy{tells}, Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, o order) error {
		var wg sync.WaitGroup
		errs := make(chan error, 8)
		for range 8 {
			wg.Go(func() { errs <- paymentMade.Publish(ctx, o.ID, payment{OrderID: o.ID}) })
		}
		wg.Wait()
		close(errs)
		leaks.Go(func() {
			<-ctx.Value(returnedKey{}).(chan struct{})
			leaked <- paymentMade.Publish(ctx, o.ID, payment{OrderID: "leaked"})
		})
		var all error
		for err := range errs {
			all = errors.Join(all, err)
		}
		return all
	})}})
	require.Eventually(t, func() bool {
		var n int64
		for p := range int32(4) {
			n += c.committed("g", "order.placed", p)
		}
		return n == 200
	}, patience, 5*time.Millisecond)
	stop()
	require.NoError(t, receive(t, end, "the end"))
	leaks.Wait()
	close(leaked)
	for err := range leaked {
		require.Error(t, err)
	}
	got := c.outcomes(t)
	require.Len(t, got, 200)
	for id, n := range got {
		require.Equal(t, 8, n, id)
	}
}

// Records of all sizes: none, an empty one, the largest that fits, ten
// thousand headers, outputs of all these, and a loop into the topic itself.
func TestBreak_RecordsOfAllSizes(t *testing.T) {
	t.Parallel()
	c := newFaulty(t, map[string]int32{"in": 1, "out": 1})
	cl := c.client(t)
	var headers []kgo.RecordHeader
	for range 10_000 {
		headers = append(headers, kgo.RecordHeader{Key: "k", Value: []byte("v")})
	}
	in := []*kgo.Record{
		{Topic: "in"},
		{Topic: "in", Key: []byte{}, Value: []byte{}},
		{Topic: "in", Key: bytes.Repeat([]byte("k"), 450_000), Value: bytes.Repeat([]byte("v"), 450_000)},
		{Topic: "in", Headers: headers},
		{Topic: "in", Value: bytes.Repeat([]byte("x"), 999_000)},
	}
	for range 20 {
		in = append(in, &kgo.Record{Topic: "in", Value: bytes.Repeat([]byte("x"), 900_000)})
	}
	require.NoError(t, cl.ProduceSync(t.Context(), in...).FirstErr())
	end, stop := background(t, &wherry.Consumer{Client: cl, Group: "g", MaxHeld: 1, Handlers: []wherry.Route{{Topic: "in", Handler: func(ctx context.Context, r *kgo.Record) error {
		if wherry.HasHeader("again", "yes")(r) {
			return nil
		}
		out, again := *r, *r
		out.Topic = "out"
		again.Key, again.Value = nil, nil
		again.Headers = []kgo.RecordHeader{{Key: "again", Value: []byte("yes")}}
		return wherry.Publish(ctx, &out, &again)
	}}}})
	require.Eventually(t, func() bool { return c.committed("g", "in", 0) == int64(2*len(in)) }, patience, 5*time.Millisecond)
	stop()
	require.NoError(t, receive(t, end, "the end"))
	require.EqualValues(t, len(in), c.PartitionInfo("out", 0).HighWatermark)
}
