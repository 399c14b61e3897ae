package wherry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
)

var errBank = errors.New("the bank is closed")

func TestErrorTexts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"a record", &wherry.RecordError{Topic: "orders", Partition: 3, Offset: 17, Cause: wherry.CauseFailed, Attempts: 1, Err: errBank}, "record orders/3@17: failed: the bank is closed"},
		{"after attempts", &wherry.RecordError{Topic: "orders", Cause: wherry.CauseExhausted, Attempts: 4, Err: errBank}, "record orders/0@0: exhausted after 4 attempts: the bank is closed"},
		{"of no record yet", &wherry.RecordError{Cause: wherry.CausePanic, Err: errBank}, "panic: the bank is closed"},
		{"an output", &wherry.OutputError{Topic: "payments", Key: []byte("o-1"), Size: 12, Err: kerr.MessageTooLarge}, `output to payments (key "o-1", 12 bytes) refused: ` + kerr.MessageTooLarge.Error()},
		{"an output with a long key of bytes", &wherry.OutputError{Topic: "p", Key: []byte("\x00" + fmt.Sprintf("%099d", 0)), Err: errBank}, `output to p (key "\x00` + fmt.Sprintf("%039d", 0) + `", 0 bytes) refused: the bank is closed`},
		{"a topic", &wherry.TopicError{Topic: "orders", Err: errBank}, "topic orders: the bank is closed"},
		{"permanent", wherry.Permanent(errBank), "the bank is closed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			require.EqualError(t, test.err, test.want)
		})
	}
}

func TestPermanentIsFoundThroughWhateverWrapsIt(t *testing.T) {
	t.Parallel()
	require.NoError(t, wherry.Permanent(nil))
	permanent := wherry.Permanent(errBank)
	for name, err := range map[string]error{
		"itself":            permanent,
		"wrapped":           fmt.Errorf("paying: %w", permanent),
		"joined":            errors.Join(errors.New("another"), permanent),
		"in a record error": &wherry.RecordError{Cause: wherry.CauseFailed, Err: permanent},
		"twice":             wherry.Permanent(permanent),
		"wrapped, joined":   fmt.Errorf("%w and %w", errors.New("another"), errors.Join(permanent)),
	} {
		require.ErrorIs(t, err, wherry.ErrPermanent, name)
		require.ErrorIs(t, err, errBank, name)
	}
	require.ErrorIs(t, &wherry.OutputError{Err: errBank}, wherry.ErrPermanent)
	require.ErrorIs(t, &wherry.OutputError{Err: errBank}, errBank)
	require.NotErrorIs(t, errBank, wherry.ErrPermanent)
	require.NotErrorIs(t, &wherry.RecordError{Err: errBank}, wherry.ErrPermanent)
}

// stopsWith runs a Consumer whose handler is h on one record and returns the
// error with which it stops.
func stopsWith(t *testing.T, h wherry.Handler, policies ...wherry.Policy) *wherry.RecordError {
	t.Helper()
	k := kafkatest.NewCluster(t, "order.placed:1", "payment.made:1")
	kafkatest.Send(t, k, orderPlaced, "o-1", order{ID: "o-1"})
	end, _ := background(t, &wherry.Consumer{
		Client: k.Client(t), Group: "stops", Policies: policies,
		Handlers: []wherry.Route{{Topic: "order.placed", Handler: h}},
	})
	err := receive(t, end, "the Consumer to stop")
	var e *wherry.RecordError
	require.ErrorAs(t, err, &e)
	require.ErrorContains(t, err, `consumer "stops": record order.placed/0@0: `)
	require.Equal(t, "order.placed/0@0", fmt.Sprintf("%s/%d@%d", e.Topic, e.Partition, e.Offset))
	require.Empty(t, committed(t, k, "stops", "order.placed")[0], "its offset must not be committed")
	kafkatest.None(t, k, paymentMade, 0)
	return e
}

func returns(err error) wherry.Handler {
	return func(context.Context, *kgo.Record) error { return err }
}

func TestTheCauseOfARecordErrorIsThatOfTheHandlersError(t *testing.T) {
	t.Parallel()
	another := &wherry.RecordError{Topic: "accounts", Partition: 1, Offset: 5, Cause: wherry.CauseUndecodable, Attempts: 1, Err: errBank}
	tests := []struct {
		name     string
		err      error
		cause    wherry.Cause
		attempts int
		is       error
		says     string
	}{
		{name: "any error", err: errBank, cause: wherry.CauseFailed, attempts: 1, is: errBank},
		{name: "a permanent one", err: fmt.Errorf("paying: %w", wherry.Permanent(errBank)), cause: wherry.CausePermanent, attempts: 1, is: errBank, says: "paying"},
		{name: "a permanent one among others", err: errors.Join(errors.New("cleaning up"), wherry.Permanent(errBank)), cause: wherry.CausePermanent, attempts: 1, is: errBank, says: "cleaning up"},
		{name: "what a policy knows", err: &wherry.RecordError{Cause: wherry.CauseExhausted, Attempts: 4, Err: errBank}, cause: wherry.CauseExhausted, attempts: 4, is: errBank, says: "exhausted after 4 attempts: the bank is closed"},
		{name: "what a policy knows, wrapped", err: fmt.Errorf("after a week: %w", &wherry.RecordError{Cause: wherry.CauseExpired, Err: errBank}), cause: wherry.CauseExpired, attempts: 1, is: errBank, says: "after a week"},
		{name: "an error about another record", err: another, cause: wherry.CauseFailed, attempts: 1, is: errBank, says: "record accounts/1@5"},
		{name: "a refused output", err: &wherry.OutputError{Topic: "x", Err: kerr.MessageTooLarge}, cause: wherry.CausePermanent, attempts: 1, is: kerr.MessageTooLarge, says: "output to x"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := stopsWith(t, returns(test.err))
			require.Equal(t, test.cause, e.Cause)
			require.Equal(t, test.attempts, e.Attempts)
			require.ErrorIs(t, e, test.is)
			require.ErrorContains(t, e, test.says)
		})
	}
}

func TestAPanicIsARecordErrorWithItsStack(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		panic any
		says  string
	}{
		{"an error", errBank, "panic: the bank is closed"},
		{"a text", "out of money", "panic: out of money"},
		{"nil", nil, "panic"},
		{"an abort like http's", context.Canceled, "panic: context canceled"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := stopsWith(t, func(ctx context.Context, _ *kgo.Record) error {
				if err := paymentMade.Publish(ctx, "", payment{}); err != nil {
					return err
				}
				panic(test.panic)
			})
			require.Equal(t, wherry.CausePanic, e.Cause)
			require.ErrorContains(t, e, test.says)
			require.Contains(t, e.Stack, "errors_test.go")
			if err, ok := test.panic.(error); ok {
				require.ErrorIs(t, e, err)
			}
		})
	}
}
