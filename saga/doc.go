// Package saga runs sagas whose only store is Kafka: work in several steps, each
// in a different place, that is either completed or taken back, whatever crashes
// on the way.
//
//	var Checkout = saga.Definition[Order]{Name: "checkout", Deadline: 15 * time.Minute, Steps: []saga.Step[Order]{
//		{Name: "reserve", Do: saga.Call(Reserve, …), Undo: saga.Call(Release, …), Timeout: 10 * time.Second, Idempotent: true},
//		{Name: "pay", Do: saga.Emit(OrderCreated, …, saga.Success(PaymentCreated, …), saga.Failure(PaymentFailed, …)), Undo: saga.Emit(OrderCancelled, …)},
//		{Name: "ship", Do: saga.Call(Ship, …), Pivot: true, Timeout: 10 * time.Second, Idempotent: true},
//		{Name: "log", Do: saga.Do(func(ctx context.Context, o Order) error { … })},
//	}}
//
//	engine := &saga.Engine[Order]{Client: cl, Definitions: []saga.Definition[Order]{Checkout}}
//	go engine.Run(ctx)                             // in any number of processes
//	err := engine.Start(ctx, "o-1", order)         // from any of them, or from another one
//	order, err := engine.Wait(ctx, "o-1")
//
// A saga is data: a [Definition] lists its steps, and how each of them is undone.
// A step is a function in the engine's own process ([Local], [Do]), a request to
// another service, the participant ([Call]), or an event and the events that
// answer it ([Emit], [Await]). A participant is an ordinary
// [reqreply.Method.Handler], or any service in any language that answers requests
// over Kafka. There is no history to replay, so what a step does need not be
// deterministic; only the functions that read and change the state must be pure.
//
// The page docs/sagas.md in the repository teaches all of this from the beginning.
//
// # Steps and their outcomes
//
// When a step is rejected, the steps before it are undone, last one first. A step
// that failed is tried again. If the outcome is unknown, because no answer came in
// time, the step is tried again if it is Idempotent, and otherwise undone along
// with the others. After the pivot the saga only goes forward. What undoes a step,
// and what comes after the pivot, is retried for ever. See [Step].
//
// # What exactly once means here
//
// Everything that happens to a saga is a record in its inbox. What it then does,
// what it becomes, and how far the inbox was read are one Kafka transaction. So
// readers with isolation.level=read_committed see each command and each event
// once, and no answer is taken in twice. What a participant or a Local step does
// elsewhere is done at least once: they recognise a second attempt by [Op.Key],
// and [Barrier] does that for a database.
//
// Timers are part of the state: they are never early, and a timer that fires twice
// does nothing the second time. Consecutive Local steps run without a transaction
// between them, so after a crash those of the last transaction run again. Whatever
// others can see is sent only when what it rests on is committed. So is any undo:
// by then its reason is on record for good.
//
// # Topics
//
// [TopicSpecs] describes them; <name>.saga.reply is for those who ask about sagas.
// The consumer groups are <name>.saga and, where events start sagas or end steps,
// <name>.saga.router. The number of partitions bounds how many processes can share
// the sagas; partitions that are added later are not used.
//
// # When things go wrong
//
//   - A record that is no input, and a second start with a different state, become
//     dead letters in <name>.saga.dlq. So does an event that no saga came to await.
//   - After a panic in a function of the Definition, an answer or a state that does
//     not decode, or an output that is too large or refused by the broker, the saga
//     is Quarantined: it stays as it was before, with the position of the input and
//     the error. Other sagas go on.
//   - Sagas of a version that no Definition has are parked, and go on when an
//     engine has it.
//   - While all attempts at a step fail, its [Gate] holds further ones back, and
//     no saga is undone because of it.
//   - An operator acts with verbs, such as [Engine.Retry] and [Engine.Cancel], and
//     asks with [Engine.Why].
//
// # What an Engine costs
//
// A running Engine has a member of its group, which reads, a transactional
// producer, a plain producer, and one client for queries; if there are events, one
// more member and transactional producer. That is about sixty goroutines and four
// connections to each broker, and up to 4 MiB for each fetch in flight, unless the
// Client sets kgo.FetchMaxBytes. An active saga takes its state and about 300
// bytes; one that has ended takes 32 bytes and its place in a map.
//
// A saga of three Local steps costs one record in the inbox, one in the state
// topic, and a share of a transaction.
//
// # Telemetry
//
// A saga is one trace: that of the context that it was started with, or of the
// event. Each input has a span "saga <name>" in it, linked to the input's own, and
// each attempt at a Local step has one, "saga <name> <step>". What a saga sends
// carries the trace. Metrics, all with the attribute wherry.saga.name:
//
//   - wherry.saga.transitions: what happened, by wherry.saga.transition
//   - wherry.saga.ended: by wherry.saga.outcome
//   - wherry.saga.active, .queued, .early_events, .waiting_commands, .oldest (s): of
//     the partitions of this process
//   - wherry.saga.timer.lateness (s)
//   - wherry.saga.stray_inputs: of sagas that have ended, or that nobody knows
package saga
