//go:build unix

package crashlab

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// newSagaLab is newLab with sagas, and a process of each kind of which the first
// one of that subject dies as told.
func newSagaLab(t *testing.T, subject string, d Death) (l *Lab, dies *Process) {
	t.Helper()
	l = newLab(t, "wherry", ByKey)
	l.work.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l.Variant, l.Subjects = Sagas, subjectsOf(Sagas)
	l.work = NewWorkload(Sagas, l.client, l.Run, l.Seed)
	require.NoError(t, l.work.Open(ctx))
	for range l.Subjects {
		death := Death{}
		if next, _ := l.fewest(); next == subject {
			death = d
		}
		p, err := l.Start(death)
		require.NoError(t, err)
		if p.Subject == subject {
			dies = p
		}
	}
	return l, dies
}

// An engine, or a participant, ends at a request; another one goes on.
func TestSagaProcess_DiesAtARequest(t *testing.T) {
	t.Parallel()
	deaths := []Death{
		{Key: kmsg.EndTxn, N: 6, After: true}, {Key: kmsg.TxnOffsetCommit, N: 4}, {Key: kmsg.Produce, N: 9},
		{Key: kmsg.Heartbeat, N: 2}, {Key: kmsg.InitProducerID, N: 1, After: true},
	}
	for i, d := range deaths {
		for j, subject := range subjectsOf(Sagas) {
			if os.Getenv("KAFKATEST_BROKERS") != "" && i > 0 { // where a test takes 10 s, and they take turns
				continue
			}
			t.Run(subject+" "+d.String(), func(t *testing.T) {
				t.Parallel()
				d.After = d.After != (j == 1)
				l, first := newSagaLab(t, subject, d)
				require.NoError(t, l.Feed(t.Context(), 0, 40, 100))
				select {
				case <-first.Exited():
					require.NoError(t, first.Err())
				case <-time.After(20 * time.Second): // or it makes not so many requests
				}
				for range l.Subjects {
					_, err := l.Start(Death{})
					require.NoError(t, err)
				}
				l.judge(t)
			})
		}
	}
}

// An engine is frozen for longer than its session, while another takes its
// place, and goes on then; so is a participant.
func TestSagaProcess_IsFrozen(t *testing.T) {
	t.Parallel()
	for _, subject := range subjectsOf(Sagas) {
		t.Run(subject, func(t *testing.T) {
			t.Parallel()
			l, first := newSagaLab(t, subject, Death{})
			<-first.Ready()
			for range l.Subjects {
				_, err := l.Start(Death{})
				require.NoError(t, err)
			}
			feeding := make(chan error, 1)
			go func() { feeding <- l.Feed(t.Context(), 0, int(20*l.Session.Seconds()), 10) }()
			require.Eventually(t, func() bool { return l.Fed() > 3 }, time.Minute, time.Millisecond)
			first.Freeze()
			select {
			case <-time.After(l.Session * 3 / 2):
			case <-first.Exited():
			}
			first.Thaw()
			require.NoError(t, <-feeding)
			l.judge(t)
		})
	}
}
