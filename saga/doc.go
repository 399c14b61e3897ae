// Package saga has sagas whose only store is Kafka: what several services do
// together either comes to its end or is taken back, whatever crashes on the way.
//
//	var Checkout = saga.Definition[Order]{Name: "checkout", Deadline: 15 * time.Minute, Steps: []saga.Step[Order]{
//		{Name: "reserve", Do: saga.Call(Reserve, …), Undo: saga.Call(Release, …), Timeout: 10 * time.Second, Idempotent: true},
//		{Name: "pay", Do: saga.Emit(OrderCreated, …, saga.Success(PaymentCreated, …), saga.Failure(PaymentFailed, …)), Undo: saga.Emit(OrderCancelled, …)},
//		{Name: "ship", Do: saga.Call(Ship, …), Pivot: true},
//		{Name: "log", Do: saga.Do(func(ctx context.Context, o Order) error { … })},
//	}}
//
//	engine := &saga.Engine[Order]{Client: cl, Definitions: []saga.Definition[Order]{Checkout}}
//	go engine.Run(ctx)                             // in any number of processes
//	err := engine.Start(ctx, "o-1", order)         // from any of them, or from another one
//	order, err := engine.Wait(ctx, "o-1")
//
// A saga is data: a [Definition] says what is done, and how each step is undone.
// A participant is an ordinary [reqreply.Method.Handler], or any service in any
// language that answers requests over Kafka, or whoever reads an event and writes
// another; or the step is [Local], a function in the engine's own process. Nothing
// of a user's code is replayed, so there are no rules of what it may do.
//
// # Steps and their outcomes
//
// A step that is rejected has those before it undone, in reverse. One that failed
// is tried again. One whose outcome is not known is tried again if it is
// Idempotent, and is undone with the others if it is not. After the pivot the
// saga only goes forward, and what undoes is tried for ever. See [Step].
//
// # What exactly once means here
//
// Everything that happens to a saga is a record in its inbox. What it does then,
// what it is now and how far the inbox was read are one Kafka transaction: for
// readers with isolation.level=read_committed each command and each event is
// there once, and no answer is taken in twice. What a participant, or a Local
// step, does elsewhere is done at least once: they know a second attempt by
// [Op.Key], and [Barrier] does that in a database.
//
// Timers are in the state: they are never early, and one that is due twice does
// nothing the second time. Local steps run one after the other without a
// transaction between them; after a crash those of the last one run again. What
// others see waits until what it rests on is committed, and so does any undo, whose
// reason is then known for good.
//
// # Topics
//
// See [TopicSpecs]; and <name>.saga.reply for those who ask. Groups are
// <name>.saga and, where events start sagas or end steps, <name>.saga.router. How
// many partitions there are bounds how many processes share the sagas; adding some
// later has no effect.
//
// # When things go wrong
//
//   - What is no input, and a second start with another state, becomes a dead
//     letter in <name>.saga.dlq; so does an event that nobody came to await.
//   - A panic of a user's function, an answer or a state that does not decode, what
//     is too large or what a broker refuses, has its saga Quarantined, as it was
//     before, with the place of the input and the error. The others go on.
//   - Sagas of a version that no Definition has are parked, and go on where an
//     engine has it.
//   - While all attempts at a step fail, its [Gate] holds them, and nothing is
//     undone for it.
//   - An operator acts with verbs, such as [Engine.Retry] and [Engine.Cancel], and
//     asks with [Engine.Why].
//
// # What an Engine costs
//
// A running Engine has a member of its group, which reads, a transactional
// producer, a plain producer, and one client that asks; and two more of the first
// two where there are events. That is about sixty goroutines and four connections
// to each broker, and up to 4 MiB for each fetch in flight, unless the Client
// sets kgo.FetchMaxBytes. An active saga takes its state and some 300 bytes; one
// that has ended 32 bytes, and its place in a map.
//
// A saga of three Local steps costs one record in the inbox, one in the state
// topic, and a share of a transaction.
//
// # Telemetry
//
// A saga is one trace: that of the context that it was started with, or of the
// event. Each input has a span "saga <name>" in it, linked to the input's own,
// and each attempt at a Local step one, "saga <name> <step>". What a saga sends
// carries the trace. Metrics, all with wherry.saga.name:
//
//   - wherry.saga.transitions: what happened, by wherry.saga.transition
//   - wherry.saga.ended: by wherry.saga.outcome
//   - wherry.saga.active, .queued, .early_events, .waiting_commands, .oldest (s): of
//     the partitions of this process
//   - wherry.saga.timer.lateness (s)
//   - wherry.saga.stray_inputs: of sagas that have ended, or that nobody knows
package saga
