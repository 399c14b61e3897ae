package sagatest_test

import (
	"fmt"
	"time"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/saga"
	"github.com/wherry-go/wherry/saga/sagatest"
)

type Leave struct {
	From string `json:"from"`
	Boss string `json:"boss,omitempty"`
}

var (
	Asked    = wherry.Event[Leave]{Topic: "leave.asked"}
	Approved = wherry.Event[string]{Topic: "leave.approved"}
)

var LeaveSaga = saga.Definition[Leave]{Name: "leave", Steps: []saga.Step[Leave]{
	{
		Name: "approve", NoUndo: true, Timeout: 24 * time.Hour,
		Do: saga.Emit(Asked, func(l Leave) Leave { return l },
			saga.Success(Approved, func(l *Leave, boss string) { l.Boss = boss })),
	},
}}

// A step awaits an event, for a day at most.
func ExampleEvent() {
	s := sagatest.Start(t, LeaveSaga, "l-1", Leave{From: "May 1st"})
	fmt.Println(sagatest.Emitted(s, Asked))
	s.Advance(23 * time.Hour)
	sagatest.Event(s, Approved, "ada")
	s.Done()
	fmt.Println(s.State())

	late := sagatest.Start(t, LeaveSaga, "l-2", Leave{From: "May 1st"})
	late.Advance(24 * time.Hour)
	late.Undone("approve")
	fmt.Println(late.Why())
	// Output:
	// [{May 1st }]
	// {May 1st ada}
	// "l-2" was undone at 2000-01-02 00:00:00.000, because of step "approve": no answer in time.
}
