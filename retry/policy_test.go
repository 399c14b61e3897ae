package retry_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/retry"
)

// script is a handler that fails with one error after the other, and notes
// when it was called and as which attempt.
type script struct {
	errs     []error
	began    time.Time
	at       []time.Duration
	attempts []int
}

func newScript(errs ...error) *script { return &script{errs: errs, began: time.Now()} }

func (s *script) call(ctx context.Context) error {
	s.at = append(s.at, time.Since(s.began))
	s.attempts = append(s.attempts, wherry.Attempt(ctx))
	if n := len(s.at); n <= len(s.errs) {
		return s.errs[n-1]
	}
	return nil
}

func (s *script) handle(ctx context.Context, _ *kgo.Record) error { return s.call(ctx) }

func repeat(err error, n int) (errs []error) {
	for range n {
		errs = append(errs, err)
	}
	return errs
}

func TestWrap_TriesAgainExactlyWhenThePolicySays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newScript(io.EOF, io.EOF, io.EOF)
		err := retry.Policy{Attempts: 4, Initial: s}.Wrap(h.handle)(t.Context(), unread)
		require.NoError(t, err)
		require.Equal(t, []time.Duration{0, 1 * s, 3 * s, 7 * s}, h.at)
		require.Equal(t, []int{1, 2, 3, 4}, h.attempts)
	})
}

func TestWrap_AfterTheLastAttemptTheErrorTellsAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began, last := time.Now(), errors.New("still down")
		h := newScript(io.EOF, io.EOF, last)
		err := retry.Policy{}.Wrap(h.handle)(t.Context(), unread)
		require.Equal(t, &wherry.RecordError{Cause: wherry.CauseExhausted, Attempts: 3, First: began, Err: last}, err)
	})
}

func TestWrap_ASingleAttemptHasNoFirstFailure(t *testing.T) {
	t.Parallel()
	h := newScript(io.EOF)
	err := retry.Policy{Attempts: 1}.Wrap(h.handle)(t.Context(), unread)
	require.Equal(t, &wherry.RecordError{Cause: wherry.CauseExhausted, Attempts: 1, Err: io.EOF}, err)
}

func TestWrap_WhatNoRetryMendsGoesOnAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, err := range []error{
			wherry.Permanent(io.EOF),
			&wherry.RecordError{Cause: wherry.CauseUndecodable, Topic: unread.Topic, Partition: unread.Partition, Offset: unread.Offset, Err: io.EOF},
			&wherry.RecordError{Cause: wherry.CauseRejected, Err: io.EOF},
		} {
			began := time.Now()
			h := newScript(io.EOF, err)
			got, ok := errors.AsType[*wherry.RecordError](retry.Policy{Attempts: 9}.Wrap(h.handle)(t.Context(), unread))
			require.True(t, ok)
			require.Equal(t, 2, got.Attempts)
			require.Equal(t, began, got.First)
			require.ErrorIs(t, got, io.EOF)
			require.Equal(t, s, time.Since(began))
			want := wherry.CausePermanent
			if given, ok := errors.AsType[*wherry.RecordError](err); ok {
				want = given.Cause
			}
			require.Equal(t, want, got.Cause)
		}
	})
}

func TestWrap_AnErrorAboutAnotherRecordIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newScript(&wherry.RecordError{Cause: wherry.CauseUndecodable, Topic: "table", Offset: 7, Err: io.EOF})
		require.NoError(t, retry.Policy{}.Wrap(h.handle)(t.Context(), unread))
		require.Len(t, h.at, 2)
	})
}

func TestWrap_APanicKeepsItsStack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newScript(repeat(&wherry.RecordError{Cause: wherry.CausePanic, Err: io.EOF, Stack: "goroutine 1"}, 3)...)
		got, ok := errors.AsType[*wherry.RecordError](retry.Policy{}.Wrap(h.handle)(t.Context(), unread))
		require.True(t, ok)
		require.Equal(t, wherry.CauseExhausted, got.Cause)
		require.Equal(t, "goroutine 1", got.Stack)
		require.True(t, retry.Panicked(got))
	})
}

func TestWrap_WithinEndsTheAttempts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		h := newScript(repeat(io.EOF, 100)...)
		err := retry.Policy{Attempts: retry.Forever, Initial: s, Within: 10 * s}.Wrap(h.handle)(t.Context(), unread)
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, []time.Duration{0, 1 * s, 3 * s, 7 * s}, h.at)
		require.Equal(t, 7*s, time.Since(began), "a wait in vain is not begun")
	})
}

func TestWrap_PoliciesWithinPoliciesCountTheCallsOfTheHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		h := newScript(repeat(io.EOF, 100)...)
		inner := retry.Policy{Attempts: 2, Initial: s}
		outer := retry.Policy{Attempts: 3, Initial: 10 * s}
		err := outer.Wrap(inner.Wrap(h.handle))(t.Context(), unread)
		require.Equal(t, &wherry.RecordError{Cause: wherry.CauseExhausted, Attempts: 6, First: began, Err: io.EOF}, err)
		require.Equal(t, []int{1, 2, 3, 4, 5, 6}, h.attempts)
		require.Equal(t, []time.Duration{0, 1 * s, 11 * s, 12 * s, 32 * s, 33 * s}, h.at)
	})
}

func TestWrap_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 90*s)
		defer cancel()
		h := newScript(repeat(io.EOF, 100)...)
		err := retry.Policy{Attempts: 100, Initial: time.Minute}.Wrap(h.handle)(ctx, unread)
		require.ErrorIs(t, err, io.EOF)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Len(t, h.at, 2)
	})
}

func TestDo_FollowsTheSchedule(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newScript(io.EOF, retry.After(io.EOF, 5*s), io.EOF)
		require.NoError(t, retry.Policy{Attempts: 4, Initial: s}.Do(t.Context(), h.call))
		require.Equal(t, []time.Duration{0, 1 * s, 6 * s, 10 * s}, h.at)
		require.Equal(t, []int{1, 2, 3, 4}, h.attempts)

		h = newScript(repeat(io.EOF, 100)...)
		err := retry.Policy{}.Do(t.Context(), h.call)
		require.ErrorIs(t, err, io.EOF)
		require.EqualError(t, err, "exhausted after 3 attempts: EOF")

		h = newScript(wherry.Permanent(io.EOF))
		err = retry.Policy{}.Do(t.Context(), h.call)
		require.EqualError(t, err, "EOF")
		require.ErrorIs(t, err, wherry.ErrPermanent)
	})
}

func TestDo_EndsWithItsContextAndSaysWhy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reason := errors.New("the user went away")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(1500*ms, func() { cancel(reason) })
		h := newScript(repeat(io.EOF, 100)...)
		began := time.Now()
		err := retry.Policy{Attempts: 9, Initial: s}.Do(ctx, h.call)
		require.ErrorIs(t, err, io.EOF)
		require.ErrorIs(t, err, reason)
		require.Equal(t, 1500*ms, time.Since(began))

		h = newScript()
		require.ErrorIs(t, retry.Policy{}.Do(ctx, h.call), reason)
		require.Empty(t, h.at, "it is not even begun")

		err = retry.Policy{}.Do(t.Context(), func(context.Context) error { return reason })
		require.ErrorIs(t, err, reason)
	})
}

func TestDo_DoesNotWaitForAnAttemptThatComesTooLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*s)
		defer cancel()
		began := time.Now()
		h := newScript(repeat(io.EOF, 100)...)
		err := retry.Policy{Attempts: 9, Initial: s}.Do(ctx, h.call)
		require.ErrorIs(t, err, io.EOF)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 3*s, time.Since(began))
	})
}

func TestDo_AnEndWithinTheAttemptIsNoFurtherAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), s)
		defer cancel()
		calls := 0
		err := retry.Policy{}.Do(ctx, func(ctx context.Context) error {
			calls++
			<-ctx.Done()
			return ctx.Err()
		})
		require.Equal(t, context.DeadlineExceeded, err)
		require.Equal(t, 1, calls)
	})
}

func TestDo_RefusesAPolicyThatMakesNoSense(t *testing.T) {
	t.Parallel()
	err := retry.Policy{Attempts: -1, Jitter: 2}.Do(t.Context(), func(context.Context) error { panic("called") })
	require.ErrorContains(t, err, "Attempts is -1")
	require.ErrorContains(t, err, "Jitter is 2")
}
