package saga_test

import (
	"context"
	"fmt"
	"time"

	"github.com/wherry-go/wherry/saga"
)

// Check names all that is wrong with a Definition, as Engine.Run does.
func ExampleDefinition_Check() {
	type Parcel struct{ To string }
	work := saga.Do(func(context.Context, Parcel) error { return nil })
	d := saga.Definition[Parcel]{Name: "parcels", Steps: []saga.Step[Parcel]{
		{Name: "label", Do: work},
		{Name: "send", Do: work, Pivot: true, Timeout: time.Minute},
		{Name: "tell", Do: work, Undo: work},
	}}
	fmt.Println(d.Check())
	// Output:
	// saga "parcels": step "label" has no Undo: set one, or NoUndo if there is nothing to take back
	// step "send" has a Timeout, and is neither Idempotent nor undone: nobody could go on when it is over
	// step "tell" has an Undo, and comes after the pivot: nothing is undone there
}
