// Package sagatest tests a [saga.Definition] without Kafka, in a time of its own:
// a saga's test is ten lines, and reads like the story.
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
// The test is the world: it answers what the saga asks for, publishes the events
// that it awaits, and lets time go by. It runs what an Engine runs, a
// [saga.Machine], which keeps nothing between two inputs but the bytes that the
// state topic would have. A test of this package holds both against each other: the
// same Definition and the same answers give the same history.
//
// Nothing is waited for. What a test asks for in vain ends it at once: with what is
// there instead, with what the saga waits for, and with all that has happened so
// far.
//
// # Given
//
// [Start] starts a saga with a state, [New] makes one that was not started: for a
// Definition that is started by an event ([Event]), for events that come before
// their time, and to say what its Local steps do:
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
// A step is named by its name, and its undoing by "undo " and the name.
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
// [Saga.Asked] says what is waited for, all of it. [Request] and [Emitted] are what
// was sent, with its type. [Saga.Done], [Saga.Undone] and [Saga.Parked] are ends,
// [Saga.State] is what became of the state, and [Saga.Why] says in a sentence what
// is waited for. [Saga.Golden] holds the whole story against a file.
//
// # Everything
//
// The story that nobody thought of is the one that goes wrong. [Everything] plays a
// saga with each combination of a few faults (a no, a failure, what is lost, late or
// twice, a crash) and with many at random, and checks what an Engine promises, and
// what the author says of the state:
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
// What it finds at first, as a rule: an undo that needs what only the answer of the
// step has said. If the answer is lost, the step is undone all the same.
//
// # Shape
//
// Sagas in flight rest on their Definition. [Shape] pins it in a file, so that an
// edit that they would not survive fails a test, which says what to do:
//
//	sagatest.Shape(t, checkout.Definition, "testdata/checkout.v2.txt")
package sagatest
