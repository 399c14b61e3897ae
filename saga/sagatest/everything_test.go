package sagatest_test

import (
	"errors"
	"testing"

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

func TestEverything_OfACheckoutHolds(t *testing.T) {
	t.Parallel()
	w := world()
	w.Ends = func(e sagatest.End[order]) error {
		if e.Phase == saga.Undone && e.State.Shelf != "" {
			return errors.New("undone, and there is still a shelf")
		}
		return nil
	}
	sagatest.Everything(t, checkout(), order{Total: 100}, w)
}
