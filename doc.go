// Package wherry is for services that talk over Apache Kafka: typed events,
// handlers with policies around them, outputs that are sent only if their handler
// succeeded, tables that live in Kafka, and, in package saga, sagas. It is built on
// franz-go, whose client and records it takes and never hides.
//
// # A service
//
// An [Event] is a topic and the type of its values. Its Handler method makes a
// [Route] of a plain function, and a [Consumer] runs routes as a member of a
// consumer group:
//
//	var OrderPlaced = wherry.Event[Order]{Topic: "order.placed"}
//	var OrderPaid = wherry.Event[Payment]{Topic: "order.paid"}
//
//	billing := &wherry.Consumer{
//		Client: cl, // a *kgo.Client: how to reach the cluster
//		Group:  "billing",
//		Handlers: []wherry.Route{OrderPlaced.Handler(func(ctx context.Context, o Order) error {
//			return OrderPaid.Publish(ctx, o.ID, Payment{OrderID: o.ID})
//		})},
//		Policies: []wherry.Policy{wherry.Telemetry{}},
//	}
//	err := billing.Run(ctx) // until ctx is done
//
// A handler that returns nil is done with the record. An error stops the Consumer,
// with a [*RecordError] that names the record, unless a [Policy] handles it.
//
// # When things fail
//
// Policies are middleware around the handlers, outermost first. Package retry tries
// again, in place or by way of delay topics; package dlq puts what cannot be
// handled into a dead-letter topic. Both are built on [Wait] and [Publish], and so
// can yours be:
//
//	billing := &wherry.Consumer{
//		Client: cl, Group: "billing",
//		Handlers: []wherry.Route{OrderPlaced.Handler(pay)},
//		Order:    wherry.ByKey, // one order waits, the others flow on
//		Policies: []wherry.Policy{
//			wherry.Telemetry{},
//			&dlq.Queue{Topic: "billing.dlq"},
//			retry.Policy{Attempts: 4, Initial: time.Second}, // after 1 s, 2 s, 4 s
//		},
//	}
//
// [Consumer].Order says which records wait for each other, Concurrency how
// many are handled at once, Timeout how long an attempt may take, and
// [Event.Batch] handles many together, with a result for each.
//
// # Outputs
//
// In a handler, [Event.Publish] and [Publish] do not send records but stage them.
// They go out when the handler and all policies around it have returned nil, and
// the record in hand is done when they are acknowledged. A failed attempt leaves
// nothing behind. Code that is not a handler, such as an HTTP server, encodes with
// [Event.Record] and produces with its own client:
//
//	r, err := OrderPlaced.Record(o.ID, o)
//	…
//	err = cl.ProduceSync(ctx, r).FirstErr()
//
// # Exactly once
//
// With [Consumer].Delivery [ExactlyOnce] the outputs of a record, its writes to
// tables and the group's offset are one Kafka transaction. An [OwnedTable] holds
// the state of handlers: it is a compacted topic, of which each process has the
// partitions that belong to those it reads.
//
//	var balances = &wherry.OwnedTable[Balance]{Topic: "balances"}
//
//	ledger := &wherry.Consumer{
//		Client: cl, Group: "ledger",
//		Handlers: []wherry.Route{Transfer.Handler(book)}, // balances.Get, balances.Put, Booked.Publish
//		Delivery: wherry.ExactlyOnce,
//		Tables:   []wherry.Owned{balances},
//	}
//
// # State
//
// A [Table] follows a compacted topic as a map, whoever writes to it. The topic is
// the state: after a restart it is read back. [Table.Wait] lets a writer see its
// own write, and [Table.Until] waits for somebody else's.
// [EnsureTopics] makes topics that are missing, and returns an error for those that
// are not as they must be.
//
// # Question and answer
//
// Package reqreply is request and reply between services, which may be in NestJS or
// Spring:
//
//	var GetUser = reqreply.Method[string, *User]{Topic: "user.getUser"}
//
//	Handlers: []wherry.Route{GetUser.Handler(find)}       // in the service that answers
//	user, err := GetUser.Call(ctx, caller, "user1")       // in the one that asks
//
// # Sagas
//
// Package saga runs work in several steps, each in a different place, that is
// either completed or taken back: functions, requests to other services, events. An
// engine is a Consumer with an owned table, and Kafka is its only store.
//
//	var checkout = saga.Definition[Order]{
//		Name: "checkout",
//		Steps: []saga.Step[Order]{
//			{Name: "reserve", Do: saga.Do(reserve), Undo: saga.Do(release)},
//			{Name: "charge", Do: saga.Do(charge), Pivot: true}, // the point of no return
//			{Name: "tell", Do: saga.Emit(OrderPaid, func(o Order) Order { return o })},
//		},
//	}
//
//	engine := &saga.Engine[Order]{Client: cl, Definitions: []saga.Definition[Order]{checkout}}
//	go engine.Run(ctx)                     // in any number of processes
//	err := engine.Start(ctx, "o-1", order) // nil: it is in Kafka, and will be carried out
//
// # Guarantees
//
// Each of these is shown by tests, on the embedded broker and on a real Kafka.
//
//   - At least once, unless Delivery says otherwise: an offset is committed only
//     after its record's handler returned nil and its outputs were acknowledged.
//     Handlers must tolerate seeing a record twice.
//   - No half outputs: a failed attempt's outputs are never sent. (When the
//     broker itself refuses one of several outputs, the others may be out
//     already: the record then fails with an [*OutputError].)
//   - Start: a new group begins at [Consumer].From, committed at once. An
//     offset that the log does not hold stops with an [*OffsetRangeError]
//     unless OnReset says otherwise.
//   - Order: with [ByPartition] the records of a partition are handled one after
//     the other, and one that waits holds up its partition. With [ByKey] that is so
//     for the records of a key; others go on, up to MaxHeld records in hand and
//     MaxSpan offsets ahead, and records without a key have no order. With
//     [Unordered] none have.
//   - Finished set: with [ByKey] and [Unordered], what has finished beyond the
//     committed offset is kept in the commit's metadata, so that a successor does
//     not handle it again. (When that exceeds 3,000 characters only the oldest
//     record may begin; and a crash repeats what finished since the last commit,
//     100 ms at most.)
//   - No lost hand-off: a record leaves its topic only when its retry record
//     or its dead letter is acknowledged.
//   - Never early: a delayed record is not handled before its due time.
//   - Poison: bytes that do not decode go to the dead letters unchanged where
//     there is a dlq.Queue, and stop the Consumer with a [*RecordError] of cause
//     [CauseUndecodable] where there is none; nothing is skipped.
//   - Drain: when the context of Run is done, records in hand get
//     [Consumer].Drain to finish, and waits end at once. What is cut short does not
//     count as failed and is neither dead-lettered nor committed: it comes again.
//     The group is left at once.
//   - Rebalance: what is done of a partition is committed before another
//     member may begin; a revoked partition's outputs are refused. What a
//     handler that ignores its context does outside Kafka cannot be stopped.
//   - Alive: heartbeats never stop, whatever handlers do; one slow partition
//     pauses alone.
//   - Bounded: records in hand, staged outputs, waits and their sizes have
//     limits.
//
// With [ExactlyOnce], moreover:
//
//   - Exactly once: readers with isolation.level=read_committed see each effect
//     in Kafka once; retry records and dead letters are such effects. What
//     finished out of order is committed with the finished set, or not at all.
//   - Fencing: an owner that stood still and comes back, or a second producer of
//     its name, has no effect.
//   - Neighbours: a record that the broker refuses fails alone.
//   - Waits survive: when a transaction is aborted, the next one is made of the
//     same outputs; no handler runs again, and no wait starts over.
//   - State: an owned table's partition is read back up to the high watermark,
//     with every transaction that was open decided, before its first record.
//
// What handlers do outside Kafka is at least once in either case.
//
// # Life cycle
//
// Everything that runs has one verb, Run(ctx) error. It returns nil after a clean
// end and leaves no goroutine behind. Ready returns a channel that is closed when
// work begins, and Status tells what is going on. There is nothing to close.
package wherry
