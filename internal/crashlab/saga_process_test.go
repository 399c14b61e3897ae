//go:build unix

package crashlab

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// newSagaLab is newLab with sagas.
func newSagaLab(t *testing.T) *Lab {
	t.Helper()
	l := newLab(t, "wherry", ByKey)
	l.work.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l.Variant, l.Subjects = Sagas, subjectsOf(Sagas)
	l.work = NewWorkload(Sagas, l.client, l.Run, l.Seed)
	require.NoError(t, l.work.Open(ctx))
	return l
}

// Engines and participants end at a request, one after the other, while sagas
// are under way; others take their place.
func TestSagaProcess_DieAtRequests(t *testing.T) {
	t.Parallel()
	deaths := []Death{
		{Key: kmsg.EndTxn, N: 6}, {Key: kmsg.TxnOffsetCommit, N: 4}, {Key: kmsg.Produce, N: 9}, {Key: kmsg.Heartbeat, N: 2}, {Key: kmsg.InitProducerID, N: 1},
	}
	l := newSagaLab(t)
	start := func(d Death) *Process {
		p, err := l.Start(d)
		require.NoError(t, err)
		return p
	}
	for range l.Subjects {
		<-start(Death{}).Ready()
	}
	fed := make(chan error, 1)
	go func() { fed <- l.Feed(t.Context(), 0, 60, 10) }()
	died := 0
	for i := range 2 * len(deaths) { // each as an engine, and as a participant
		d := deaths[i/2]
		d.After = i%4 < 2
		p := start(d)
		select {
		case <-p.Exited():
			require.NoError(t, p.Err())
			died++
		case <-time.After(2 * l.Session): // it makes not so many requests, or not yet
		}
		if p.Gone() && i%2 == 0 {
			start(Death{}) // so that the next one is of the other kind
		}
	}
	require.NoError(t, <-fed)
	for _, subject := range l.Subjects {
		_, err := l.StartOf(subject, Death{})
		require.NoError(t, err)
	}
	l.judge(t)
	require.NotZero(t, died)
	t.Logf("%d of %d ended at their request", died, 2*len(deaths))
}

// An engine is frozen for longer than its session, while another takes its
// place, and goes on then; so is a participant.
func TestSagaProcess_IsFrozen(t *testing.T) {
	t.Parallel()
	for _, subject := range subjectsOf(Sagas) {
		t.Run(subject, func(t *testing.T) {
			t.Parallel()
			l := newSagaLab(t)
			var first *Process
			for range 2 * len(l.Subjects) {
				p, err := l.Start(Death{})
				require.NoError(t, err)
				if first == nil && p.Subject == subject {
					first = p
				}
			}
			<-first.Ready()
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
