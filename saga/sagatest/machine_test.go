package sagatest_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/saga"
)

func machine(t *testing.T) saga.Machine[order] {
	t.Helper()
	m, err := saga.NewMachine(checkout(), "o-1", time.Unix(1_700_000_000, 0))
	require.NoError(t, err)
	return m
}

func TestMachine_ACopyGoesItsOwnWay(t *testing.T) {
	t.Parallel()
	m := machine(t)
	out, err := m.Start(order{Total: 1})
	require.NoError(t, err)
	require.Len(t, out.Sent, 1)
	other := m
	_, err = m.Reply(out.Sent[0].Op, reserved{"A"})
	require.NoError(t, err)
	_, err = other.Reply(out.Sent[0].Op, &reqreply.Error{Code: "no", Message: "none"})
	require.NoError(t, err)
	require.Equal(t, saga.Running, m.Snapshot().Phase)
	require.Equal(t, saga.Undone, other.Snapshot().Phase)
	s, err := m.State()
	require.NoError(t, err)
	require.Equal(t, order{Total: 1, Shelf: "A"}, s)
}

func TestMachine_SaysWhatIsAwaitedAndWhatIsSent(t *testing.T) {
	t.Parallel()
	m := machine(t)
	require.Empty(t, m.Awaited())
	require.Zero(t, m.Snapshot().Phase)
	out, err := m.Start(order{Total: 1})
	require.NoError(t, err)
	op := saga.Op{Saga: "checkout", ID: "o-1", Step: "reserve", Attempt: 1}
	require.Equal(t, []saga.Awaited{{Op: op, Call: true, Due: m.Now.Add(10 * time.Second)}}, m.Awaited())
	sent := out.Sent[0]
	require.Equal(t, op, sent.Op)
	require.Equal(t, reserveReq{1}, sent.Value)
	require.Equal(t, "stock.reserve", sent.Record.Topic)
	require.Equal(t, "o-1", string(sent.Record.Key))
	headers := map[string]string{}
	for _, h := range sent.Record.Headers {
		headers[h.Key] = string(h.Value)
	}
	require.Equal(t, "checkout", headers["wherry-saga"])
	require.Equal(t, "checkout.saga.inbox", headers["kafka_replyTopic"])
	require.Equal(t, "0", headers["kafka_replyPartition"])
	require.NotEmpty(t, headers["wherry-deadline"])

	_, err = m.Reply(op, reserved{"A"})
	require.NoError(t, err)
	events := m.Awaited()[0].Events
	require.Equal(t, []string{"payment.created", "payment.failed"}, []string{events[0].Topic, events[1].Topic})
	require.True(t, events[1].Failure)
}

func TestMachine_IsDueWhenItSaysAndNotBefore(t *testing.T) {
	t.Parallel()
	m := machine(t)
	_, err := m.Start(order{})
	require.NoError(t, err)
	due := m.Snapshot().Next
	m.Now = due.Add(-time.Millisecond)
	before := m.Snapshot()
	_, err = m.Tick()
	require.NoError(t, err)
	require.Equal(t, before.Moves, m.Snapshot().Moves)
	m.Now = due
	_, err = m.Tick()
	require.NoError(t, err)
	require.Equal(t, "timed out", m.Snapshot().History[2].What)
}

func TestMachine_LocalStepsAreMadeAsItIsTold(t *testing.T) {
	t.Parallel()
	d := saga.Definition[order]{Name: "one", Steps: []saga.Step[order]{{
		Name: "a", NoUndo: true, Do: saga.Local(
			func(context.Context, order) (int, error) { return 1, nil },
			func(o *order, n int) { o.Total += n },
		),
	}}}
	for name, test := range map[string]struct {
		result any
		want   int
		why    string
	}{
		"a result":                {2, 12, ""},
		"the zero one":            {nil, 10, ""},
		"of another type, failed": {"two", 10, "want int, and this is string"},
	} {
		m, err := saga.NewMachine(d, "x", time.Unix(0, 0))
		require.NoError(t, err)
		m.Local = func(_ context.Context, op saga.Op, s order, call func() (any, error)) (any, error) {
			require.Equal(t, saga.Op{Saga: "one", ID: "x", Step: "a", Attempt: 1}, op)
			require.Equal(t, 10, s.Total)
			v, err := call()
			require.Equal(t, 1, v)
			require.NoError(t, err)
			return test.result, nil
		}
		_, err = m.Start(order{Total: 10})
		require.NoError(t, err)
		s, err := m.State()
		require.NoError(t, err)
		require.Equal(t, test.want, s.Total, name)
		if test.why != "" {
			require.Contains(t, m.Snapshot().History[2].Note, test.why)
		}
	}
}

func TestMachine_RefusesWhatItCannotTake(t *testing.T) {
	t.Parallel()
	m := machine(t)
	out, err := m.Start(order{})
	require.NoError(t, err)
	op := out.Sent[0].Op
	_, err = m.Reply(op, wherry.ErrPermanent)
	require.ErrorContains(t, err, "the error of a reply is a *reqreply.Error")
	op.Step = "pay"
	_, err = m.Reply(op, nil)
	require.ErrorContains(t, err, `step "pay" is no Call`)
	op.Step, op.Undo = "log", true
	_, err = m.Reply(op, nil)
	require.ErrorContains(t, err, `step "log" has no Undo`)
	op.Step = "none"
	_, err = m.Reply(op, nil)
	require.ErrorContains(t, err, `has no step "none"`)
	_, err = m.Do(saga.Resume, saga.By{})
	require.ErrorContains(t, err, "no actor")
	_, err = saga.NewMachine(saga.Definition[order]{}, "o-1", time.Time{})
	require.Error(t, err)
}
