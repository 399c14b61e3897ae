// Package sagatest tests a [saga.Definition] without Kafka and on its own clock: a
// saga's test takes ten lines, and reads like the story it tells.
//
//	func TestPaymentRefused(t *testing.T) {
//		s := sagatest.Start(t, checkout.Definition, "o-1", Order{Total: 100})
//		s.Asked("reserve")
//		s.Reply("reserve", ReserveResp{Shelf: "A3"})
//		s.Refuse("pay", "no-funds", "card declined")
//		s.Asked("undo reserve")
//		s.Reply("undo reserve", Released{})
//		s.Undone("pay")
//		s.Golden("testdata/payment_refused.txt")
//	}
//
// The test plays the rest of the world: it answers what the saga asks for, publishes
// the events that it awaits, and lets time go by. It runs what an Engine runs, a
// [saga.Machine], which keeps nothing between two inputs but the bytes that the
// state topic would hold. A test of this package compares the two: the same
// Definition and the same answers give the same history.
//
// Nothing is ever waited for. An expectation that does not hold ends the test at
// once, and the failure says what was there instead, what the saga waits for, and
// everything that has happened so far.
//
// # Given
//
// [Start] starts a saga with a state. [New] makes one that was not started yet: for
// a Definition that is started by an event ([Event]), for events that come too
// early, and to say what its Local steps do:
//
//	s := sagatest.New(t, checkout.Definition, "o-1")
//	s.FailLocal("log", errDown)              // the first attempt; the next one is made
//	sagatest.Event(s, OrderPlaced, order)    // starts it
//
// Local steps are the Definition's own functions, unless [Local] replaces them, and
// are called at once.
//
// # When
//
// Steps are given by name, and undoing a step by "undo " and its name.
//
//	s.Reply(step, v)   s.Refuse(step, code, why)   s.Fail(step, why)    a Call is answered
//	sagatest.Event(s, PaymentCreated, v)                                what an Emit, or an Await, awaits
//	s.Lose(step)       s.Late(step, v)             s.Twice()            the network at its worst
//	s.Next()           s.Advance(time.Hour)                             time goes by, nothing is early
//	s.Crash()                                                           the process dies, and another goes on
//	s.Cancel(why)      s.Do(saga.Skip, saga.By{…})                      an operator acts
//
// Values are checked, and encoded by the Method's Codec: the answer of another type
// than the Method's ends the test.
//
// # Then
//
// [Saga.Asked] checks which steps the saga waits for, no more and no fewer.
// [Request] and [Emitted] return what was sent, with its type. [Saga.Done],
// [Saga.Undone] and [Saga.Parked] check how it ended, [Saga.State] returns the state,
// and [Saga.Why] says in a sentence what the saga waits for. [Saga.Golden] compares
// the whole story with a file.
//
// # Everything
//
// The story that goes wrong is the one that nobody thought of. [Everything] plays a
// saga with each combination of a few faults (a refusal, a failure, a lost, late or
// doubled answer, a crash) and then with many at random. It checks what an Engine
// promises, and what you say about the state:
//
//	sagatest.Everything(t, checkout.Definition, Order{Total: 100}, sagatest.World[Order]{
//		Replies: map[string]any{"reserve": ReserveResp{Shelf: "A3"}},
//		Ends: func(e sagatest.End[Order]) error {
//			if e.Phase == saga.Undone && e.State.Shelf != "" {
//				return errors.New("the shelf is still reserved")
//			}
//			return nil
//		},
//	})
//
// What it usually finds first is an undo that needs something from the answer of its
// step. When that answer is lost, the step is undone without it.
//
// # Shape
//
// Sagas in flight depend on their Definition. [Shape] pins it in a file, so that an
// edit that would break them fails a test, which says what to do:
//
//	sagatest.Shape(t, checkout.Definition, "testdata/checkout.v2.txt")
package sagatest
