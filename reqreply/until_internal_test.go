package reqreply

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// until is one of context.WithDeadline, whatever is asked first.
func TestUntil_IsAContextWithADeadline(t *testing.T) {
	t.Parallel()
	type key struct{}
	gone := errors.New("gone")
	asks := map[string]func(*until){
		"nothing": func(*until) {},
		"Done":    func(u *until) { u.Done() },
		"Err":     func(u *until) { _ = u.Err() },
		"a child": func(u *until) { _, cancel := context.WithCancel(u); defer cancel() },
	}
	for name, ask := range asks {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				parent, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, 1))
				at := time.Now().Add(time.Minute)
				var timed, ended, cut, sooner until
				timed.set(parent, at)
				ended.set(parent, at)
				cut.set(parent, at.Add(time.Hour))
				early, stop := context.WithTimeout(parent, time.Second)
				defer stop()
				sooner.set(early, at)
				for _, u := range []*until{&timed, &ended, &cut, &sooner} {
					ask(u)
					require.NoError(t, u.Err())
					require.Equal(t, 1, u.Value(key{}))
				}
				end, ok := timed.Deadline()
				require.True(t, ok)
				require.Equal(t, at, end)
				end, _ = sooner.Deadline()
				require.Equal(t, time.Second, time.Until(end))

				ended.end()
				require.ErrorIs(t, ended.Err(), context.Canceled)
				<-ended.Done()

				<-sooner.Done()
				require.ErrorIs(t, sooner.Err(), context.DeadlineExceeded)
				child, stopChild := context.WithCancel(&timed)
				defer stopChild()
				time.Sleep(time.Until(at))
				synctest.Wait()
				require.ErrorIs(t, timed.Err(), context.DeadlineExceeded)
				require.ErrorIs(t, context.Cause(&timed), context.DeadlineExceeded)
				require.ErrorIs(t, child.Err(), context.DeadlineExceeded)
				<-timed.Done()
				timed.end()
				require.ErrorIs(t, timed.Err(), context.DeadlineExceeded, "the first reason counts")

				cancel(gone)
				require.ErrorIs(t, cut.Err(), context.Canceled)
				require.ErrorIs(t, context.Cause(&cut), gone)
				<-cut.Done()
			})
		})
	}
}
