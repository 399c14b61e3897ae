package checkout_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/examples/checkout/checkout"
	"github.com/wherry-go/wherry/examples/checkout/contract"
	"github.com/wherry-go/wherry/saga"
	"github.com/wherry-go/wherry/saga/sagatest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Checkouts in flight rest on its shape: an edit that changes it needs a new
// Version.
func TestDefinition(t *testing.T) {
	t.Parallel()
	d := checkout.Definition(checkout.Pace{})
	require.NoError(t, d.Check())
	// What a saga cannot decide, and people have to. It is meant so.
	require.Equal(t, []string{`step "notify" comes after the pivot: if it is rejected, the saga is parked until an operator decides`}, d.Warnings())
	for name, text := range map[string]string{"shape.txt": d.Shape(), "checkout.mmd": d.Mermaid()} {
		path := filepath.Join("testdata", name)
		if *update {
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		}
		golden, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, string(golden), text, name)
	}
}

var order = checkout.Checkout{Customer: "ada", Address: "London", Item: "engine", Quantity: 2, Amount: 9999}

func TestAStoryOfARefusedPayment(t *testing.T) {
	t.Parallel()
	s := sagatest.Start(t, checkout.Definition(checkout.Pace{}), "o-1", order)
	s.Reply("reserve", contract.Reservation{Shelf: "A3"})
	s.Asked("pay", "ship")
	s.Refuse("pay", "refused", "the card was declined")
	s.Reply("ship", contract.Label{Tracking: "X7"}) // what runs beside it settles first
	s.Asked("undo ship")
	s.Reply("undo ship", contract.Label{})
	s.Asked("undo reserve")
	s.Reply("undo reserve", contract.Reservation{})
	s.Undone("pay")
}

// Whatever goes wrong, it ends, and what is done was paid for and booked.
func TestEverythingThatMayHappen(t *testing.T) {
	t.Parallel()
	sagatest.Everything(t, checkout.Definition(checkout.Pace{}), order, sagatest.World[checkout.Checkout]{
		Replies: map[string]any{
			"reserve": contract.Reservation{Shelf: "A3"},
			"pay":     contract.Payment{ID: "p-1"},
			"ship":    contract.Label{Tracking: "X7"},
			"capture": contract.Entry{Number: "e-1"},
		},
		Ends: func(e sagatest.End[checkout.Checkout]) error {
			if s := e.State; e.Phase == saga.Done && (s.Payment == "" || s.Tracking == "" || s.Entry == "") {
				return fmt.Errorf("it is done, and lacks something: %+v", s)
			}
			return nil
		},
	})
}
