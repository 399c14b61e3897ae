package sagatest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/saga"
	"github.com/wherry-go/wherry/saga/sagatest"
)

// script says what comes of the attempts at steps: "undo reserve 2" is the second
// attempt to undo reserve. A value is the answer, or the event; what is not there
// is lost.
type script map[string]any

func nth(op saga.Op) string {
	direction := ""
	if op.Undo {
		direction = "undo "
	}
	return fmt.Sprintf("%s%s %d", direction, op.Step, op.Attempt)
}

var (
	noMore = &reqreply.Error{Code: "sold-out", Message: "no more"}
	down   = &reqreply.Error{Code: "failed", Message: "down"}
)

var scripts = map[string]script{
	"all goes well": {
		"reserve 1": reserved{"A3"}, "pay 1": payment{ID: "p-1", Order: "o-1"}, "ship 1": shipped{"P1"},
	},
	"payment is refused": {
		"reserve 1": reserved{"A3"}, "pay 1": paymentLost{Order: "o-1", Why: "declined"}, "undo reserve 1": struct{}{},
	},
	"an answer is lost, the undo fails": {
		"reserve 2": reserved{"B1"}, "pay 1": payment{ID: "p-1", Order: "o-1"}, "ship 1": noMore,
		"undo reserve 1": down, "undo reserve 2": noMore, "undo reserve 4": struct{}{},
	},
	"all of one step is lost": {"undo reserve 1": struct{}{}},
	"participants are down": {
		"reserve 1": down, "reserve 2": down, "reserve 3": reserved{"C"}, // pay times out
		"undo reserve 1": struct{}{},
	},
	"the local step is refused behind the pivot": {
		"reserve 1": reserved{"A3"}, "pay 1": payment{ID: "p-1", Order: "o-1"}, "ship 1": shipped{"P1"}, "log 1": wherry.Permanent(errDown),
	},
	"the local step fails twice": {
		"reserve 1": reserved{"A3"}, "pay 1": payment{ID: "p-1", Order: "o-1"}, "ship 1": shipped{"P1"}, "log 1": errDown, "log 2": errDown,
	},
}

// agreed is the checkout, with a Local step that does as the script says.
func agreed(sc script) saga.Definition[order] {
	d := checkout()
	d.Steps[3].Do = saga.Local(func(ctx context.Context, _ order) (bool, error) {
		op, _ := saga.OpFrom(ctx)
		err, _ := sc[nth(op)].(error)
		return err == nil, err
	}, func(o *order, yes bool) { o.Logged = yes })
	return d
}

// The same Definition and the same script through sagatest and through an Engine
// on a broker: the same history, at the same times but for what a broker takes.
func TestSagatestAndTheEngineAgree(t *testing.T) {
	t.Parallel()
	for name, sc := range scripts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := byHand(t, sc)
			topics := []string{"stock.reserve", "stock.release", "parcels.ship", "parcels.recall", "payment.wanted", "payment.created", "payment.failed", "refund.wanted", "notify.wanted", "order.placed"}
			kafkatest.Test(t, topics, func(t *testing.T, k *kafkatest.Cluster) {
				got := byEngine(t, k, sc, want.Moves)
				require.Equal(t, want.Phase, got.Phase)
				require.Equal(t, want.Step, got.Step)
				require.Equal(t, want.Why, got.Why)
				require.JSONEq(t, string(want.Raw), string(got.Raw))
				require.Equal(t, lines(want), lines(got))
				for i, w := range want.History {
					at, is := w.At.Sub(want.Began), got.History[i].At.Sub(got.Began)
					require.InDelta(t, at.Seconds(), is.Seconds(), 1, "%s %s: %v by hand, %v by the Engine", w.What, w.Step, at, is)
				}
			})
		})
	}
}

// lines are a history, without its times.
func lines(s saga.Snapshot) (all []string) {
	for _, t := range s.History {
		all = append(all, fmt.Sprintf("%s %s %d %s", t.What, t.Step, t.Attempt, t.Note))
	}
	return all
}

func byHand(t *testing.T, sc script) saga.Snapshot {
	s := sagatest.Start(t, agreed(sc), "o-1", order{Total: 100})
	gone := map[string]bool{}
	for !s.Phase().Ended() && s.Phase() != saga.Parked {
		waits := false
		for _, p := range s.Snapshot().Steps {
			op := saga.Op{Step: p.Step, Attempt: p.Attempt, Undo: p.Status == "undoing"}
			if p.Status != "doing" && p.Status != "undoing" || gone[nth(op)] {
				continue
			}
			name := p.Step
			if op.Undo {
				name = "undo " + name
			}
			waits = true
			switch v := sc[nth(op)].(type) {
			case nil:
				gone[nth(op)] = true
				s.Lose(name)
			case payment:
				sagatest.Event(s, paymentCreated, v)
			case paymentLost:
				sagatest.Event(s, paymentFailed, v)
			case *reqreply.Error:
				s.Fault(name, v)
			default:
				s.Reply(name, v)
			}
			break
		}
		if !waits {
			s.Next()
		}
	}
	return s.Snapshot()
}

// answer is what a participant does.
func answer[Req, Resp any](sc script) func(ctx context.Context, _ Req) (Resp, error) {
	return func(ctx context.Context, _ Req) (resp Resp, _ error) {
		op, _ := saga.OpFrom(ctx)
		switch v := sc[nth(op)].(type) {
		case nil:
			return resp, reqreply.ErrLater // and never
		case *reqreply.Error:
			return resp, v
		default:
			return v.(Resp), nil
		}
	}
}

func byEngine(t *testing.T, k *kafkatest.Cluster, sc script, moves uint64) saga.Snapshot {
	e := &saga.Engine[order]{
		Client: k.Client(t), Definitions: []saga.Definition[order]{agreed(sc)}, Topics: wherry.TopicSpec{Partitions: 1},
	}
	kafkatest.Run(t, e)
	kafkatest.Run(t, &wherry.Consumer{
		Client: k.Client(t), Group: "world", Handlers: []wherry.Route{
			reserve.Handler(answer[reserveReq, reserved](sc)),
			release.HandlerUndo(answer[string, struct{}](sc)),
			ship.Handler(answer[shipReq, shipped](sc)),
			recall.HandlerUndo(answer[string, struct{}](sc)),
			paymentWanted.Handler(func(ctx context.Context, _ paymentDue) error {
				switch v := sc["pay 1"].(type) {
				case payment:
					return paymentCreated.Publish(ctx, "any", v)
				case paymentLost:
					return paymentFailed.Publish(ctx, "any", v)
				}
				return nil
			}),
		},
	})
	require.NoError(t, e.Start(t.Context(), "o-1", order{Total: 100}))
	var last saga.Instance[order]
	for range 2000 {
		var err error
		last, err = e.Get(t.Context(), "o-1")
		require.NoError(t, err)
		if last.Moves >= moves {
			break
		}
		time.Sleep(3 * time.Second) // in virtual time
	}
	return last.Snapshot
}
