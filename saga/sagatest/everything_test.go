package sagatest_test

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/retry"
	"github.com/wherry-go/wherry/saga"
	"github.com/wherry-go/wherry/saga/sagatest"
)

func world() sagatest.World[order] {
	return sagatest.World[order]{
		Replies: map[string]any{"reserve": reserved{"A3"}, "ship": shipped{"P1"}},
		Results: map[string]any{"log": true},
		Events: []sagatest.AnEvent{
			sagatest.Sample(paymentCreated, payment{ID: "p-1", Order: "o-1"}),
			sagatest.Sample(paymentFailed, paymentLost{Order: "o-1", Why: "declined"}),
		},
	}
}

// everything is a test that runs everything.
func everything(d saga.Definition[order], w sagatest.World[order]) func(t testing.TB) {
	return func(t testing.TB) { sagatest.Everything(t, d, order{Total: 100}, w) }
}

func TestEverything_OfACheckoutHolds(t *testing.T) {
	t.Parallel()
	w := world()
	w.Ends = func(e sagatest.End[order]) error {
		if e.Phase == saga.Undone && e.State.Shelf != "" {
			return errors.New("undone, and there is still a shelf")
		}
		return nil
	}
	text := passes(t, everything(checkout(), w))
	counts := regexp.MustCompile(`(\d+) combinations, and 200 at random: (\d+) done, (\d+) parked, (\d+) undone`).FindStringSubmatch(text)
	require.Len(t, counts, 5, text)
	for i, least := range []int{100, 50, 5, 50} {
		n, err := strconv.Atoi(counts[i+1])
		require.NoError(t, err)
		require.GreaterOrEqual(t, n, least, text)
	}
	require.Equal(t, text, passes(t, everything(checkout(), w)), "it is the same each time")
}

// parallel is a saga with steps at the same time, and with Local ones of all
// kinds.
func parallel() saga.Definition[order] {
	do := func(context.Context, order) error { panic("World.Results are in its place") }
	fill := saga.Call(release, func(order) string { return "" }, nil)
	return saga.Definition[order]{
		Name: "parallel", Steps: []saga.Step[order]{
			{Name: "check", Do: saga.Do(do), NoUndo: true},
			{Name: "both", Parallel: []saga.Step[order]{
				{Name: "left", Do: fill, Undo: fill, Timeout: time.Second, Retry: retry.Policy{Attempts: 2}},
				{Name: "right", Do: fill, Undo: fill, Timeout: time.Minute, Idempotent: true},
				{Name: "books", Do: saga.Do(do), Undo: saga.Do(do)},
			}},
			{Name: "durable", Do: saga.Do(do), Undo: saga.Do(do), Durable: true},
			{Name: "sum", Do: saga.Local(func(context.Context, order) (int, error) { panic("so are those") }, func(o *order, n int) { o.Total += n }), Undo: saga.Do(do)},
		},
	}
}

func TestEverything_StepsAtTheSameTimeInEachOrder(t *testing.T) {
	t.Parallel()
	text := passes(t, everything(parallel(), sagatest.World[order]{Runs: 1500, Results: map[string]any{"sum": 3}, Always: func(o order) error {
		if o.Total != 100 && o.Total != 103 {
			return errors.New("the sum is wrong")
		}
		return nil
	}}))
	require.Contains(t, text, "undone")
}

func TestEverything_FindsTheUndoThatWasForgotten(t *testing.T) {
	t.Parallel()
	d := checkout()
	d.Steps[1].Undo, d.Steps[1].NoUndo = nil, true // says that there is nothing to take back
	w := world()
	w.Ends = func(e sagatest.End[order]) error {
		if e.Phase == saga.Undone && len(e.Done) > 0 {
			return errors.New("somebody has paid")
		}
		return nil
	}
	fails(t, everything(d, w), "World.Ends, of a saga that is undone: somebody has paid", "\nwith ship refused\n", "ended undone, because of step \"ship\"")
}

func TestEverything_FindsTheUndoThatTakesBackTooLittle(t *testing.T) {
	t.Parallel()
	d := checkout()
	d.Steps[0].Undo = saga.Call(release, func(o order) string { return o.Shelf }, nil)
	w := world()
	w.Ends = func(e sagatest.End[order]) error {
		if e.Phase == saga.Undone && e.State.Shelf != "" {
			return errors.New("undone, and there is still a shelf")
		}
		return nil
	}
	fails(t, everything(d, w), "there is still a shelf", "\nwith ship refused\n", "ended undone")
	w.Ends, w.Always = nil, func(o order) error {
		if o.Parcel != "" && o.Payment == "" {
			return errors.New("sent and not paid")
		}
		return nil
	}
	passes(t, everything(d, w))
	w.Always = func(o order) error {
		if o.Parcel != "" {
			return errors.New("sent")
		}
		return nil
	}
	fails(t, everything(d, w), "World.Always: sent", "\nwhen all goes well\n")
}

func TestEverything_FindsASagaThatWaitsForEver(t *testing.T) {
	t.Parallel()
	d := saga.Definition[order]{Name: "slow", Steps: []saga.Step[order]{
		{Name: "ship", NoUndo: true, Do: saga.Call(ship, func(order) shipReq { return shipReq{} }, nil)},
	}}
	fails(t, everything(d, sagatest.World[order]{}), "the saga waits for ever: give the step a Timeout", "with ship lost")
	passes(t, everything(d, sagatest.World[order]{Never: map[string][]sagatest.Outcome{"ship": {sagatest.Lost, sagatest.Late}}}))
}

func TestEverything_FindsAPanic(t *testing.T) {
	t.Parallel()
	// If the answer is lost, it is undone, and nobody knows the shelf.
	d := checkout()
	d.Steps[0].Undo = saga.Call(release, func(o order) string { return o.Shelf[:2] }, nil)
	fails(t, everything(d, world()), "the saga is quarantined", "slice bounds out of range", "with reserve lost, then reserve refused")
}

func TestEverything_SaysWhatTheWorldLacks(t *testing.T) {
	t.Parallel()
	fails(t, everything(checkout(), sagatest.World[order]{}), `step "pay": a record of payment.created is about saga [""], and this is "o-1"`, "World.Events has no Sample of payment.created")
	fails(t, everything(checkout(), sagatest.World[order]{Replies: map[string]any{"reverse": 1}, Never: map[string][]sagatest.Outcome{"rest": nil}}), `there is no step "reverse"`, `there is no step "rest"`)
	w := world()
	w.Replies["reserve"] = 7
	fails(t, everything(checkout(), w), "the answer of stock.reserve: want sagatest_test.reserved, and this is int")
	d := checkout()
	d.Steps = nil
	fails(t, everything(d, w), "it has no Steps")
}

func TestEverything_IsBounded(t *testing.T) {
	t.Parallel()
	w := world()
	w.Runs, w.Seeds = 20, 5
	require.Contains(t, passes(t, everything(checkout(), w)), "20 combinations, not all of them, for there are more than World.Runs, and 5 at random")
}

func TestEverything_SaysWhereFunctionsAreNotPure(t *testing.T) {
	t.Parallel()
	n := 0
	d := checkout()
	d.Steps[2].When = func(order) bool { n++; return n != 1 }
	w := world()
	w.Ends = func(e sagatest.End[order]) error {
		if e.State.Parcel == "" && e.Phase == saga.Done {
			return errors.New("no parcel")
		}
		return nil
	}
	fails(t, everything(d, w), "no parcel", "the Definition's functions are not pure")
}
