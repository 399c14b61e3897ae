package wherry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

// pay stages a payment by that name; refusals go to the handler's error.
func pay(ctx context.Context, name string) error {
	return paymentMade.Publish(ctx, "", payment{OrderID: name})
}

// outputs runs h on one record, under policies, and returns the names of the
// payments that came of it, in order.
func outputs(t *testing.T, h wherry.Handler, policies ...wherry.Policy) (names []string) {
	t.Helper()
	k := kafkatest.NewCluster(t, "order.placed:1", "payment.made:1")
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "outputs", Policies: policies,
		Handlers: []wherry.Route{{Topic: "order.placed", Handler: func(ctx context.Context, r *kgo.Record) error {
			if string(r.Key) == "last" {
				return pay(ctx, "last")
			}
			return h(ctx, r)
		}}},
	})
	kafkatest.Send(t, k, orderPlaced, "first", order{})
	// Outputs are produced in order, so that of the second record is the last.
	kafkatest.Send(t, k, orderPlaced, "last", order{})
	for {
		name := kafkatest.Next(t, k, paymentMade).OrderID
		if name == "last" {
			return names
		}
		names = append(names, name)
	}
}

// around is a policy that leaves the second record of outputs alone.
func around(f func(ctx context.Context, r *kgo.Record, next wherry.Handler) error) wherry.Policy {
	return wherry.Middleware(func(next wherry.Handler) wherry.Handler {
		return func(ctx context.Context, r *kgo.Record) error {
			if string(r.Key) == "last" {
				return next(ctx, r)
			}
			return f(ctx, r, next)
		}
	})
}

// forgiving turns every error into nil.
func forgiving() wherry.Policy {
	return around(func(ctx context.Context, r *kgo.Record, next wherry.Handler) error {
		_ = next(ctx, r)
		return nil
	})
}

func TestNoHalfOutputs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		handler wherry.Handler
	}{
		{"a handler that fails", func(ctx context.Context, _ *kgo.Record) error {
			return errors.Join(pay(ctx, "half"), errBank)
		}},
		{"a handler that panics", func(ctx context.Context, _ *kgo.Record) error {
			_ = pay(ctx, "half")
			panic("out of money")
		}},
		{"a handler that panics with nil", func(ctx context.Context, _ *kgo.Record) error {
			_ = pay(ctx, "half")
			panic(nil)
		}},
		{"a handler whose second Publish is refused", func(ctx context.Context, _ *kgo.Record) error {
			return errors.Join(pay(ctx, "half"), wherry.Publish(ctx, &kgo.Record{}))
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			require.Empty(t, outputs(t, test.handler, forgiving()))
		})
		t.Run(test.name+", under three policies", func(t *testing.T) {
			t.Parallel()
			pass := around(func(ctx context.Context, r *kgo.Record, next wherry.Handler) error { return next(ctx, r) })
			require.Empty(t, outputs(t, test.handler, forgiving(), pass, pass))
		})
	}
}

func TestAGoroutineThatAFailedAttemptLeftBehindPublishesNothing(t *testing.T) {
	t.Parallel()
	leak := make(chan context.Context, 1)
	after := around(func(ctx context.Context, r *kgo.Record, next wherry.Handler) error {
		err := next(ctx, r)
		if late := pay(<-leak, "late"); late == nil {
			return errors.New("a handler that had returned could publish")
		}
		_ = err
		return nil
	})
	require.Empty(t, outputs(t, func(ctx context.Context, _ *kgo.Record) error {
		leak <- ctx
		return errBank
	}, after))
}

func TestAGoroutineThatAnEarlierAttemptLeftBehindPublishesNothing(t *testing.T) {
	t.Parallel()
	leak := make(chan context.Context, 2)
	twice := around(func(ctx context.Context, r *kgo.Record, next wherry.Handler) error {
		_ = next(ctx, r)
		return next(wherry.WithAttempt(ctx, 2), r)
	})
	require.Equal(t, []string{"second"}, outputs(t, func(ctx context.Context, _ *kgo.Record) error {
		leak <- ctx
		if wherry.Attempt(ctx) == 1 {
			return errBank
		}
		if late := pay(<-leak, "late"); late == nil {
			return errors.New("the first attempt could publish")
		}
		return pay(ctx, "second")
	}, twice))
}

func TestPublishAfterTheHandlerReturnedIsAnError(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1", "payment.made:1")
	leak := make(chan context.Context, 1)
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "late",
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error {
			leak <- ctx
			return pay(ctx, "in time")
		})},
	})
	kafkatest.Send(t, k, orderPlaced, "", order{})
	ctx := receive(t, leak, "the handler")
	require.Equal(t, "in time", kafkatest.Next(t, k, paymentMade).OrderID)
	require.ErrorContains(t, pay(ctx, "late"), "the handler has returned")
	kafkatest.None(t, k, paymentMade, 0)
}

func TestPublishOutsideOfAHandlerSaysWhatToDo(t *testing.T) {
	t.Parallel()
	err := pay(t.Context(), "x")
	require.ErrorContains(t, err, "outside of a handler")
	require.ErrorContains(t, err, "Event.Record")
	require.Nil(t, wherry.RecordFrom(t.Context()))
	require.Empty(t, wherry.GroupFrom(t.Context()))
	require.Equal(t, 1, wherry.Attempt(t.Context()))
}

func TestPublishKeepsTheOrderOfItsCalls(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}, outputs(t, func(ctx context.Context, _ *kgo.Record) error {
		for i := range 5 {
			a, err := paymentMade.Record("", payment{OrderID: strconv.Itoa(2 * i)})
			b, err2 := paymentMade.Record("", payment{OrderID: strconv.Itoa(2*i + 1)})
			if err := errors.Join(err, err2, wherry.Publish(ctx, a, b), wherry.Publish(ctx)); err != nil {
				return err
			}
		}
		return nil
	}))
}

func TestPublishFromManyGoroutinesOfAHandler(t *testing.T) {
	t.Parallel()
	names := outputs(t, func(ctx context.Context, _ *kgo.Record) error {
		var all sync.WaitGroup
		errs := make([]error, 20)
		for i := range errs {
			all.Go(func() {
				for j := range 50 {
					errs[i] = errors.Join(errs[i], pay(ctx, fmt.Sprint(i, "/", j)))
				}
			})
		}
		all.Wait()
		return errors.Join(errs...)
	})
	require.Len(t, unique(names), 20*50)
}

func TestPublishIsBounded(t *testing.T) {
	t.Parallel()
	sized := func(n int) *kgo.Record {
		return &kgo.Record{Topic: "payment.made", Value: bytes.Repeat([]byte("x"), n)}
	}
	many := func(n int) (all []*kgo.Record) {
		for range n {
			all = append(all, &kgo.Record{Topic: "payment.made", Value: []byte("{}")})
		}
		return all
	}
	tests := []struct {
		name   string
		before []*kgo.Record // taken
		call   []*kgo.Record // refused
		output bool          // whether the refusal is an OutputError
		is     error
		says   string
	}{
		{name: "10,000 records and one", before: many(10_000), call: many(1), says: "10001 records"},
		{name: "10,001 records at once", call: many(10_001), says: "10001 records"},
		{name: "1 MiB and a byte", before: []*kgo.Record{sized(1 << 19), sized(1 << 19)}, call: []*kgo.Record{sized(1)}, says: "limits are 10000 and 1048576"},
		{name: "a record larger than a batch may be", call: []*kgo.Record{sized(1_000_012)}, output: true, is: kerr.MessageTooLarge, says: "ProducerBatchMaxBytes is 1000012"},
		{name: "headers that are larger", call: []*kgo.Record{{Topic: "payment.made", Headers: []kgo.RecordHeader{{Key: "h", Value: make([]byte, 1_000_012)}}}}, output: true, is: kerr.MessageTooLarge, says: "output to payment.made"},
		{name: "no topic", call: []*kgo.Record{{Value: []byte("v")}}, output: true, is: kerr.InvalidTopicException, says: "refused"},
		{name: "a good record before a bad one", call: append(many(3), &kgo.Record{}), output: true, is: kerr.InvalidTopicException, says: "refused"},
		{name: "nil", call: append(many(1), nil), says: "nil"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			k := kafkatest.NewCluster(t, "order.placed:1", "payment.made:1")
			refusal := make(chan error, 1)
			kafkatest.Run(t, &wherry.Consumer{
				Client: k.Client(t), Group: "bounded",
				Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error {
					if err := wherry.Publish(ctx, test.before...); err != nil {
						return err
					}
					refusal <- wherry.Publish(ctx, test.call...)
					return nil
				})},
			})
			kafkatest.Send(t, k, orderPlaced, "", order{})
			err := receive(t, refusal, "the refusal")
			require.ErrorContains(t, err, test.says)
			require.Equal(t, test.output, errors.As(err, new(*wherry.OutputError)))
			require.Equal(t, test.output, errors.Is(err, wherry.ErrPermanent))
			if test.is != nil {
				require.ErrorIs(t, err, test.is)
			}
			for range test.before {
				kafkatest.NextRecord(t, k, "payment.made")
			}
			kafkatest.None(t, k, paymentMade, 0) // nothing of the refused call
		})
	}
}

func TestTheLargestRecordThatPublishTakesIsTakenByTheBroker(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t, "order.placed:1", "payment.made:1")
	large := func(n int) *kgo.Record {
		return &kgo.Record{
			Topic: "payment.made", Key: []byte("key"), Value: bytes.Repeat([]byte("x"), n),
			Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("b")}, {Key: "c", Value: []byte("d")}},
		}
	}
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t, kgo.ProducerBatchCompression(kgo.NoCompression())), Group: "large",
		Handlers: []wherry.Route{orderPlaced.Handler(func(ctx context.Context, _ order) error {
			// Down from what no batch holds, to find the limit of Publish itself.
			for n := 1_000_012; ; n-- {
				err := wherry.Publish(ctx, large(n))
				if err == nil || !errors.Is(err, kerr.MessageTooLarge) {
					return err
				}
			}
		})},
	})
	kafkatest.Send(t, k, orderPlaced, "", order{})
	require.Greater(t, len(kafkatest.NextRecord(t, k, "payment.made").Value), 999_000)
}

func TestWhatAFailedAttemptStagedDoesNotCountAgainstTheLimits(t *testing.T) {
	t.Parallel()
	retry := around(func(ctx context.Context, r *kgo.Record, next wherry.Handler) (err error) {
		for n := range 5 {
			if err = next(wherry.WithAttempt(ctx, n+1), r); err == nil {
				return nil
			}
		}
		return err
	})
	names := outputs(t, func(ctx context.Context, _ *kgo.Record) error {
		for i := range 9_000 {
			if err := pay(ctx, strconv.Itoa(i)); err != nil {
				return wherry.Permanent(err)
			}
		}
		if wherry.Attempt(ctx) < 5 {
			return errBank
		}
		return nil
	}, retry)
	require.Len(t, names, 9_000)
}
