package saga_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/saga"
)

// order is the state of the sagas of these tests.
type order struct {
	Total int      `json:"total,omitempty"`
	Done  []string `json:"done,omitempty"`
}

// log is what local steps did, in order.
type log struct {
	mu  sync.Mutex
	all []string
}

func (l *log) add(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, what)
}

func (l *log) get() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string{}, l.all...)
}

// local does a step by noting it, or returns err.
func (l *log) local(name string, err error) saga.Action[order] {
	return saga.Local(func(ctx context.Context, _ order) (string, error) {
		if err != nil {
			l.add(name + " refused")
			return "", err
		}
		l.add(name)
		return name, nil
	}, func(o *order, r string) { o.Done = append(o.Done, r) })
}

func (l *log) undo(name string) saga.Action[order] {
	return saga.Do(func(context.Context, order) error { l.add("undo " + name); return nil })
}

// await waits until f holds.
func await(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			require.FailNow(t, "it did not come about: "+what)
		}
	}
}

func TestS14_ThreeLocalSteps(t *testing.T) {
	t.Parallel()
	k := kafkatest.NewCluster(t)
	var l log
	e := &saga.Engine[order]{Client: k.Client(t), Definitions: []saga.Definition[order]{{
		Name: "trip", Steps: []saga.Step[order]{
			{Name: "a", Do: l.local("a", nil), Undo: l.undo("a")},
			{Name: "b", Do: l.local("b", nil), Undo: l.undo("b")},
			{Name: "c", Do: l.local("c", nil), NoUndo: true},
		},
	}}}
	kafkatest.Run(t, e)
	require.NoError(t, e.Start(t.Context(), "o-1", order{Total: 5}))
	await(t, "the saga ends", func() bool { return e.Status().Ended == 1 })
	require.Equal(t, []string{"a", "b", "c"}, l.get())
}
