package sagatest_test

import (
	"testing"

	"github.com/wherry-go/wherry/saga/sagatest"
)

func TestStory_PaymentRefused(t *testing.T) {
	t.Parallel()
	s := sagatest.Start(t, checkout(), "o-1", order{Total: 100})
	s.Asked("reserve")
	s.Reply("reserve", reserved{Shelf: "A3"})
	sagatest.Event(s, paymentFailed, paymentLost{Order: "o-1", Why: "card declined"})
	s.Asked("undo reserve")
	s.Reply("undo reserve", nil)
	s.Undone("pay")
	s.Golden("testdata/payment_refused.txt")
}
