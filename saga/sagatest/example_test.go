package sagatest_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/wherry-go/wherry/reqreply"
	"github.com/wherry-go/wherry/saga"
	"github.com/wherry-go/wherry/saga/sagatest"
)

type Trip struct {
	Hotel  string `json:"hotel,omitempty"`
	Flight string `json:"flight,omitempty"`
}

type Booking struct{ Number string }

var (
	BookHotel    = reqreply.Method[string, Booking]{Topic: "hotels.book"}
	CancelHotel  = reqreply.Method[string, struct{}]{Topic: "hotels.cancel"}
	BookFlight   = reqreply.Method[string, Booking]{Topic: "flights.book"}
	CancelFlight = reqreply.Method[string, struct{}]{Topic: "flights.cancel"}
)

var TripSaga = saga.Definition[Trip]{Name: "trip", Steps: []saga.Step[Trip]{
	{
		Name: "hotel", Timeout: 10 * time.Second,
		Do: saga.Call(BookHotel, func(Trip) string { return "one night" },
			func(t *Trip, b Booking) { t.Hotel = b.Number }),
		Undo: saga.Call(CancelHotel, func(t Trip) string { return t.Hotel },
			func(t *Trip, _ struct{}) { t.Hotel = "" }),
	},
	{
		Name: "flight", Timeout: 10 * time.Second,
		Do: saga.Call(BookFlight, func(Trip) string { return "at noon" },
			func(t *Trip, b Booking) { t.Flight = b.Number }),
		Undo: saga.Call(CancelFlight, func(t Trip) string { return t.Flight },
			func(t *Trip, _ struct{}) { t.Flight = "" }),
	},
}}

// t stands for a test's *testing.T.
var t testing.TB = printing{}

// printing is a test that prints.
type printing struct{ testing.TB }

func (printing) Helper()                       {}
func (printing) Cleanup(func())                {}
func (printing) Failed() bool                  { return false }
func (printing) Logf(text string, args ...any) { fmt.Printf(text+"\n", args...) }
func (printing) Fatalf(text string, args ...any) {
	fmt.Printf(text+"\n", args...)
	panic("the end of the test")
}

// The flight is full, so the hotel is cancelled.
func Example() {
	s := sagatest.Start(t, TripSaga, "t-1", Trip{})
	s.Reply("hotel", Booking{Number: "h-7"})
	s.Refuse("flight", "full", "no seats")
	fmt.Println("to be cancelled:", sagatest.Request[string](s, "undo hotel"))
	s.Reply("undo hotel", struct{}{})
	s.Undone("flight")
	fmt.Println(s.Transcript())
	// Output:
	// to be cancelled: h-7
	// saga trip, version 1, "t-1"
	//
	//      +0s  start {}
	//             ask hotel: hotels.book one night
	//      +0s  reply hotel {"Number":"h-7"}
	//             done hotel
	//             ask flight: flights.book at noon
	//             state {"hotel":"h-7"}
	//      +0s  refuse flight: full: no seats
	//             rejected flight: flights.book: full: no seats
	//             ask undo hotel: hotels.cancel h-7
	//      +0s  reply undo hotel {}
	//             undone hotel
	//             ended undone, because of step "flight": flights.book: full: no seats
	//             state {}
}

// The answer of the airline is lost. Nobody knows whether there is a seat, so it is
// cancelled too.
func ExampleSaga_Lose() {
	s := sagatest.Start(t, TripSaga, "t-1", Trip{})
	s.Reply("hotel", Booking{Number: "h-7"})
	s.Lose("flight")
	s.Next()
	fmt.Println("after", s.Elapsed())
	s.Asked("undo flight")
	s.Reply("undo flight", struct{}{})
	s.Asked("undo hotel")
	// Output:
	// after 10s
}

// What a test asks for in vain ends it, and says why.
func ExampleSaga_Asked() {
	defer func() { _ = recover() }()
	s := sagatest.Start(t, TripSaga, "t-1", Trip{})
	s.Asked("flight")
	// Output:
	// sagatest: want asked: flight
	// but asked: hotel
	//
	// "t-1" waits for the outcome of attempt 1 at step "hotel" (call hotels.book), since 2000-01-01 00:00:00.000; it times out at 2000-01-01 00:00:10.000.
	//
	// saga trip, version 1, "t-1"
	//
	//      +0s  start {}
	//             ask hotel: hotels.book one night
}

// Everything finds what the author has not thought of: where the answer of the
// airline was lost, the flight is cancelled, and nobody knows its number.
func ExampleEverything() {
	defer func() { _ = recover() }()
	d := TripSaga
	d.Steps = slices.Clone(d.Steps)
	d.Steps[1].Undo = saga.Call(CancelFlight, func(t Trip) string {
		if t.Flight == "" {
			panic("cancelling a flight without a number")
		}
		return t.Flight
	}, nil)
	sagatest.Everything(t, d, Trip{}, sagatest.World[Trip]{
		Replies: map[string]any{"hotel": Booking{"h-7"}, "flight": Booking{"f-1"}},
	})
	// Output:
	// sagatest: the saga is quarantined: trip.saga.inbox/0@2: panic: cancelling a flight without a number
	// with flight lost
	//
	// saga trip, version 1, "o-1"
	//
	//      +0s  start {}
	//             ask hotel: hotels.book one night
	//      +0s  reply hotel
	//             done hotel
	//             ask flight: flights.book at noon
	//             state {"hotel":"h-7"}
	//      +0s  lose flight
	//     +10s  time
	//             timed out flight
	//             quarantined: trip.saga.inbox/0@2: panic: cancelling a flight without a number
}
